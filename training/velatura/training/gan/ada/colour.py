"""Colour augmentations: one matrix an image, on samples (red, green, blue, 1) in [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

_GREY = torch.tensor([1.0, 1.0, 1.0, 0.0]) / 3**0.5  # the axis of greys, a unit vector
_ALONG_GREY = torch.outer(_GREY, _GREY)  # [4, 4], projects on the axis


def brightness(shift: Tensor) -> Tensor:
    """Added to every sample: [N] → [N, 4, 4]."""
    matrix = torch.eye(4).repeat(shift.shape[0], 1, 1)
    matrix[:, :3, 3] = shift[:, None]
    return matrix


def contrast(factor: Tensor) -> Tensor:
    """Every sample times the factor, about mid-grey: [N] → [N, 4, 4]."""
    one = torch.ones_like(factor)
    return torch.diag_embed(torch.stack([factor, factor, factor, one], dim=1))


def luma_flip(flipped: Tensor) -> Tensor:
    """Mirrors light and dark and keeps the hue where `flipped` is 1 (not where it is 0)."""
    return torch.eye(4) - 2 * _ALONG_GREY * flipped[:, None, None]


def hue_rotation(angle: Tensor) -> Tensor:
    """Turns colours about the axis of greys by radians: [N] → [N, 4, 4] (Rodrigues' formula)."""
    x, y, z = _GREY[:3].tolist()
    cross = torch.tensor([[0, -z, y, 0], [z, 0, -x, 0], [-y, x, 0, 0], [0, 0, 0, 0]])
    c, s = angle.cos()[:, None, None], angle.sin()[:, None, None]
    turned = c * torch.eye(4) + s * cross + (1 - c) * _ALONG_GREY
    turned[:, 3, 3] = 1
    return turned


def saturation(factor: Tensor) -> Tensor:
    """Stretches colours away from their grey: [N] → [N, 4, 4]."""
    scaled = _ALONG_GREY + (torch.eye(4) - _ALONG_GREY) * factor[:, None, None]
    scaled[:, 3, 3] = 1
    return scaled


def recolour(images: Tensor, matrices: Tensor) -> Tensor:
    """Apply [N, 4, 4] to every pixel of images [N, 3, H, W]."""
    mixed = torch.einsum("nij,njhw->nihw", matrices[:, :3, :3], images)
    return mixed + matrices[:, :3, 3, None, None]
