"""From a command line's values to a segmenter's training run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from velatura.export.networks.segmenter import Architecture, SegmenterConfig
from velatura.training.avatars.compose import HELD_OUT_SEED
from velatura.training.avatars.dataset import segmented_avatars
from velatura.training.avatars.layers import render_layers
from velatura.training.runs.loop import Schedule
from velatura.training.segmenter.labelled_images import LabelledImages, read_folder
from velatura.training.segmenter.train import SegmenterTraining, train_segmenter

_RESOLUTION = 128
_HELD_OUT = 200


@dataclass(frozen=True)
class SegmenterRun:
    """What to train on and for how long; `folder` None stands for avatars."""

    out: Path
    steps: int
    minutes: float
    count: int
    folder: Path | None
    architecture: str
    backbone: str
    learning_rate: float = 2e-3
    lovasz_from: float = 0.5
    bf16: bool = False
    start_from: Path | None = None


def run_segmenter(run: SegmenterRun) -> dict[str, float]:
    """Train and return the figures on held-out images."""
    data, held_out = _data(run)
    # Four stages: at stride 16 a 128 px image is 8 px wide, enough to see all of it.
    widths = (64,) if run.architecture == "deeplabv3plus" else (128, 64, 32, 32)
    config = SegmenterConfig(
        architecture=cast("Architecture", run.architecture),
        encoder=run.backbone,
        classes=data.classes,
        resolution=_RESOLUTION,
        decoder_channels=widths,
        encoder_depth=4,
        refinement=(32, 16, 24),
    )
    settings = SegmenterTraining(
        learning_rate=run.learning_rate, lovasz_from=run.lovasz_from, bf16=run.bf16
    )
    schedule = Schedule(run.steps, run.minutes, final_rate=0.02)
    return train_segmenter(
        config, settings, schedule, data, held_out, run.out, start_from=run.start_from
    )


def _data(run: SegmenterRun) -> tuple[LabelledImages, LabelledImages]:
    """Training and held-out images: other seeds, or every tenth of a folder."""
    if run.folder is None:
        layers = render_layers(_RESOLUTION)
        return (
            segmented_avatars(0, run.count, layers),
            segmented_avatars(HELD_OUT_SEED, _HELD_OUT, layers),
        )
    data = read_folder(run.folder, _RESOLUTION)
    kept = torch.arange(len(data)) % 10 == 0
    return (
        LabelledImages(data.images[~kept], data.labels[~kept], data.classes),
        LabelledImages(data.images[kept], data.labels[kept], data.classes),
    )
