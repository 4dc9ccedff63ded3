"""Image → label map of semantic regions, at the image's own size."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from velatura.server.imaging.frames import Frame, blend_logits, cover_with_frames, crop_to_network
from velatura.server.imaging.picture import F32, U8, Picture
from velatura.server.pipelines.job import Job
from velatura.v1.bundle_pb2 import ModelEntry

OVERLAY_OPACITY = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """Label map uint8 [H, W]; pixels by class, int64 [classes]; the classes painted over, where
    asked for."""

    labels: U8
    pixels: tuple[int, ...]
    overlay: Picture | None = None


async def segment(
    job: Job, picture: Picture, segmenter: ModelEntry, *, overlay: bool
) -> Segmentation:
    """Segment a whole picture, count its classes, and paint them over it where asked to."""
    frames = cover_with_frames(picture.width, picture.height)
    runs = segmenter_runs(job, picture, segmenter)
    with job.promise([[(segmenter.name, len(frames))] if runs else []]):
        labels = await label_map(job, picture, segmenter)
    counts = np.bincount(labels.ravel(), minlength=len(segmenter.labels))
    pixels = tuple(int(count) for count in counts)
    if not overlay:
        return Segmentation(labels, pixels)
    painted = await job.compute("overlay", paint, picture.rgb, labels, len(segmenter.labels))
    return Segmentation(labels, pixels, picture.with_rgb(painted))


async def label_map(job: Job, picture: Picture, segmenter: ModelEntry) -> U8:
    """Class index of every pixel, uint8 [H, W].

    The network sees squares: an image that is none is covered by overlapping ones, run as one
    batch, and their logits are blended before the classes are chosen. The map is shared with others
    who ask for the same, and not to be changed.
    """
    if not picture.digest:
        return await _segmented(job, picture, segmenter)
    return await job.recall(
        job.caches.labels,
        "segmenter",
        segmenter.name,
        (picture.digest,),
        lambda: _segmented(job, picture, segmenter),
    )


def segmenter_runs(job: Job, picture: Picture, segmenter: ModelEntry) -> bool:
    """Whether the picture's label map is still to be found."""
    key = (picture.digest,)
    return not picture.digest or job.costs_a_run(job.caches.labels, segmenter.name, key)


async def _segmented(job: Job, picture: Picture, segmenter: ModelEntry) -> U8:
    frames = cover_with_frames(picture.width, picture.height)
    size = segmenter.inputs[0].shape[-1]
    views = await job.compute("prepare", _views, picture, frames, size)  # [N, 3, size, size]
    outputs = await job.infer("segmenter", segmenter.name, {"image": views})
    logits = outputs["logits"]  # [N, classes, size, size]
    placed = list(zip(frames, logits, strict=True))
    labels = await job.compute("labels", blend_logits, placed, picture.width, picture.height)
    labels.flags.writeable = False
    return labels


def _views(picture: Picture, frames: Sequence[Frame], size: int) -> F32:
    seen = picture.opaque()
    return np.concatenate([crop_to_network(seen, frame, size, -1.0, 1.0) for frame in frames])


def paint(rgb: U8, labels: U8, classes: int) -> U8:
    """Uint8 [H, W, 3]: the image under a veil of each class's own colour; none on class 0."""
    palette = np.array(
        [colorsys.hsv_to_rgb(index / max(classes - 1, 1), 0.85, 1.0) for index in range(classes)]
    )
    colours = np.rint(palette * 255).astype(np.uint8)[labels]  # [H, W, 3]
    mixed = cv2.addWeighted(rgb, 1 - OVERLAY_OPACITY, colours, OVERLAY_OPACITY, 0)
    return np.where(labels[..., None] == 0, rgb, mixed)
