"""Perceptual path length (Karras et al. 2019, arXiv:1812.04948), with the domain's features.

The expected squared distance that a small step along a path between two latents makes, over the
step's length squared. The paper measures it with LPIPS on VGG; here it is the distance between the
judge's pooled features, scaled to length one, so figures compare generators of this domain alone.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from velatura.export.networks.stylegan2 import Generator
from velatura.training.classifier.network import AttributeClassifier
from velatura.training.evaluation.figures import Measured

EPSILON = 1e-3  # ten times the paper's: float32 features resolve it well
_BATCH = 32
_SEED = 30
# Paths whose length is extreme are left out, as in the paper's code.
_LOWEST, _HIGHEST = 1, 99


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Between rows [N, D] along the great circle of their directions; `t` [N, 1]; unit length."""
    a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    cosine = (a * b).sum(dim=1, keepdim=True).clamp(-1, 1)
    angle = t * torch.acos(cosine)  # [N, 1]
    across = F.normalize(b - cosine * a, dim=1)
    return F.normalize(a * torch.cos(angle) + across * torch.sin(angle), dim=1)


def lerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Between rows [N, D] along the straight line; `t` [N, 1]."""
    return a + (b - a) * t


@torch.inference_mode()
def path_length(generator: Generator, judge: AttributeClassifier, count: int, space: str) -> float:
    """Mean over `count` random paths, in "z" (great circles) or "w" (straight lines).

    The mapping normalises z, so points of the unit sphere stand for all of z.
    """
    rng = torch.Generator().manual_seed(_SEED)
    z_dim = generator.config.z_dim
    ends = torch.randn(2, count, z_dim, generator=rng)
    places = torch.rand(count, 1, generator=rng)
    found = []
    for rows in torch.split(torch.arange(count), _BATCH):
        t = places[rows]
        w = torch.stack(_steps(generator, ends[:, rows], t, space))  # [2, n, w_dim]
        w_plus = w.flatten(0, 1)[:, None].expand(-1, generator.config.num_ws, -1)
        images = generator.synthesis(w_plus).clamp(-1, 1)  # [2n, 3, R, R]
        here, there = F.normalize(judge.features(images), dim=1).chunk(2)
        found.append((here - there).square().sum(dim=1) / EPSILON**2)  # [n]
    lengths = torch.cat(found).numpy()
    low = np.percentile(lengths, _LOWEST, method="lower")
    high = np.percentile(lengths, _HIGHEST, method="higher")
    return float(lengths[(lengths >= low) & (lengths <= high)].mean())


def _steps(generator: Generator, ends: Tensor, t: Tensor, space: str) -> list[Tensor]:
    """w at `t` and a step further on, each [n, w_dim]; `ends` [2, n, z_dim]."""
    one = torch.ones(ends.shape[1])
    if space == "z":
        scale = ends.shape[2] ** 0.5  # where a normal z would lie
        return [
            generator.mapping(slerp(ends[0], ends[1], at) * scale, one) for at in (t, t + EPSILON)
        ]
    if space == "w":
        w = [generator.mapping(z, one) for z in ends]
        return [lerp(w[0], w[1], at) for at in (t, t + EPSILON)]
    raise ValueError(f'space: {space!r} is none of "z" and "w"')


def path_length_figures(
    generator: Generator, judge: AttributeClassifier, count: int
) -> list[Measured]:
    """One figure for each space."""
    place = f"{count} paths, step {EPSILON:g}, domain features (avatar classifier)"
    return [
        Measured(f"PPL/{space}", path_length(generator, judge, count, space), "", place)
        for space in ("z", "w")
    ]
