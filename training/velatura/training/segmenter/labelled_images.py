"""Labelled images held in memory, and how a user's own folder becomes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True)
class LabelledImages:
    """Images uint8 [N, 3, H, W] with label maps uint8 [N, H, W] that index `classes`."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return self.images.shape[0]

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images float32 [N, 3, H, W] in [-1, 1] and labels int64 [N, H, W]."""
        return self.images[indices].float() / 127.5 - 1, self.labels[indices].long()


def read_folder(folder: Path, resolution: int) -> LabelledImages:
    """`images/NAME.*`, `masks/NAME.png` (8-bit class indices) and `classes.txt`, one name a line.

    Images are resized bilinearly and masks by nearest neighbour to `resolution` squared.
    Raises ValueError that names the file at fault.
    """
    names_file = folder / "classes.txt"
    if not names_file.is_file():
        raise ValueError(f"{names_file} is missing: write one class name a line, background first")
    classes = tuple(names_file.read_text().split())
    paths = sorted(p for p in (folder / "images").glob("*") if p.suffix.lower() in _SUFFIXES)
    if not paths:
        raise ValueError(f"{folder / 'images'}: no PNG, JPEG or WebP images")
    pairs = [_read_pair(path, folder / "masks", resolution, len(classes)) for path in paths]
    return LabelledImages(
        torch.from_numpy(np.stack([image for image, _ in pairs])),
        torch.from_numpy(np.stack([mask for _, mask in pairs])),
        classes,
    )


def _read_pair(
    path: Path, masks: Path, resolution: int, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    mask_path = masks / f"{path.stem}.png"
    if not mask_path.is_file():
        raise ValueError(f"{path.name}: its mask {mask_path} is missing")
    size = (resolution, resolution)
    with Image.open(path) as image, Image.open(mask_path) as mask:
        if image.size != mask.size:
            raise ValueError(f"{mask_path}: size {mask.size} differs from its image's {image.size}")
        if mask.mode not in ("L", "P"):
            raise ValueError(f"{mask_path}: mode {mask.mode}; save class indices as 8-bit grey")
        pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))
        labels = np.asarray(mask.resize(size, Image.Resampling.NEAREST))
    if labels.max() >= classes:
        raise ValueError(
            f"{mask_path}: class index {labels.max()}, but there are {classes} classes"
        )
    return pixels.transpose(2, 0, 1), labels
