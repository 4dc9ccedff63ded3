"""Regions once more, from their description alone: plain loops and sums over numpy arrays.

Nothing here comes from the server, so that a mistake in its regions cannot agree with itself. Where
the server uses distance transforms and flood fills of OpenCV, this shifts discs and walks fronts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isqrt

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from velatura.client import Box, Click, Region, Subtract

from .arrays import Bools

Labels = NDArray[np.uint8]


def inside_of(
    region: Region | None,
    size: tuple[int, int],
    labels: Callable[[], Labels],
    classes: Sequence[str],
) -> Bools:
    """Bool [H, W]: the pixels that the region allows to change, in an image of (width, height).

    `labels` gives the segmenter's map uint8 [H, W]; it is called only for classes and clicks.
    """
    width, height = size
    if region is None:
        return np.ones((height, width), np.bool_)
    inside = np.zeros((height, width), np.bool_)
    for part in region.parts:
        taken = isinstance(part, Subtract)
        shape = _covered(part.part if isinstance(part, Subtract) else part, size, labels, classes)
        inside = inside & ~shape if taken else inside | shape
    if region.grow_px > 0:
        inside = widened(inside, region.grow_px)
    elif region.grow_px < 0:
        inside = ~widened(~inside, -region.grow_px)
    return ~inside if region.invert else inside


def _covered(
    part: object, size: tuple[int, int], labels: Callable[[], Labels], classes: Sequence[str]
) -> Bools:
    width, height = size
    if isinstance(part, str):
        return labels() == list(classes).index(part)
    if isinstance(part, Click):
        return connected(labels(), part.x, part.y)
    if isinstance(part, Image.Image):
        return np.asarray(part.convert("L")) >= 128
    assert isinstance(part, Box)
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    tall = (rows >= part.y) & (rows < part.y + part.height)  # [H, 1]
    wide = (columns >= part.x) & (columns < part.x + part.width)  # [1, W]
    return tall & wide


def widened(inside: Bools, radius: int) -> Bools:
    """Every pixel with one that is inside at most `radius` away, measured between centres."""
    height, width = inside.shape
    # counts[y, x] is how many of the first x pixels of row y are inside, [H, W + 1].
    counts = np.zeros((height, width + 1), np.int32)
    np.cumsum(inside, axis=1, out=counts[:, 1:])
    columns = np.arange(width)
    result = np.zeros_like(inside)
    for down in range(min(radius, height - 1) + 1):
        half = isqrt(radius * radius - down * down)
        ends = np.minimum(columns + half + 1, width)
        starts = np.maximum(columns - half, 0)
        wide = counts[:, ends] > counts[:, starts]  # [H, W]: some pixel of the row is in reach
        result[down:] |= wide[: height - down]
        result[: height - down] |= wide[down:]
    return result


def connected(labels: Labels, x: int, y: int) -> Bools:
    """The pixels of one class that (x, y) reaches in steps to any of eight neighbours."""
    height, width = labels.shape
    free = np.zeros((height + 2, width + 2), np.bool_)  # a rim of walls
    free[1:-1, 1:-1] = labels == labels[y, x]
    stride = width + 2
    steps = np.array([dy * stride + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
    unseen = free.ravel().copy()
    front = np.array([(y + 1) * stride + x + 1])
    unseen[front] = False
    while front.size:
        reached = np.unique(front[:, None] + steps[None, :])
        front = reached[unseen[reached]]
        unseen[front] = False
    return (free & ~unseen.reshape(free.shape))[1:-1, 1:-1]
