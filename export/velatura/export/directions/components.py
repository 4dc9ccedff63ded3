"""Unsupervised components of W: scaled to the data, with the range and the effect measured."""

from __future__ import annotations

import torch
from torch import Tensor

from velatura.export.directions.entries import Layers, entry
from velatura.export.networks.stylegan2 import Generator
from velatura.v1 import bundle_pb2

SAMPLES = 10_000  # of w, for deviations, ranges and principal components
_SHOWN = 8  # images for the effect
_PSI = 0.7
_TAILS = (0.01, 0.99)  # of the samples that a strength may lead beyond, seen from the average


def component(
    name: str,
    vector: Tensor,
    generator: Generator,
    w: Tensor,
    *,
    layers: Layers,
    method: str,
    share: float,
    description: str,
) -> bundle_pb2.DirectionEntry:
    """The unit vector [w_dim] as a direction of W, given samples w [N, w_dim], both float64.

    Strength 1 is one standard deviation of w along it, and its largest coordinate is positive. The
    useful range leads from the average w to the 1st and 99th percentile of the samples: further
    out the generator has hardly been trained. Figures: the share of variation that it stands for,
    and how far the samples of the images move on average at strength 1.
    """
    vector = vector * vector[vector.abs().argmax()].sign()
    along = (w - w.mean(dim=0)) @ vector  # [N]
    deviation = along.std()
    offset = vector * deviation
    found = entry(
        name,
        offset.numpy(),
        generator.config,
        layers=layers,
        method=method,
        description=description,
    )
    low, high = (along / deviation).quantile(torch.tensor(_TAILS, dtype=along.dtype)).tolist()
    found.min_strength, found.max_strength = round(low, 2), round(high, 2)
    change = image_change(generator, w[:_SHOWN].float(), offset.float(), layers)
    found.figures.extend(
        [
            bundle_pb2.Figure(name="share of variation", value=round(share, 4)),
            bundle_pb2.Figure(
                name="change",
                value=round(change, 3),
                unit="levels of 255",
                measured_on=f"{_SHOWN} samples at psi {_PSI}, strength 1",
            ),
        ]
    )
    return found


@torch.inference_mode()
def image_change(generator: Generator, w: Tensor, offset: Tensor, layers: Layers) -> float:
    """Mean absolute change of the 8-bit samples when w [N, w_dim], truncated, moves by `offset`."""
    average = generator.mapping.w_avg
    total = 0.0
    for row in average + _PSI * (w - average):  # one image at a time: some have 1024 px
        w_plus = row.expand(1, generator.config.num_ws, -1)  # [1, num_ws, w_dim]
        moved = w_plus.clone()
        moved[:, slice(*layers)] += offset
        before, after = (generator.synthesis(each).clamp(-1, 1) for each in (w_plus, moved))
        total += float((after - before).abs().mean()) * 127.5
    return total / len(w)
