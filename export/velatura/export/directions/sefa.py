"""SeFa: directions that change an image most, in closed form (Shen and Zhou, arXiv:2007.06600)."""

from __future__ import annotations

import torch
from torch import Tensor

from velatura.export.directions.components import SAMPLES, component
from velatura.export.directions.entries import Layers
from velatura.export.errors import CheckpointError
from velatura.export.latents import sample_w
from velatura.export.networks.stylegan2 import Generator
from velatura.v1 import bundle_pb2


def find_directions(
    generator: Generator, count: int = 5, *, layers: Layers | None = None
) -> list[bundle_pb2.DirectionEntry]:
    """The `count` directions of W that move the styles of `layers` (None: all) furthest.

    They are the leading eigenvectors of AᵀA, where A [sum of channels, w_dim] stacks the affine
    weights of the convolutions that read these layers. Names are sefa-0 and so on. Raises
    CheckpointError for layers that the generator lacks, or more directions than W has dimensions.
    """
    config = generator.config
    start, end = layers or (0, config.num_ws)
    stacked = affine_weights(generator)[start:end]
    if not 0 <= start < end <= config.num_ws or not stacked:
        raise CheckpointError(
            f"layers {start}:{end}: no convolution reads them; choose within 0:{config.num_ws - 1}"
        )
    if not 0 < count <= config.w_dim:
        raise CheckpointError(f"{count} directions: W has {config.w_dim} dimensions")
    weights = torch.cat(stacked).double()  # [sum of channels, w_dim]
    values, vectors = torch.linalg.eigh(weights.T @ weights)  # ascending
    w = sample_w(generator.mapping, SAMPLES).double()
    entries = []
    for rank in range(count):
        share = float(values[-1 - rank] / values.sum())
        entries.append(
            component(
                f"sefa-{rank}",
                vectors[:, -1 - rank],
                generator,
                w,
                layers=(start, end),
                method="sefa",
                share=share,
                description=f"Eigenvector {rank} of the styles of layers {start} to {end - 1}: "
                f"{share:.1%} of their variation.",
            )
        )
    return entries


def affine_weights(generator: Generator) -> list[Tensor]:
    """[channels, w_dim] of the convolution that reads each layer of W+; the last has RGB only."""
    found = []
    for resolution in generator.synthesis.resolutions:
        block = getattr(generator.synthesis, f"b{resolution}")
        for layer in ([] if resolution == 4 else [block.conv0]) + [block.conv1]:
            found.append(layer.affine.weight.detach() * layer.affine.weight_gain)
    return found
