"""Where labelled images come from: avatars of `expressions`, or a folder of a person's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from velatura.training.biggan.expressions import CLASSES, Z_DIM, ExpressionRenders

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
_LEAST_PSI = 0.3


@dataclass(frozen=True)
class Draw:
    """Images float32 [N, 3, R, R] in [-1, 1] and their classes int64 [N].

    `z` float32 [N, z_dim] are the latents that stand for these very images, where there are such.
    """

    images: Tensor
    labels: Tensor
    z: Tensor | None = None


class LabelledSource(Protocol):
    """Draws training batches; the same generator state gives the same batch."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def paired(self) -> bool:
        """Whether every draw brings its latents."""
        ...

    def draw(self, count: int, rng: torch.Generator) -> Draw: ...


class AvatarSource:
    """Avatars whose class is the expression; pairs of z and image.

    Latents are drawn at every truncation from 0.3 to 1, so that a generator knows truncated ones.
    """

    classes = CLASSES
    paired = True

    def __init__(self, resolution: int, z_dim: int) -> None:
        if z_dim < Z_DIM:
            raise ValueError(f"z_dim: {z_dim} dimensions cannot hold the {Z_DIM} of an avatar")
        self._renders = ExpressionRenders(resolution)
        self._z_dim = z_dim

    def draw(self, count: int, rng: torch.Generator) -> Draw:
        labels = torch.randint(len(CLASSES), (count,), generator=rng)
        psi = torch.empty(count, 1).uniform_(_LEAST_PSI, 1, generator=rng)
        z = torch.randn(count, self._z_dim, generator=rng) * psi  # [N, z_dim]
        return Draw(self._renders.images(z, labels), labels, z)


class FolderSource:
    """`FOLDER/CLASS/*.png|jpg|jpeg|webp`, cut to a square, resized and held in memory."""

    paired = False

    def __init__(self, folder: Path, resolution: int) -> None:
        images, labels, self.classes = read_classes(folder, resolution)
        self._images, self._labels = images, labels

    def draw(self, count: int, rng: torch.Generator) -> Draw:
        """Every class equally often, whatever its size; half of the images mirrored."""
        labels = torch.randint(len(self.classes), (count,), generator=rng)
        order = torch.rand(count, len(self._labels), generator=rng)  # [N, images]
        order = order.masked_fill(self._labels != labels[:, None], -1)
        images = self._images[order.argmax(dim=1)].float() / 127.5 - 1
        mirrored = torch.rand(count, 1, 1, 1, generator=rng) < 0.5
        return Draw(torch.where(mirrored, images.flip(3), images), labels)


def read_classes(folder: Path, resolution: int) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Images uint8 [N, 3, R, R], labels int64 [N] and the classes: the sub-folders by name.

    Raises ValueError that names the folder or file at fault.
    """
    folders = sorted(p for p in folder.glob("*") if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise ValueError(
            f"{folder}: no sub-folders; make one for each class, with its images in it"
        )
    images, labels = [], []
    for index, place in enumerate(folders):
        paths = sorted(p for p in place.iterdir() if p.suffix.lower() in _SUFFIXES)
        if not paths:
            raise ValueError(f"{place}: no PNG, JPEG or WebP images of class {place.name!r}")
        images += [_read_square(path, resolution) for path in paths]
        labels += [index] * len(paths)
    return (
        torch.from_numpy(np.stack(images)),
        torch.tensor(labels),
        tuple(place.name for place in folders),
    )


def _read_square(path: Path, resolution: int) -> np.ndarray:
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path}: not a readable image: {error}") from error
    return np.asarray(ImageOps.fit(upright, (resolution, resolution))).transpose(2, 0, 1)
