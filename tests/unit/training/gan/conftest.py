"""Tiny sets of images to learn from."""

from __future__ import annotations

import pytest
import torch

from velatura.training.gan.images import ImageSet


@pytest.fixture
def discs() -> ImageSet:
    """Bright discs on dark grounds, each with a colour and a place of its own: [24, 3, 32, 32]."""
    rng = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    images = []
    for _ in range(24):
        cx, cy = torch.randint(10, 22, (2,), generator=rng).tolist()
        color = torch.randint(128, 256, (3, 1, 1), generator=rng)
        inside = (x - cx) ** 2 + (y - cy) ** 2 < 64
        images.append(torch.where(inside, color, 30))
    return ImageSet(torch.stack(images).to(torch.uint8))
