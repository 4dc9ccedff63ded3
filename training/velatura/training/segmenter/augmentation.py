"""Augmentation for segmenters: other backgrounds, geometry, and the look of reconstructions.

Every function takes a batch in [-1, 1] and a random generator, decides per image, and keeps the
label map in step with the image.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Batch = tuple[Tensor, Tensor]  # image [N, 3, H, W] in [-1, 1], labels [N, H, W] int64


def augment(image: Tensor, labels: Tensor, rng: torch.Generator) -> Batch:
    """All augmentations in the order in which a picture would suffer them."""
    image = _replace_background(image, labels, rng)
    image, labels = _affine(image, labels, rng)
    image = _soften(image, rng)
    image = _colour_jitter(image, rng)
    return _noise(image, rng).clamp(-1, 1), labels


def _uniform(count: int, low: float, high: float, rng: torch.Generator) -> Tensor:
    return torch.empty(count).uniform_(low, high, generator=rng)


def _chosen(count: int, probability: float, rng: torch.Generator) -> Tensor:
    """A [N, 1, 1, 1] boolean: which images this augmentation touches."""
    return (torch.rand(count, generator=rng) < probability).view(-1, 1, 1, 1)


def _replace_background(image: Tensor, labels: Tensor, rng: torch.Generator) -> Tensor:
    """Put gradients, coloured noise of several scales or another image behind class 0."""
    count = image.shape[0]
    backdrop = _backdrop(image, rng)
    alpha = (labels == 0).float().unsqueeze(1)  # [N, 1, H, W]
    alpha = F.avg_pool2d(F.pad(alpha, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    alpha = torch.minimum(alpha, (labels == 0).float().unsqueeze(1))
    return torch.where(_chosen(count, 0.35, rng), image * (1 - alpha) + backdrop * alpha, image)


def _backdrop(image: Tensor, rng: torch.Generator) -> Tensor:
    count, _, height, width = image.shape
    cells = (2, 4, 8, 32)[int(torch.randint(4, (1,), generator=rng))]
    noise = torch.rand(count, 3, cells, cells, generator=rng) * 2 - 1
    smooth = F.interpolate(noise, (height, width), mode="bilinear", align_corners=False)
    # A flipped, strongly enlarged piece of another image: textured, coloured, no whole face in it.
    other = image.roll(1, dims=0).flip(3)[:, :, : height // 4, : width // 4]
    texture = F.interpolate(other, (height, width), mode="bilinear", align_corners=False)
    return torch.where(_chosen(count, 0.7, rng), smooth, texture)


def _affine(image: Tensor, labels: Tensor, rng: torch.Generator) -> Batch:
    """Mirror half of the images; rotate ±12°, scale 0.75–1.3, shift ±10 % a part of them."""
    count = image.shape[0]
    moved = _chosen(count, 0.6, rng).view(-1).float()
    angle = _uniform(count, -12, 12, rng) * (math.pi / 180) * moved
    scale = torch.exp(_uniform(count, math.log(0.75), math.log(1.3), rng) * moved)
    flip = torch.where(torch.rand(count, generator=rng) < 0.5, -1.0, 1.0)
    shift = (torch.rand(count, 2, generator=rng) * 0.4 - 0.2) * moved[:, None]
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    theta = torch.stack(
        [
            torch.stack([cos * flip, -sin, shift[:, 0]], dim=1),
            torch.stack([sin * flip, cos, shift[:, 1]], dim=1),
        ],
        dim=1,
    )  # [N, 2, 3]
    grid = F.affine_grid(theta, list(image.shape), align_corners=False)
    image = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
    warped = F.grid_sample(
        labels.unsqueeze(1).float(),
        grid,
        mode="nearest",
        padding_mode="border",
        align_corners=False,
    )
    return image, warped.squeeze(1).long()


def _soften(image: Tensor, rng: torch.Generator) -> Tensor:
    """What a reconstruction lacks: fine detail. Half resolution and back, or a 3×3 blur."""
    count = image.shape[0]
    halved = F.interpolate(F.avg_pool2d(image, 2), scale_factor=2.0, mode="bilinear")
    blurred = F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    image = torch.where(_chosen(count, 0.15, rng), halved, image)
    return torch.where(_chosen(count, 0.2, rng), blurred, image)


def _colour_jitter(image: Tensor, rng: torch.Generator) -> Tensor:
    """Brightness, contrast, saturation and a tint per channel."""
    count = image.shape[0]
    contrast = _uniform(count, 0.7, 1.3, rng).view(-1, 1, 1, 1)
    saturation = _uniform(count, 0.5, 1.4, rng).view(-1, 1, 1, 1)
    tint = torch.empty(count, 3, 1, 1).uniform_(-0.2, 0.2, generator=rng)
    grey = image.mean(dim=1, keepdim=True)
    jittered = (grey + (image - grey) * saturation) * contrast + tint
    return torch.where(_chosen(count, 0.6, rng), jittered, image)


def _noise(image: Tensor, rng: torch.Generator) -> Tensor:
    count = image.shape[0]
    amount = _uniform(count, 0.0, 0.12, rng).view(-1, 1, 1, 1)
    grain = torch.randn(image.shape, generator=rng) * amount
    return torch.where(_chosen(count, 0.3, rng), image + grain, image)


def soften_and_grain(image: Tensor, rng: torch.Generator) -> Tensor:
    """Blur, resampling and noise only, for networks that must keep colours and places."""
    return _noise(_soften(image, rng), rng).clamp(-1, 1)
