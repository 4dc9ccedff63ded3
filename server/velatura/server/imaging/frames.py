"""Frames: the squares of an image that fixed-size networks see, and the way back from logits.

A frame may overhang an image that is far longer than it is high; the missing rows repeat the
border.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from velatura.server.imaging.errors import ImageError, Reason
from velatura.server.imaging.picture import F32, U8
from velatura.server.imaging.resampling import axis_weights, strips, support

FRAME_OVERLAP = 0.25  # of a frame's side, at least
MOST_FRAMES = 12  # each is a pass of the network; longer pictures get larger frames


@dataclass(frozen=True, slots=True)
class Frame:
    """A square: left and top edge and side, in pixels of the image."""

    x: int
    y: int
    size: int


def central_frame(width: int, height: int) -> Frame:
    """The largest central square."""
    size = min(width, height)
    return Frame((width - size) // 2, (height - size) // 2, size)


def frame_of_box(
    box: tuple[int, int, int, int], width: int, height: int, field: str = "frame"
) -> Frame:
    """The square around a box such as a detected face, inside the image.

    `box` is x, y, width, height in pixels of an image of `width` × `height`; the rest is cut off.
    The square is as large as its longer side, or as the image's shorter one, and keeps its centre
    where the image allows it.
    Raises `ImageError` for a box without pixels, or wholly outside the image.
    """
    x, y, box_width, box_height = box
    if box_width < 1 or box_height < 1:
        raise ImageError(
            Reason.OUT_OF_RANGE,
            field,
            f"a frame of {box_width}×{box_height} pixels shows nothing.",
            "Give a width and a height of at least 1.",
            limit=1,
            actual=min(box_width, box_height),
        )
    if x >= width or y >= height or x + box_width <= 0 or y + box_height <= 0:
        raise ImageError(
            Reason.OUTSIDE_IMAGE,
            field,
            f"the frame x={x}, y={y}, {box_width}×{box_height} lies wholly outside the image of "
            f"{width}×{height}.",
            "Count pixels from the image's top left corner.",
            limit=f"{width}×{height}",
            actual=f"{x},{y},{box_width},{box_height}",
        )
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + box_width, width), min(y + box_height, height)
    size = min(max(right - left, bottom - top), width, height)
    return Frame(
        min(max((left + right - size) // 2, 0), width - size),
        min(max((top + bottom - size) // 2, 0), height - size),
        size,
    )


def cover_with_frames(width: int, height: int) -> list[Frame]:
    """Overlapping squares along the long side that together show every pixel.

    At most `MOST_FRAMES`: beyond an aspect ratio of about 9 they grow, and overhang the short side.
    """
    short, long = min(width, height), max(width, height)
    count = math.ceil((long - short) / (short * (1 - FRAME_OVERLAP))) + 1
    size = short
    if count > MOST_FRAMES:
        count = MOST_FRAMES
        size = min(long, math.ceil(long / (1 + (count - 1) * (1 - FRAME_OVERLAP))))
    across = (short - size) // 2  # ≤ 0
    starts = sorted({round(step * (long - size) / max(count - 1, 1)) for step in range(count)})
    if width >= height:
        return [Frame(start, across, size) for start in starts]
    return [Frame(across, start, size) for start in starts]


def to_planes(rgb: U8, lo: float, hi: float) -> F32:
    """Samples 0..255, uint8 [H, W, 3], as a network's float32 [1, 3, H, W] in [lo, hi]."""
    scale = np.float32((hi - lo) / 255)
    planes = rgb.transpose(2, 0, 1)[None].astype(np.float32, order="C")  # [1, 3, H, W]
    planes *= scale
    planes += np.float32(lo)
    return planes


def to_samples(planes: F32, lo: float, hi: float) -> U8:
    """A network's float32 [3, H, W] in [lo, hi] as uint8 [H, W, 3]; what lies beyond is clipped."""
    scaled = planes - np.float32(lo)  # [3, H, W]
    scaled *= np.float32(255 / (hi - lo))
    np.rint(np.clip(scaled, 0, 255, out=scaled), out=scaled)
    # OpenCV interleaves planes several times as fast as numpy copies a transposed view.
    return np.asarray(cv2.merge(list(scaled.astype(np.uint8))), np.uint8)  # [H, W, 3]


def to_pixels(planes: F32) -> F32:
    """A network's float32 [3, H, W] in [-1, 1] as samples 0..255, float32 [H, W, 3], not rounded;
    what lies beyond is clipped."""
    pixels = np.asarray(cv2.merge(list(planes)), np.float32)  # [H, W, 3]
    np.clip(pixels, -1, 1, out=pixels)
    pixels *= np.float32(127.5)
    pixels += np.float32(127.5)
    return pixels


def crop_to_network(rgb: U8, frame: Frame, size: int, lo: float, hi: float) -> F32:
    """`crop_to_size`, as float32 [1, 3, size, size] in [lo, hi]."""
    return to_planes(crop_to_size(rgb, frame, size), lo, hi)


def crop_to_size(rgb: U8, frame: Frame, size: int) -> U8:
    """The frame's part of uint8 [H, W, 3] at a network's size, uint8 [size, size, 3].

    Shrinking averages areas, so that nothing aliases; enlarging is cubic.
    """
    crop = _cut(rgb, frame)  # [frame.size, frame.size, 3]
    if frame.size == size:
        return crop
    kind = cv2.INTER_AREA if frame.size > size else cv2.INTER_CUBIC
    resized = cv2.resize(crop, (size, size), interpolation=kind)  # [size, size, 3]
    return np.asarray(resized, np.uint8)


def blend_logits(parts: Sequence[tuple[Frame, F32]], width: int, height: int) -> U8:
    """Uint8 label map [H, W] from float32 logits [C, S, S] of one or more frames.

    Logits are upsampled bilinearly and added with weights that fall off from each frame's centre
    along overlaps; the greatest wins, the first of equals. Pixels that no frame shows get label 0.
    """
    if not parts or len({logits.shape[0] for _, logits in parts}) != 1:
        raise ValueError("logits of one or more frames, all with the same classes, are needed")
    classes = parts[0][1].shape[0]
    spread = [_spread(frame, logits, width, len(parts) > 1) for frame, logits in parts]
    labels = np.empty((height, width), np.uint8)
    for rows in strips(0, height, classes * width):
        total = np.zeros((classes, rows.stop - rows.start, width), np.float32)
        for part in spread:
            _add_strip(total, rows, part)
        labels[rows] = _argmax(total)
    return labels


def _cut(rgb: U8, frame: Frame) -> U8:
    """Uint8 [size, size, 3]; a view, or a copy with borders repeated where the frame overhangs."""
    height, width = rgb.shape[:2]
    left, top = max(-frame.x, 0), max(-frame.y, 0)
    right = max(frame.x + frame.size - width, 0)
    bottom = max(frame.y + frame.size - height, 0)
    inside = rgb[
        max(frame.y, 0) : frame.y + frame.size - bottom,
        max(frame.x, 0) : frame.x + frame.size - right,
    ]
    if not (left or top or right or bottom):
        return inside
    padded = cv2.copyMakeBorder(inside, top, bottom, left, right, cv2.BORDER_REPLICATE)
    return np.asarray(padded, np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class _Spread:
    """One frame's logits, widened along x to float32 [C, S, columns]; y is to be done."""

    frame: Frame
    columns: slice  # of the image
    wide: F32
    down: F32  # [frame.size, S]


def _spread(frame: Frame, logits: F32, width: int, centre_weighted: bool) -> _Spread:
    across = axis_weights(logits.shape[2], frame.size, cv2.INTER_LINEAR)  # [size, S]
    down = axis_weights(logits.shape[1], frame.size, cv2.INTER_LINEAR)  # [size, S]
    if centre_weighted:
        fall = _centre_weights(frame.size)[:, None]  # [size, 1]
        across, down = across * fall, down * fall
    first, last = max(frame.x, 0), min(frame.x + frame.size, width)
    visible = across[first - frame.x : last - frame.x]  # [columns, S]
    return _Spread(frame, slice(first, last), np.matmul(logits, visible.T), down)


def _add_strip(total: F32, rows: slice, part: _Spread) -> None:
    """Add a frame's logits to `total`, float32 [C, rows, W] of a strip of the image, in place."""
    top = part.frame.y
    first, last = max(rows.start, top), min(rows.stop, top + part.frame.size)
    if first >= last:
        return
    down = part.down[first - top : last - top]  # [rows, S]
    used = support(down)
    strip = np.matmul(down[:, used], part.wide[:, used])  # [C, rows, columns]
    total[:, first - rows.start : last - rows.start, part.columns] += strip


def _centre_weights(size: int) -> F32:
    """Float32 [size]: 1 at the centre, falling in a straight line to just above 0 at both ends."""
    centres = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    return np.asarray(2 * np.minimum(centres, 1 - centres), np.float32)


def _argmax(values: F32) -> U8:
    """Uint8 [H, W]: index of the greatest along the first axis of [C, H, W]; beats numpy's own."""
    best = values[0].copy()
    labels = np.zeros(best.shape, np.uint8)
    for index in range(1, len(values)):
        labels[values[index] > best] = index
        np.maximum(best, values[index], out=best)
    return labels
