"""Sample grids of the model cards: small PNGs that the embedded bundle can carry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from velatura.export.networks.biggan import ClassGenerator
from velatura.export.networks.stylegan2 import Generator

_LARGEST = 96  # pixels of one picture
_COLOURS = 256
_GAP = 2
_PSI = 0.7
_SEED = 0


def save_pictures(path: Path, images: Tensor, columns: int) -> None:
    """Write `images` [N, 3, H, W] in [-1, 1] in rows of `columns`, in 256 colours.

    Larger ones are shrunk to 96 px.
    """
    if images.shape[2] > _LARGEST:
        images = F.interpolate(images, (_LARGEST, _LARGEST), mode="bilinear", antialias=True)
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    pixels = F.pad(pixels, (0, _GAP, 0, _GAP), value=255)  # a white line right of and below each
    rows = -(-len(pixels) // columns)
    height, width = pixels.shape[2:]
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for i, picture in enumerate(pixels.permute(0, 2, 3, 1).numpy()):
        top, left = i // columns * height, i % columns * width
        sheet[top : top + height, left : left + width] = picture
    picture = Image.fromarray(sheet)
    # Without dithering, smooth backgrounds would look banded; Pillow only dithers to a palette.
    palette = picture.quantize(_COLOURS, kmeans=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)


@torch.inference_mode()
def sampled(generator: Generator, count: int = 32) -> Tensor:
    """Random images [N, 3, R, R] at psi 0.7, the same every time."""
    z = torch.randn(count, generator.config.z_dim, generator=torch.Generator().manual_seed(_SEED))
    images: Tensor = generator(z, torch.full((count,), _PSI))
    return images


@torch.inference_mode()
def sampled_classes(generator: ClassGenerator, count: int = 8) -> Tensor:
    """`count` random images of each class at psi 0.7, a row a class."""
    config = generator.config
    rng = torch.Generator().manual_seed(_SEED)
    z = _PSI * torch.randn(count, config.z_dim, generator=rng)  # [count, z_dim]
    classes = torch.eye(len(config.classes)).repeat_interleave(count, dim=0)  # [C · count, C]
    images: Tensor = generator(z.repeat(len(config.classes), 1), classes)
    return images
