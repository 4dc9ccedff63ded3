"""The augmentations that the paper found to help least: filtered bands, noise and cut-outs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BANDS = 4
# What each band, from fine to coarse, contributes to a natural image's variance.
_POWER = torch.tensor([1.0, 1.0, 1.0, 10.0]) / 13


def amplify_bands(images: Tensor, gains: Tensor) -> Tensor:
    """Scale four octaves of spatial frequency, fine to coarse, by gains [N, 4].

    images [N, C, H, W]. The bands are differences of binomial blurs and sum to the image, so gains
    of one leave it alone.
    """
    result = torch.zeros_like(images)
    rest = images
    for band in range(BANDS - 1):
        blurred = _blur(rest, spacing=2**band)
        result = result + (rest - blurred) * gains[:, band, None, None, None]
        rest = blurred
    return result + rest * gains[:, -1, None, None, None]


def balanced_gains(gains: Tensor) -> Tensor:
    """Gains [N, 4] scaled so that a natural image keeps its variance."""
    return gains / (gains.square() @ _POWER).sqrt()[:, None]


def add_noise(images: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """images plus noise [N, C, H, W] times sigma [N]."""
    return images + noise * sigma[:, None, None, None]


def cut_out(images: Tensor, x: Tensor, y: Tensor, size: Tensor) -> Tensor:
    """Grey out a square about (x, y) [N], each in units of the image; size [N], 0 for none."""
    _, _, height, width = images.shape
    column = (torch.arange(width) + 0.5) / width  # [W]
    row = (torch.arange(height) + 0.5) / height  # [H]
    within_x = (column - x[:, None]).abs() < size[:, None] / 2  # [N, W]
    within_y = (row - y[:, None]).abs() < size[:, None] / 2  # [N, H]
    hole = within_y[:, None, :, None] & within_x[:, None, None, :]  # [N, 1, H, W]
    return images * ~hole


def _blur(images: Tensor, spacing: int) -> Tensor:
    """Binomial (1, 4, 6, 4, 1)/16 with `spacing` between the taps, mirrored at the edge."""
    channels = images.shape[1]
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=images.dtype) / 16
    margin = 2 * spacing
    for axis in (2, 3):
        kernel = taps.view(1, 1, -1, 1) if axis == 2 else taps.view(1, 1, 1, -1)
        padding = (0, 0, margin, margin) if axis == 2 else (margin, margin, 0, 0)
        images = F.conv2d(
            F.pad(images, padding, mode="reflect"),
            kernel.expand(channels, 1, -1, -1),
            dilation=spacing,
            groups=channels,
        )
    return images
