"""Runs one style network on an image of any size: padding, tiling, and one tone across the tiles.

The networks normalise each channel over the whole image that they see (instance normalisation), so
a tile on its own comes out brighter or darker than its neighbours. Two things are done about it:
tiles overlap widely and fade into each other, and the joined image takes its large-scale tone from
a pass over the whole image scaled down. Known limit: strokes are the size that the network paints
at a tile's scale, so an image above `TILE` shows finer strokes, relative to its size, than the same
image scaled down.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from velatura.server.imaging.frames import to_planes, to_samples
from velatura.server.imaging.picture import F32, U8
from velatura.server.imaging.resampling import axis_weights, strips
from velatura.server.imaging.tiling import Tile, join, plan
from velatura.server.pipelines.job import Job
from velatura.server.pipelines.workers import every
from velatura.v1.bundle_pb2 import ModelEntry

TILE = 768
OVERLAP = 128
SMALLEST = 16
STRIDE = 4  # the embedded networks halve twice and double twice; others say what they need
TILES_AT_ONCE = 4
TONE_CELL = 96  # pixels of the image to a cell of the tone grid


async def paint_whole(
    job: Job, model: ModelEntry, rgb: U8, conditions: Mapping[str, NDArray[Any]]
) -> tuple[U8, int]:
    """The network's picture of an image uint8 [H, W, 3], same shape, and the number of tiles it
    took.

    `conditions` are the network's inputs besides the image, for one item: [1, …].
    """
    height, width = rgb.shape[:2]
    stride = stride_of(model)
    if max(height, width) <= TILE:
        (painted,) = await _run(job, model, [rgb], conditions)
        return painted, 1
    small = await job.compute("prepare", _scaled_down, rgb)
    tiles = plan(height, width, TILE // stride * stride, OVERLAP, stride)
    groups = [tiles[i : i + TILES_AT_ONCE] for i in range(0, len(tiles), TILES_AT_ONCE)]
    (overview,) = await _run(job, model, [small], conditions)
    pieces: list[U8] = []
    for pair in range(0, len(groups), 2):  # two groups in flight: one runs while one is prepared
        done = await every(
            [_run(job, model, _cut(rgb, group), conditions) for group in groups[pair : pair + 2]]
        )
        pieces.extend(piece for group in done for piece in group)
    return await job.compute("join", _join, tiles, pieces, overview, height, width), len(tiles)


def stride_of(model: ModelEntry) -> int:
    """What heights and widths of its pictures must be multiples of."""
    stated = next((spec.multiple_of for spec in model.inputs if spec.name == "image"), 1)
    return math.lcm(STRIDE, max(1, stated))


def _cut(rgb: U8, tiles: Sequence[Tile]) -> list[U8]:
    return [tile.cut(rgb) for tile in tiles]


async def _run(
    job: Job, model: ModelEntry, images: Sequence[U8], conditions: Mapping[str, NDArray[Any]]
) -> list[U8]:
    """Images of one size through the network in one call."""
    height, width = images[0].shape[:2]
    batch = await job.compute("prepare", _to_network, images, stride_of(model))  # [N, 3, H', W']
    repeated = {name: np.repeat(value, len(images), axis=0) for name, value in conditions.items()}
    outputs = await job.infer("style", model.name, {"image": batch, **repeated})
    return await job.compute("finish", _from_network, outputs["image_out"], height, width)


def _to_network(images: Sequence[U8], stride: int) -> F32:
    """Images uint8 [H, W, 3] as float32 [N, 3, H', W'] in [0, 1], padded by reflection."""
    height, width = images[0].shape[:2]
    below, right = padding(height, stride), padding(width, stride)
    padded = images
    if below or right:
        # BORDER_REFLECT repeats the border itself, so a single row or column will do.
        padded = [
            np.asarray(cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REFLECT), np.uint8)
            for image in images
        ]
    return np.concatenate([to_planes(image, 0.0, 1.0) for image in padded])


def padding(extent: int, stride: int = STRIDE) -> int:
    """Pixels to add, so that the networks take the extent and give the same one back."""
    return -(-max(SMALLEST, extent) // stride) * stride - extent


def _from_network(batch: F32, height: int, width: int) -> list[U8]:
    return [to_samples(image[:, :height, :width], 0.0, 1.0) for image in batch]


def _scaled_down(rgb: U8) -> U8:
    scale = TILE / max(rgb.shape[:2])
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def _join(tiles: Sequence[Tile], pieces: Sequence[U8], overview: U8, height: int, width: int) -> U8:
    """Join the tiles, uint8 [H, W, 3], then move the large-scale tone to the overview's."""
    joined = join(tiles, pieces)
    columns, rows_of_grid = (max(1, -(-extent // TONE_CELL)) for extent in (width, height))
    grid = (columns, rows_of_grid)
    drift = np.subtract(  # float32 [grid rows, grid columns, 3]
        cv2.resize(overview, grid, interpolation=cv2.INTER_AREA),
        cv2.resize(joined, grid, interpolation=cv2.INTER_AREA),
        dtype=np.float32,
    )
    across = axis_weights(columns, width, cv2.INTER_LINEAR)  # [W, grid columns]
    down = axis_weights(rows_of_grid, height, cv2.INTER_LINEAR)  # [H, grid rows]
    wide = np.einsum("wc,rck->rwk", across, drift)  # [grid rows, W, 3]
    for rows in strips(0, height, width * 3):
        correction = np.tensordot(down[rows], wide, axes=1)  # [h, W, 3]
        joined[rows] = np.rint(np.clip(joined[rows] + correction, 0, 255))
    return joined
