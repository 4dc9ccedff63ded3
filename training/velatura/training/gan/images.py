"""What adversarial training learns from: a folder of images, or avatars drawn as they are needed.

Every source hands out a batch from a generator of random numbers, so that a step's images depend on
its number and the seed alone and a resumed run sees what an unbroken one would have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from velatura.training.avatars.compose import HELD_OUT_SEED, compose_images, sample_avatar
from velatura.training.avatars.layers import LayerSet, render_layers

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
_LARGEST_FILE = 100_000_000  # pixels
_LARGEST_SET = 4 << 30  # bytes in memory
_CHUNK = 64  # avatars composed at once


class ImageSource(Protocol):
    """Hands out training images; `classes` is empty where they carry no labels."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    def draw(self, batch: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Images float32 [N, 3, R, R] in [-1, 1] and one-hot classes float32 [N, K], if any."""
        ...


@dataclass(frozen=True)
class ImageSet:
    """Images uint8 [N, 3, R, R] in memory; labels int64 [N] index `classes`, both or neither.

    `mirror` turns every other image left to right.
    """

    images: Tensor
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    mirror: bool = False

    def __len__(self) -> int:
        return self.images.shape[0]

    def draw(self, batch: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        index = torch.randint(len(self), (batch,), generator=rng)
        images = self.images[index].float() / 127.5 - 1  # [N, 3, R, R]
        if self.mirror:
            mirrored = torch.rand(batch, generator=rng) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        if self.labels is None:
            return images, None
        return images, F.one_hot(self.labels[index], len(self.classes)).float()


@dataclass(frozen=True)
class AvatarImages:
    """Avatars of the training seeds, a million different ones, composed on demand."""

    layers: LayerSet
    classes: tuple[str, ...] = ()

    def draw(self, batch: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        seeds = torch.randint(HELD_OUT_SEED, (batch,), generator=rng).tolist()
        avatars = [sample_avatar(seed) for seed in seeds]
        return compose_images(avatars, self.layers).float() / 127.5 - 1, None


def avatar_images(resolution: int, count: int = 0) -> ImageSource:
    """The first `count` avatars as a fixed set, or all training avatars where `count` is 0."""
    if not 0 <= count < HELD_OUT_SEED:
        raise ValueError(f"count: {count}; give 0 for all avatars, or less than {HELD_OUT_SEED}")
    _check_size(count, resolution)
    layers = render_layers(resolution)
    if count == 0:
        return AvatarImages(layers)
    chunks = [
        compose_images([sample_avatar(s) for s in range(start, min(start + _CHUNK, count))], layers)
        for start in range(0, count, _CHUNK)
    ]
    return ImageSet(torch.cat(chunks))


def read_images(
    folder: Path, resolution: int, *, labelled: bool = False, mirror: bool = True
) -> ImageSet:
    """Every PNG, JPEG and WebP file under `folder`, at any depth.

    Each is turned as its EXIF data say, cropped to its central square and resized (Lanczos).
    `labelled`: the first folder below `folder` names the class. Raises ValueError that names the
    file at fault.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; name one with images, or `avatars`")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
    if len(paths) < 2:
        raise ValueError(f"{folder}: {len(paths)} images; two or more PNG, JPEG or WebP are needed")
    _check_size(len(paths), resolution)
    classes, labels = _labels(folder, paths) if labelled else ((), None)
    pixels = np.empty((len(paths), resolution, resolution, 3), np.uint8)
    for index, path in enumerate(paths):
        pixels[index] = _read_square(path, resolution)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()  # [N, 3, R, R]
    return ImageSet(images, labels, classes, mirror)


def first_images(source: ImageSource, count: int) -> Tensor:
    """Images to show beside samples: float32 [count, 3, R, R] in [-1, 1]."""
    images, _ = source.draw(count, torch.Generator().manual_seed(0))
    return images


def _check_size(count: int, resolution: int) -> None:
    size = count * 3 * resolution**2
    if size > _LARGEST_SET:
        raise ValueError(
            f"{count} images at {resolution} px take {size >> 20} MiB of memory; the limit is "
            f"{_LARGEST_SET >> 20} MiB: choose a lower resolution or fewer images"
        )


def _labels(folder: Path, paths: list[Path]) -> tuple[tuple[str, ...], Tensor]:
    names = list(_class_names(folder, paths))
    classes = tuple(sorted(set(names)))
    return classes, torch.tensor([classes.index(name) for name in names])


def _class_names(folder: Path, paths: list[Path]) -> Iterator[str]:
    for path in paths:
        first, *below = path.relative_to(folder).parts
        if not below:
            raise ValueError(f"{path}: has no class; put it into a folder that names one")
        yield first


def _read_square(path: Path, resolution: int) -> npt.NDArray[np.uint8]:
    """RGB [R, R, 3]."""
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > _LARGEST_FILE:
                raise ValueError(
                    f"{opened.width} × {opened.height} pixels; the limit is {_LARGEST_FILE} pixels"
                )
            image = _flattened(ImageOps.exif_transpose(opened))
    # Pillow's readers answer damaged files with any of these.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: cannot be read as an image: {error}") from error
    side = min(image.size)
    if side * 2 < resolution:
        raise ValueError(
            f"{path}: {image.width} × {image.height} pixels; at least {resolution // 2} along each "
            f"side are needed for {resolution} px: remove it or choose a lower resolution"
        )
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    square = image.resize((resolution, resolution), Image.Resampling.LANCZOS, box, reducing_gap=3)
    return np.asarray(square)


def _flattened(image: Image.Image) -> Image.Image:
    """RGB; see-through parts over white."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")
