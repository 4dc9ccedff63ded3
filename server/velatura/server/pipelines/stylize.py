"""Stylize: fuse a picture's content with presets and with the styles of other pictures.

Presets go through the conditional network, pictures through predictor and transformer; a mix of
both is the two results blended by weight. Strength: for pictures the style code moves from the
content's own code to the style's (Ghiasi et al. 2017), and the first quarter of the way also fades
the network's painting in, because even with its own code the network does not return the content
exactly; for presets, which have no code for "no style", the painting is faded in all the way.
Strength 0 returns the content itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from velatura.server.imaging.colour import keep_colour
from velatura.server.imaging.compositing import ChangeFigures, blend, measure
from velatura.server.imaging.frames import central_frame, crop_to_network
from velatura.server.imaging.picture import F32, U8, Picture
from velatura.server.imaging.regions import RegionSpec
from velatura.server.imaging.resampling import strips
from velatura.server.pipelines.job import Job
from velatura.server.pipelines.region_masks import check_region, labels_for_region, mask_of
from velatura.server.pipelines.style_networks import paint_whole
from velatura.server.pipelines.workers import both, every
from velatura.v1.bundle_pb2 import ModelEntry, Role

PREDICTOR_SIZE = 256
CODE_FADE_END = 0.25


@dataclass(frozen=True, slots=True)
class PresetGroup:
    """Presets of one model: weight of each by its index there."""

    model: ModelEntry
    weights: dict[int, float]


@dataclass(frozen=True, slots=True, eq=False)
class PictureGroup:
    """Style pictures with their weights, and the two networks that take them."""

    predictor: ModelEntry
    transformer: ModelEntry
    pictures: Sequence[Picture]
    weights: Sequence[float]


@dataclass(frozen=True, slots=True, eq=False)
class StyleOrder:
    """What to stylise and how; `strength` is 0..1, `groups` is not empty."""

    content: Picture
    groups: Sequence[PresetGroup | PictureGroup]
    strength: float = 1.0
    preserve_colour: bool = False
    region: RegionSpec | None = None
    segmenter: ModelEntry | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Stylised:
    """The stylised picture, the change, and the tiles that it took (0 when nothing had to be
    painted)."""

    picture: Picture
    change: ChangeFigures
    tiles: int


async def stylise(job: Job, order: StyleOrder) -> Stylised:
    """Paint the content in the styles, inside the region."""
    check_region(order.region, order.segmenter, order.content)
    (painted, tiles), labels = await both(
        _paint(job, order), labels_for_region(job, order.region, order.segmenter, order.content)
    )
    rgb, change = await job.compute("composite", _composite, order, painted, labels)
    return Stylised(order.content.with_rgb(rgb), change, tiles)


async def _paint(job: Job, order: StyleOrder) -> tuple[U8, int]:
    """All groups' paintings mixed by their weights, uint8 [H, W, 3]."""
    if order.strength == 0:
        return order.content.rgb, 0
    content = order.content.opaque()
    done = await every(
        [_paint_group(job, group, content, order.strength) for group in order.groups]
    )
    weights = [_weight(group) for group in order.groups]
    mixed = await job.compute("mix", _mix, [painted for painted, _ in done], weights)
    return mixed, sum(tiles for _, tiles in done)


async def _paint_group(
    job: Job, group: PresetGroup | PictureGroup, content: U8, strength: float
) -> tuple[U8, int]:
    if isinstance(group, PresetGroup):
        painted, tiles = await paint_whole(job, group.model, content, _preset_conditions(group))
        share = strength
    else:
        code = await _code(job, group, content, strength)  # [1, D]
        painted, tiles = await paint_whole(job, group.transformer, content, {"style_code": code})
        share = min(1.0, strength / CODE_FADE_END)
    if share < 1:
        painted = await job.compute("mix", _mix, [painted, content], [share, 1 - share])
    return painted, tiles


def _preset_conditions(group: PresetGroup) -> dict[str, F32]:
    if group.model.role == Role.ROLE_FIXED_STYLE:
        return {}
    weights = np.zeros((1, len(group.model.labels)), np.float32)  # [1, P]
    total = sum(group.weights.values())
    for index, weight in group.weights.items():
        weights[0, index] = weight / total
    return {"style_weights": weights}


async def _code(job: Job, group: PictureGroup, content: U8, strength: float) -> F32:
    """The style code to paint with, float32 [1, D]: the pictures' mean code, pulled to the
    content's own."""
    sources = [picture.opaque() for picture in group.pictures]
    if strength < 1:
        sources.append(content)
    views = await job.compute("prepare", _predictor_views, sources)  # [K, 3, 256, 256]
    outputs = await job.infer("style_code", group.predictor.name, {"image": views})
    codes = outputs["style_code"]  # [K, D]
    weights = np.asarray(group.weights, np.float32)
    mean = weights @ codes[: len(weights)] / weights.sum()  # [D]
    if strength < 1:
        mean = strength * mean + (1 - strength) * codes[-1]
    return np.asarray(mean[None], np.float32)


def _predictor_views(sources: Sequence[U8]) -> F32:
    return np.concatenate(
        [
            crop_to_network(
                rgb, central_frame(rgb.shape[1], rgb.shape[0]), PREDICTOR_SIZE, 0.0, 1.0
            )
            for rgb in sources
        ]
    )


def _weight(group: PresetGroup | PictureGroup) -> float:
    return sum(group.weights.values() if isinstance(group, PresetGroup) else group.weights)


def _mix(images: Sequence[U8], weights: Sequence[float]) -> U8:
    """Weighted mean of images uint8 [H, W, 3]."""
    if len(images) == 1:
        return images[0]
    shares = np.asarray(weights, np.float32) / np.float32(sum(weights))
    mixed = np.empty_like(images[0])
    for rows in strips(0, mixed.shape[0], mixed.shape[1] * 3):
        parts = [image[rows] * share for image, share in zip(images, shares, strict=True)]
        mixed[rows] = np.rint(np.clip(sum(parts[1:], parts[0]), 0, 255))  # float32 [h, W, 3]
    return mixed


def _composite(order: StyleOrder, painted: U8, labels: U8 | None) -> tuple[U8, ChangeFigures]:
    original = order.content.rgb
    mask = mask_of(order.region, order.segmenter, order.content, labels)
    if order.preserve_colour and order.strength > 0:
        painted = keep_colour(painted, order.content.opaque())
    rgb = blend(original, painted, mask)
    return rgb, measure(original, rgb, mask)
