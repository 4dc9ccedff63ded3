"""Tiling: large images as overlapping tiles of one size, and back without seams.

Windows are differences of neighbouring ramps in whole 4096ths: along an axis they add up to 1
exactly, and so do the products of two axes, because every term fits a float32.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from velatura.server.imaging.picture import F32, U8
from velatura.server.imaging.resampling import strips

_STEPS = np.float32(4096)
Samples = TypeVar("Samples", U8, F32)
AnyArray = TypeVar("AnyArray", bound=NDArray[np.generic])


@dataclass(frozen=True, slots=True)
class Tile:
    """A rectangle of the image, in pixels."""

    x: int
    y: int
    width: int
    height: int

    def cut(self, image: AnyArray) -> AnyArray:
        """This tile's part of [H, W, …], a view."""
        return image[self.y : self.y + self.height, self.x : self.x + self.width]  # type: ignore[return-value]


def plan(height: int, width: int, tile: int, overlap: int, multiple: int = 1) -> list[Tile]:
    """Cover an image by tiles of one size, row by row; neighbours share `overlap` or more.

    A side that fits into `tile` is not cut. Where one is cut, the tiles are as small as the overlap
    allows, in whole multiples of `multiple`, and never larger than `tile`. Raises `ValueError` for
    sizes below 1, an overlap that is not below `tile`, a tile that is no multiple.
    """
    if min(height, width, tile, multiple) < 1:
        raise ValueError(f"sizes of at least 1 are needed: {height}, {width}, {tile}, {multiple}")
    if not 0 <= overlap < tile:
        raise ValueError(f"an overlap of {overlap} does not fit into tiles of {tile}")
    if tile % multiple:
        raise ValueError(f"tiles of {tile} are not a multiple of {multiple}")
    tops, tile_height = _cut(height, tile, overlap, multiple)
    lefts, tile_width = _cut(width, tile, overlap, multiple)
    return [Tile(x, y, tile_width, tile_height) for y in tops for x in lefts]


def join(tiles: Sequence[Tile], images: Sequence[Samples]) -> Samples:
    """Put the tiles of a `plan` together again, cross-faded where they overlap.

    `images` are all uint8 or all float32 [tile.height, tile.width, C], in the order of `tiles`; the
    result is of the same type, [H, W, C]. Tiles that agree where they overlap come back as they
    were (float32 to within rounding). Raises `ValueError` for images that don't fit their tiles.
    """
    if not tiles or len(tiles) != len(images):
        raise ValueError(f"{len(tiles)} tiles and {len(images)} images don't make a picture")
    for tile, image in zip(tiles, images, strict=True):
        if image.ndim != 3 or image.shape[:2] != (tile.height, tile.width):
            raise ValueError(f"an image of shape {image.shape} does not fit {tile}")
    kind, channels = images[0].dtype, images[0].shape[2]
    if any(image.dtype != kind or image.shape[2] != channels for image in images):
        raise ValueError("the images differ in type or channels")
    width = max(tile.x + tile.width for tile in tiles)
    height = max(tile.y + tile.height for tile in tiles)
    across = windows(sorted({tile.x for tile in tiles}), tiles[0].width)
    down = windows(sorted({tile.y for tile in tiles}), tiles[0].height)
    result = np.empty((height, width, channels), kind)
    for rows in strips(0, height, width * channels):
        total = np.zeros((rows.stop - rows.start, width, channels), np.float32)
        for tile, image in zip(tiles, images, strict=True):
            first, last = max(rows.start, tile.y), min(rows.stop, tile.y + tile.height)
            if first < last:
                here = slice(first - tile.y, last - tile.y)
                window = down[tile.y][here, None] * across[tile.x]  # [h, w]
                into = total[first - rows.start : last - rows.start, tile.x : tile.x + tile.width]
                into += image[here] * window[..., None]
        result[rows] = np.rint(total) if kind == np.uint8 else total
    return result


def windows(starts: Sequence[int], size: int) -> dict[int, F32]:
    """Weights of tiles along one axis, float32 [size] by start; at any pixel they sum to 1.

    `starts` rise; neighbours must touch or overlap. Each window rises over what it shares with the
    tile before and falls over what it shares with the next.
    """
    length = starts[-1] + size
    rises = [np.ones(length, np.float32)]
    for before, start in itertools.pairwise(starts):
        rises.append(_rise(length, start, before + size))
    rises.append(np.zeros(length, np.float32))
    # Ramps are ordered, so no difference is negative, and all but the first and the last cancel in
    # the sum.
    return {
        start: (rises[index] - rises[index + 1])[start : start + size]
        for index, start in enumerate(starts)
    }


def _rise(length: int, start: int, end: int) -> F32:
    """Float32 [length] in 4096ths: 0 before `start`, smoothly to 1 at `end`."""
    centres = np.arange(length, dtype=np.float64) + 0.5
    t = np.clip((centres - start) / max(end - start, 1), 0, 1)
    if end == start:  # tiles that touch without overlap
        t = (centres > start).astype(np.float64)
    return np.rint(t * t * (3 - 2 * t) * _STEPS).astype(np.float32) / _STEPS


def _cut(length: int, tile: int, overlap: int, multiple: int) -> tuple[list[int], int]:
    """Starts and size of the pieces along one axis."""
    if length <= tile:
        return [0], length
    count = math.ceil((length - overlap) / (tile - overlap))
    size = math.ceil((length + (count - 1) * overlap) / count / multiple) * multiple
    size = min(size, tile)
    starts = [index * (length - size) // (count - 1) for index in range(count)]
    return starts, size
