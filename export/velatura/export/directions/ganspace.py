"""GANSpace: the principal components of W (Härkönen et al. 2020, arXiv:2004.02546)."""

from __future__ import annotations

import torch

from velatura.export.directions.components import SAMPLES, component
from velatura.export.directions.entries import Layers, require_layers
from velatura.export.errors import CheckpointError
from velatura.export.latents import sample_w
from velatura.export.networks.stylegan2 import Generator
from velatura.v1 import bundle_pb2


def find_directions(
    generator: Generator, count: int = 5, *, layers: Layers | None = None
) -> list[bundle_pb2.DirectionEntry]:
    """The first `count` principal components of w of many z, applied to `layers` (None: all).

    The components are the same whatever the layers; the layers choose what of them shows. Names
    are ganspace-0 and so on. Raises CheckpointError for layers that the generator lacks, or more
    directions than W has dimensions.
    """
    config = generator.config
    start, end = require_layers("ganspace", layers, config)
    if not 0 < count <= config.w_dim:
        raise CheckpointError(f"{count} directions: W has {config.w_dim} dimensions")
    w = sample_w(generator.mapping, SAMPLES).double()  # [N, w_dim]
    values, vectors = torch.linalg.eigh(w.T.cov())  # ascending
    entries = []
    for rank in range(count):
        share = float(values[-1 - rank] / values.sum())
        entries.append(
            component(
                f"ganspace-{rank}",
                vectors[:, -1 - rank],
                generator,
                w,
                layers=(start, end),
                method="ganspace",
                share=share,
                description=f"Principal component {rank} of W, {share:.1%} of its variance, in "
                f"layers {start} to {end - 1}.",
            )
        )
    return entries
