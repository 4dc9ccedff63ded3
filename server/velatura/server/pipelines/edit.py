"""EditImage: find the latents, move them, and paint the difference back into the caller's own
pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from velatura.server.engine.promise import Stages
from velatura.server.imaging.compositing import ChangeFigures, add_change, measure
from velatura.server.imaging.detail import carry_change
from velatura.server.imaging.frames import (
    Frame,
    central_frame,
    cover_with_frames,
    crop_to_size,
    to_pixels,
)
from velatura.server.imaging.picture import F32, U8, Picture
from velatura.server.imaging.regions import RegionSpec, needs_segmenter
from velatura.server.pipelines.encode import (
    before_and_after,
    encoder_runs,
    latents_of,
    picture_of,
    pixels_in,
    synthesise,
)
from velatura.server.pipelines.errors import InvalidRequest
from velatura.server.pipelines.job import Job
from velatura.server.pipelines.latents import ReferenceStep, Step, apply, check_steps, moves_of
from velatura.server.pipelines.region_masks import check_region, labels_for_region, mask_of
from velatura.server.pipelines.segment import segmenter_runs
from velatura.server.pipelines.workers import both
from velatura.v1.bundle_pb2 import DirectionEntry, GeneratorEntry, ModelEntry


@dataclass(frozen=True, slots=True, eq=False)
class EditOrder:
    """What to edit and how.

    At least one of `picture` and `latents` (float32 [num_ws, w_dim]) is given. `frame` is the
    square that the generator sees, the largest central one when None; `segmenter` is needed by
    regions with classes or clicks.
    """

    picture: Picture | None
    latents: F32 | None
    steps: Sequence[Step]
    generator: GeneratorEntry
    directions: Mapping[str, DirectionEntry]
    region: RegionSpec | None = None
    segmenter: ModelEntry | None = None
    frame: Frame | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Edited:
    """The edited picture, its latents float32 [num_ws, w_dim], and the change where there was a
    picture."""

    picture: Picture
    w_plus: F32
    change: ChangeFigures | None


async def edit(job: Job, order: EditOrder) -> Edited:
    """Apply the steps to a picture, or to latents alone."""
    check_steps(order.steps, order.generator, order.directions)
    if order.picture is None:
        return await _edit_latents(job, order)
    check_region(order.region, order.segmenter, order.picture)
    frame = order.frame or central_frame(order.picture.width, order.picture.height)
    with job.promise(_stages(job, order, order.picture, frame)):
        return await _edit_picture(job, order, order.picture, frame)


def _stages(job: Job, order: EditOrder, picture: Picture, frame: Frame) -> Stages:
    """The networks that the picture's edit will ask, so that it is turned away now or not at
    all."""
    first = []
    if order.latents is None and encoder_runs(job, picture, frame, order.generator):
        first.append((order.generator.encoder, 1))
    if order.segmenter is not None and needs_segmenter(order.region):
        frames = cover_with_frames(picture.width, picture.height)
        if segmenter_runs(job, picture, order.segmenter):
            first.append((order.segmenter.name, len(frames)))
    return [first, [(order.generator.synthesis, 2)]]


async def _edit_picture(job: Job, order: EditOrder, picture: Picture, frame: Frame) -> Edited:
    asked = order.steps, order.generator, order.directions
    if any(isinstance(step, ReferenceStep) for step in order.steps):  # to be encoded as well
        (w_plus, labels), moves = await both(
            _latents_and_labels(job, order, picture, frame), moves_of(job, *asked)
        )
    else:
        moves = await moves_of(job, *asked)
        w_plus, labels = await _latents_and_labels(job, order, picture, frame)
    edited = apply(moves, w_plus)  # [num_ws, w_dim]
    before, after = await before_and_after(job, w_plus, edited, order.generator)
    pixels = pixels_in(picture, order.generator)
    rgb, change = await job.compute_few(
        "composite", pixels, _composite, picture, before, after, frame, order, labels
    )
    return Edited(picture.with_rgb(rgb), edited, change)


async def _edit_latents(job: Job, order: EditOrder) -> Edited:
    """Without a picture the reconstruction stands in for it, at the generator's own size."""
    if order.latents is None:
        raise InvalidRequest.of(
            "image", "there is nothing to edit. Send an image, a latent_token or both."
        )
    moves = await moves_of(job, order.steps, order.generator, order.directions)
    edited = apply(moves, order.latents)
    pixels = pixels_in(None, order.generator)
    if order.region is None:
        (after,) = await synthesise(job, edited[None], order.generator)
        picture = await job.compute_few("composite", pixels, picture_of, after)
        return Edited(picture, edited, None)
    before, after = await before_and_after(job, order.latents, edited, order.generator)
    picture = await job.compute_few("composite", pixels, picture_of, before)
    frame = central_frame(picture.width, picture.height)
    check_region(order.region, order.segmenter, picture)
    labels = await _labels(job, order, picture)
    rgb, _ = await job.compute_few(
        "composite", pixels, _composite, picture, before, after, frame, order, labels
    )
    return Edited(picture.with_rgb(rgb), edited, None)


async def _latents_and_labels(
    job: Job, order: EditOrder, picture: Picture, frame: Frame
) -> tuple[F32, U8 | None]:
    if not needs_segmenter(order.region):
        return await _latents(job, order, picture, frame), None
    return await both(_latents(job, order, picture, frame), _labels(job, order, picture))


async def _latents(job: Job, order: EditOrder, picture: Picture, frame: Frame) -> F32:
    if order.latents is not None:
        return order.latents
    return await latents_of(job, picture, frame, order.generator)


async def _labels(job: Job, order: EditOrder, picture: Picture) -> U8 | None:
    return await labels_for_region(job, order.region, order.segmenter, picture)


def _composite(
    picture: Picture, before: F32, after: F32, frame: Frame, order: EditOrder, labels: U8 | None
) -> tuple[U8, ChangeFigures]:
    """Carry the difference of two generated images [3, R, R] over to the picture; uint8 [H, W, 3]
    and the figures."""
    mask = mask_of(order.region, order.segmenter, picture, labels)
    seen = crop_to_size(picture.opaque(), frame, order.generator.resolution)  # [R, R, 3]
    # Clipped to what is visible: what the generator overshoots must not be added.
    carried = carry_change(seen.astype(np.float32), to_pixels(before), to_pixels(after))
    rgb = add_change(picture.rgb, carried.offset, frame, mask, gain=carried.gain)
    return rgb, measure(picture.rgb, rgb, mask)
