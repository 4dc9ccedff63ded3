"""Samples of W, for the statistics that a checkpoint does not carry."""

from __future__ import annotations

import torch
from torch import Tensor

from velatura.export.networks.stylegan2 import MappingNetwork

_BATCH = 1000


def sample_w(mapping: MappingNetwork, count: int, seed: int = 0) -> Tensor:
    """w [count, w_dim] of standard normal z, at psi 1; the same for the same weights and seed.

    Classes of a conditional network are drawn evenly.
    """
    rng = torch.Generator().manual_seed(seed)
    drawn = []
    with torch.inference_mode():
        for start in range(0, count, _BATCH):
            n = min(_BATCH, count - start)
            z = torch.randn(n, mapping.z_dim, generator=rng)
            classes = None
            if mapping.classes:
                index = torch.randint(mapping.classes, (n,), generator=rng)
                classes = torch.nn.functional.one_hot(index, mapping.classes).float()
            drawn.append(mapping(z, torch.ones(n), classes))
    return torch.cat(drawn).clone()  # a normal tensor, where inference mode's cannot be saved


def average_w(mapping: MappingNetwork) -> Tensor:
    """[w_dim], of 10,000 samples: for checkpoints without the average that training kept."""
    return sample_w(mapping, 10_000).mean(dim=0)
