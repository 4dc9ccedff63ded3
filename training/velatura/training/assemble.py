"""Collects trained runs into the weights that the export reads."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.torch import load_file

from velatura.export.checkpoints.class_generator import load_class_generator
from velatura.export.checkpoints.native import load_segmenter, save_weights
from velatura.export.networks.encoder import Encoder, EncoderConfig
from velatura.export.networks.stylegan2 import Generator
from velatura.training.classifier.network import load_classifier
from velatura.training.generator.mapping import MAPPING_FILE, mapping_config
from velatura.training.generator.pretrain import LabelledGenerator
from velatura.training.runs.checkpoint import load_checkpoint, restore_module
from velatura.training.runs.record import read_records

RUNS_FILE = "runs.json"


@dataclass(frozen=True)
class Runs:
    """Where each network was trained; `encoder` is a checkpoint, the others are folders of runs.

    What is None is left as it is among the weights.
    """

    encoder: Path | None = None  # and the generator that was trained along
    mapping: Path | None = None
    segmenter: Path | None = None
    unet: Path | None = None
    class_generator: Path | None = None
    classifier: Path | None = None


def assemble_weights(runs: Runs, weights: Path) -> None:
    """Write the runs' networks, each safetensors and JSON, to `weights`; runs.json tells the runs.

    All but the generator are rounded to float16; the mapping's steep first layer would suffer.
    Raises ValueError where the encoder's run comes without the mapping's.
    """
    if runs.encoder is not None:
        if runs.mapping is None:
            raise ValueError("mapping: give its run along with the encoder's and generator's")
        _write_pair(runs.encoder, runs.mapping, weights)
    for name, run in (("avatar-segmenter", runs.segmenter), ("avatar-segmenter-unet", runs.unet)):
        if run is not None:
            network, config = load_segmenter(run / "segmenter.safetensors")
            save_weights(weights / f"{name}.safetensors", network, config, half=True)
    if runs.class_generator is not None:
        sampler = load_class_generator(runs.class_generator / "class-generator.safetensors")
        save_weights(weights / "avatar-biggan.safetensors", sampler, sampler.config, half=True)
    if runs.classifier is not None:
        judge = load_classifier(runs.classifier / "classifier.safetensors")
        save_weights(weights / "avatar-classifier.safetensors", judge, judge.config, half=True)
    _write_records(runs, weights / RUNS_FILE)


def _write_records(runs: Runs, path: Path) -> None:
    """How each network was trained, by its name in the bundle; networks left alone keep theirs."""
    folders = {
        "avatar-synthesis": runs.encoder,
        "avatar-encoder": runs.encoder,
        "avatar-mapping": runs.mapping,
        "avatar-segmenter": runs.segmenter,
        "avatar-segmenter-unet": runs.unet,
        "avatar-expressions": runs.class_generator,
        "avatar-classifier": runs.classifier,
    }
    known = json.loads(path.read_text()) if path.is_file() else {}
    new = {
        name: [asdict(record) for record in read_records(run)]
        for name, run in folders.items()
        if run is not None
    }
    path.write_text(json.dumps(known | new, indent=1) + "\n")


def _write_pair(checkpoint: Path, mapping_run: Path, weights: Path) -> None:
    tensors, _ = load_checkpoint(checkpoint)
    config = mapping_config()
    labelled = LabelledGenerator(config)
    encoder = Encoder(EncoderConfig())
    restore_module("ema.generator", labelled, tensors)
    restore_module("ema.encoder", encoder, tensors)
    generator = Generator(config)
    generator.synthesis.load_state_dict(labelled.synthesis.state_dict())
    generator.mapping.load_state_dict(load_file(mapping_run / MAPPING_FILE))
    save_weights(weights / "avatar-generator.safetensors", generator, config)
    save_weights(weights / "avatar-encoder.safetensors", encoder, encoder.config, half=True)
