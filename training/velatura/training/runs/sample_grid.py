"""Sample grids: a batch of images in [-1, 1] laid out as one PNG."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid


def save_grid(path: Path, images: Tensor, columns: int) -> None:
    """Write `images` [N, 3, H, W] in [-1, 1] as a PNG of `columns` columns."""
    grid = make_grid(images.detach().float().clamp(-1, 1), nrow=columns, padding=2, pad_value=1.0)
    pixels = ((grid + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0)  # [H, W, 3]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.numpy()).save(path)
