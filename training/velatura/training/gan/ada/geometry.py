"""Geometric augmentations: one matrix an image, from output to input coordinates.

Coordinates are those of `grid_sample`: [-1, 1] from edge to edge, x to the right and y downwards,
on square images.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Apply = Callable[[Tensor, Tensor], Tensor]  # images and one matrix each → images

_SUPERSAMPLING = 2


def identity(count: int) -> Tensor:
    """[N, 3, 3]."""
    return torch.eye(3).repeat(count, 1, 1)


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """Factors [N] along both axes → [N, 3, 3]."""
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return torch.stack([x, zero, zero, zero, y, zero, zero, zero, one], dim=1).view(-1, 3, 3)


def rotation(angle: Tensor) -> Tensor:
    """Angles [N] in radians → [N, 3, 3]."""
    c, s = angle.cos(), angle.sin()
    zero, one = torch.zeros_like(c), torch.ones_like(c)
    return torch.stack([c, -s, zero, s, c, zero, zero, zero, one], dim=1).view(-1, 3, 3)


def quarter_turns(turns: Tensor) -> Tensor:
    """Whole numbers [N] of 90° turns → [N, 3, 3] with entries of exactly -1, 0 and 1."""
    return rotation(turns * (math.pi / 2)).round()


def translation(x: Tensor, y: Tensor) -> Tensor:
    """Shifts [N] in units of half an image → [N, 3, 3]."""
    moved = identity(x.shape[0])
    moved[:, 0, 2], moved[:, 1, 2] = x, y
    return moved


def where(applied: Tensor, matrices: Tensor) -> Tensor:
    """The matrices [N, D, D] where `applied` [N] holds, the identity elsewhere."""
    return torch.where(applied[:, None, None], matrices, torch.eye(matrices.shape[1]))


def blit(images: Tensor, matrices: Tensor) -> Tensor:
    """Flips, quarter turns and whole-pixel shifts: samples are moved and none is mixed.

    images [N, C, R, R], matrices [N, 3, 3]. What lies outside is mirrored at the edge.
    """
    grid = _grid(matrices, images.shape[2])
    # The centres of pixels fall on centres of pixels, but for float32's rounding.
    return F.grid_sample(
        images, grid, mode="nearest", padding_mode="reflection", align_corners=False
    )


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Any affine map, sampled at twice the resolution and averaged down, against aliasing.

    images [N, C, R, R], matrices [N, 3, 3]. What lies outside is mirrored at the edge. Sharpening
    beforehand makes up for what bilinear sampling and averaging take off: together they keep more
    detail than bicubic sampling does, in a third of its time.
    """
    grid = _grid(matrices, images.shape[2] * _SUPERSAMPLING)  # [N, 2R, 2R, 2]
    sampled = F.grid_sample(
        _sharpened(images), grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return F.avg_pool2d(sampled, _SUPERSAMPLING)  # [N, C, R, R]


def _sharpened(images: Tensor) -> Tensor:
    """Undoes, to first order, the smoothing (1, 6, 1)/8 of an identity warp."""
    taps = torch.tensor([-1.0, 10.0, -1.0], dtype=images.dtype) / 8
    channels = images.shape[1]
    kernel = torch.outer(taps, taps).expand(channels, 1, -1, -1)  # [C, 1, 3, 3]
    return F.conv2d(F.pad(images, [1] * 4, mode="reflect"), kernel, groups=channels)


def _grid(matrices: Tensor, size: int) -> Tensor:
    """Where each of size × size output pixels reads: [N, size, size, 2]."""
    shape = [matrices.shape[0], 1, size, size]
    return F.affine_grid(matrices[:, :2], shape, align_corners=False)
