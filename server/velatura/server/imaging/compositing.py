"""Painting a change back into the original, inside a mask and nowhere else.

Where a mask's alpha is 0 the result has the original's bytes: the change is multiplied by 0 before
it is added, and adding 0 rounds to the sample itself. Work goes in strips of rows inside the mask's
rectangle, so that memory beyond the result stays at a few mebibytes for any image.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from velatura.server.imaging.frames import Frame
from velatura.server.imaging.picture import F32, U8
from velatura.server.imaging.regions import Mask
from velatura.server.imaging.resampling import axis_weights, strips, support

SEAM_SHARE = 16  # a frame that ends inside the image fades over a sixteenth of its side


@dataclass(frozen=True, slots=True)
class ChangeFigures:
    """Largest difference outside the region and mean inside, in samples 0..255; share inside."""

    max_difference_outside: int
    mean_difference_inside: float
    region_share: float


def add_change(
    original: U8,
    change: F32,
    frame: Frame,
    mask: Mask,
    seam_px: int | None = None,
    gain: F32 | None = None,
) -> U8:
    """Add a network's change to the original, under the mask; uint8 [H, W, 3].

    `original` is uint8 [H, W, 3]; `change` is float32 [s, s, 3] in samples (edited minus
    reconstructed, times 127.5 for images in [-1, 1]), and is upsampled to the frame by a cubic
    filter that is kept within each channel's own range. With `gain`, float32 [s, s, 3] in [-1, 1],
    the change is that plus gain times the original's own samples (see `detail`). Where the frame
    ends inside the image the change fades out over `seam_px` pixels within it (by default a
    sixteenth of its side), so that no edge shows. Raises `ValueError` for shapes that don't fit and
    for a change that is not finite.
    """
    _check_shapes(original, mask)
    if change.ndim != 3 or change.shape[0] != change.shape[1] or change.shape[2] != 3:
        raise ValueError(f"a change of shape [s, s, 3] is needed, not {change.shape}")
    if gain is not None and gain.shape != change.shape:
        raise ValueError(f"the gain is {gain.shape} and the change {change.shape}")
    if not np.isfinite(change).all() or (gain is not None and not np.isfinite(gain).all()):
        raise ValueError("the change holds values that are not finite")
    result = original.copy()
    x0, y0, x1, y1 = _overlap(original, frame, mask)
    if x0 >= x1 or y0 >= y1:
        return result

    columns = slice(x0 - frame.x, x1 - frame.x)
    down = axis_weights(change.shape[0], frame.size, cv2.INTER_CUBIC)  # [size, s]
    changes = _Enlarged(change, down, columns)
    gains = None if gain is None else _Enlarged(gain, down, columns, (-1, 1))
    fade_x, fade_y = _seam(original, frame, seam_px)

    for rows in strips(y0, y1, (x1 - x0) * 3):
        alpha = mask.alpha[rows, x0:x1]  # [h, w]
        if not alpha.any():
            continue
        inside = slice(rows.start - frame.y, rows.stop - frame.y)
        strip = changes.strip(inside)  # [h, w·3]
        if gains is not None:
            slope = gains.strip(inside)  # [h, w·3]
            slope *= original[rows, x0:x1].reshape(slope.shape)
            strip += slope
        if fade_x is not None or fade_y is not None:
            alpha = alpha * _outer(fade_y, fade_x, rows, columns, frame)
        _add(result, original, strip.reshape(*alpha.shape, 3), alpha, rows, slice(x0, x1))
    return result


def blend(original: U8, replaced: U8, mask: Mask) -> U8:
    """Lay `replaced` over `original`, both uint8 [H, W, 3], under the mask's alpha.

    Bytes are the original's where alpha is 0 and the replacement's where it is 1.
    """
    _check_shapes(original, mask)
    if replaced.shape != original.shape:
        raise ValueError(f"the replacement is {replaced.shape} and the original {original.shape}")
    result = original.copy()
    x0, y0, x1, y1 = mask.bounds
    columns = slice(x0, x1)
    for rows in strips(y0, y1, (x1 - x0) * 3):
        alpha = mask.alpha[rows, columns]  # [h, w]
        old, new = original[rows, columns], replaced[rows, columns]
        difference = cv2.subtract(new, old, dtype=cv2.CV_32F)  # [h, w, 3]
        _add(result, original, np.asarray(difference, np.float32), alpha, rows, columns)
    return result


def measure(original: U8, result: U8, mask: Mask) -> ChangeFigures:
    """Compare uint8 [H, W, 3] before and after; a mean over nothing is 0."""
    _check_shapes(original, mask)
    if result.shape != original.shape:
        raise ValueError(f"the result is {result.shape} and the original {original.shape}")
    inside = mask.inside.view(np.uint8)
    outside = (~mask.inside).view(np.uint8)
    count = int(np.count_nonzero(mask.inside)) * 3
    total = cv2.norm(original, result, cv2.NORM_L1, inside)
    return ChangeFigures(
        max_difference_outside=int(cv2.norm(original, result, cv2.NORM_INF, outside)),
        mean_difference_inside=total / count if count else 0.0,
        region_share=mask.share,
    )


class _Enlarged:
    """Float32 [s, s, 3] at the size of its frame, in strips, between limits.

    `weights` [size, s] are those of `axis_weights`, `columns` the frame's columns that are wanted.
    Without `limits` each channel stays within its own range: a cubic filter overshoots beside
    steps, which would ring as a halo.
    """

    def __init__(
        self,
        values: F32,
        weights: F32,
        columns: slice,
        limits: tuple[float, float] | None = None,
    ) -> None:
        width = columns.stop - columns.start
        self._weights = weights
        self._same_size = weights.shape[0] == weights.shape[1]
        if self._same_size:
            wide = values[:, columns]  # [s, w, 3]
        else:
            wide = np.einsum("ws,rsc->rwc", weights[columns], values, optimize=True)
        self._wide = np.ascontiguousarray(wide, np.float32).reshape(len(values), -1)  # [s, w·3]
        flat = values.reshape(len(values), -1)  # [s, s·3]: rows reduce many times as fast as pixels
        lowest = flat.min(axis=0).reshape(-1, 3).min(axis=0)  # [3]
        highest = flat.max(axis=0).reshape(-1, 3).max(axis=0)
        self._limits = limits or (np.tile(lowest, width), np.tile(highest, width))  # [w·3]

    def strip(self, rows: slice) -> F32:
        """Rows of the frame, float32 [h, w·3], the caller's own."""
        if self._same_size:
            return np.clip(self._wide[rows], *self._limits)
        weights = self._weights[rows]  # [h, s]
        used = support(weights)
        enlarged: F32 = weights[:, used] @ self._wide[used]
        return np.clip(enlarged, *self._limits, out=enlarged)


def _check_shapes(original: U8, mask: Mask) -> None:
    if original.ndim != 3 or original.shape[2] != 3 or original.dtype != np.uint8:
        raise ValueError(f"uint8 [H, W, 3] is needed, not {original.dtype} {original.shape}")
    if mask.alpha.shape != original.shape[:2]:
        raise ValueError(f"the mask is {mask.alpha.shape} and the image {original.shape[:2]}")


def _overlap(original: U8, frame: Frame, mask: Mask) -> tuple[int, int, int, int]:
    """The rectangle x0, y0, x1, y1 shared by the image, the frame and the mask."""
    height, width = original.shape[:2]
    x0, y0, x1, y1 = mask.bounds
    return (
        max(x0, frame.x, 0),
        max(y0, frame.y, 0),
        min(x1, frame.x + frame.size, width),
        min(y1, frame.y + frame.size, height),
    )


def _add(result: U8, original: U8, change: F32, alpha: F32, rows: slice, columns: slice) -> None:
    """Write original + alpha × change, rounded and saturated; uses up `change` [h, w, 3]."""
    if alpha.min() < 1:
        spread = cv2.cvtColor(np.ascontiguousarray(alpha), cv2.COLOR_GRAY2RGB)  # [h, w, 3]
        np.multiply(change, spread, out=change)
    summed = cv2.add(original[rows, columns], change, dtype=cv2.CV_8U)
    result[rows, columns] = summed.reshape(change.shape)


def _seam(original: U8, frame: Frame, seam_px: int | None) -> tuple[F32 | None, F32 | None]:
    """Fades along x and y, float32 [size], towards edges inside the image; None without any."""
    height, width = original.shape[:2]
    pixels = frame.size // SEAM_SHARE if seam_px is None else seam_px
    return (
        _fade(frame.size, pixels, frame.x > 0, frame.x + frame.size < width),
        _fade(frame.size, pixels, frame.y > 0, frame.y + frame.size < height),
    )


def _fade(size: int, pixels: int, at_start: bool, at_end: bool) -> F32 | None:
    if pixels <= 0 or not (at_start or at_end):
        return None
    t = np.clip((np.arange(size, dtype=np.float32) + 0.5) / np.float32(pixels), 0, 1)
    rise = (t * t * (3 - 2 * t)).astype(np.float32)
    ones = np.ones(size, np.float32)
    return (rise if at_start else ones) * (rise[::-1] if at_end else ones)


def _outer(
    fade_y: F32 | None, fade_x: F32 | None, rows: slice, columns: slice, frame: Frame
) -> F32:
    """The fades of a strip, float32 that broadcasts to [h, w].

    `rows` count in the image and `columns` in the frame.
    """
    factor = np.ones((1, 1), np.float32)
    if fade_y is not None:
        factor = factor * fade_y[rows.start - frame.y : rows.stop - frame.y, None]
    if fade_x is not None:
        factor = factor * fade_x[None, columns]
    return factor
