"""The networks under test, read from a folder of weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from velatura.export.checkpoints.native import load_encoder, load_generator, load_segmenter
from velatura.export.errors import CheckpointError
from velatura.export.networks.encoder import Encoder
from velatura.export.networks.stylegan2 import Generator
from velatura.training.avatars.layers import LayerSet, render_layers
from velatura.training.classifier.network import AttributeClassifier, load_classifier

JUDGE_FILE = "avatar-classifier.safetensors"


@dataclass(frozen=True)
class Subjects:
    """Generator and encoder, every segmenter by its name, and the judge with the data's layers."""

    weights: Path
    generator: Generator
    encoder: Encoder
    segmenters: dict[str, nn.Module]
    judge: AttributeClassifier
    layers: LayerSet


def load_subjects(weights: Path) -> Subjects:
    """Read what there is. Raises CheckpointError when a needed file is missing or does not fit."""
    generator = load_generator(weights / "avatar-generator.safetensors")
    encoder = load_encoder(weights / "avatar-encoder.safetensors")
    found = sorted(weights.glob("avatar-segmenter*.safetensors"))
    segmenters = {path.stem: load_segmenter(path)[0] for path in found}
    judge = load_classifier(weights / JUDGE_FILE)
    size = generator.config.resolution
    if judge.config.resolution != size:
        raise CheckpointError(
            f"{weights / JUDGE_FILE}: the judge reads {judge.config.resolution} px, the generator "
            f"draws {size} px; train a classifier of that resolution"
        )
    return Subjects(weights, generator, encoder, segmenters, judge, render_layers(size))
