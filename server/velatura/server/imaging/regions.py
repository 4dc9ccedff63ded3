"""Regions: which pixels an operation may touch, and how strongly.

A region is the union of parts (classes, masks, boxes, clicks; subtracted parts take away from what
came before), then grown or shrunk, then inverted, then feathered inward. Everything costs
O(pixels), whatever the distances. The image's border is not an edge: nothing shrinks or fades
there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from velatura.server.imaging.errors import Reason, RegionError
from velatura.server.imaging.picture import F32, U8

Bool: TypeAlias = NDArray[np.bool_]

MASK_THRESHOLD = 128


@dataclass(frozen=True, slots=True)
class ClassPart:
    """Every pixel that the segmenter gives this class."""

    class_name: str
    subtract: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class MaskPart:
    """The pixels whose sample is 128 or more; `samples` is uint8 [H, W], of the image's size."""

    samples: U8
    subtract: bool = False


@dataclass(frozen=True, slots=True)
class BoxPart:
    """A rectangle in pixels; what lies beyond the image is cut off."""

    x: int
    y: int
    width: int
    height: int
    subtract: bool = False


@dataclass(frozen=True, slots=True)
class ClickPart:
    """The connected area of the class that the segmenter sees at this pixel."""

    x: int
    y: int
    subtract: bool = False


RegionPart: TypeAlias = ClassPart | MaskPart | BoxPart | ClickPart


@dataclass(frozen=True, slots=True)
class RegionSpec:
    """What a caller asked for: parts in order, pixels to grow (negative: shrink) and to feather."""

    parts: tuple[RegionPart, ...]
    grow_px: int = 0
    feather_px: int = 0
    invert: bool = False


@dataclass(frozen=True, eq=False)
class Mask:
    """A region of one image.

    `inside` is bool [H, W]; `alpha` is float32 [H, W] in [0, 1], and 0 exactly where not inside.
    """

    inside: Bool
    alpha: F32

    @cached_property
    def share(self) -> float:
        """Share of the image that is inside, 0..1."""
        return float(np.count_nonzero(self.inside) / self.inside.size)

    @cached_property
    def bounds(self) -> tuple[int, int, int, int]:
        """Smallest rectangle around the region: x0, y0, x1, y1, ends exclusive; 0s when empty."""
        return _bounds(self.inside)


def whole_image(width: int, height: int) -> Mask:
    """The mask that allows everything."""
    return Mask(np.ones((height, width), np.bool_), np.ones((height, width), np.float32))


def needs_segmenter(spec: RegionSpec | None) -> bool:
    """Whether `resolve` needs a label map for this region."""
    return spec is not None and any(isinstance(part, ClassPart | ClickPart) for part in spec.parts)


def check(
    spec: RegionSpec | None,
    width: int,
    height: int,
    class_names: Sequence[str],
    field: str = "region",
) -> None:
    """Refuse a region that does not fit the image or the classes, before any network runs.

    Raises `RegionError`: UNKNOWN_CLASS, WRONG_SIZE, OUTSIDE_IMAGE, OUT_OF_RANGE or EMPTY.
    """
    if spec is None:
        return
    if not spec.parts:
        raise RegionError(
            Reason.EMPTY,
            f"{field}.parts",
            "the region has no parts.",
            "Name a class, mask, box or click, or leave the region out for the whole image.",
        )
    if spec.feather_px < 0:
        raise RegionError(
            Reason.OUT_OF_RANGE,
            f"{field}.feather_px",
            f"{spec.feather_px} pixels of feathering are not possible.",
            "Use 0 or more.",
            limit=0,
            actual=spec.feather_px,
        )
    for index, part in enumerate(spec.parts):
        _check_part(part, width, height, class_names, f"{field}.parts[{index}]")


def resolve(
    spec: RegionSpec | None,
    width: int,
    height: int,
    labels: U8 | None = None,
    class_names: Sequence[str] = (),
    field: str = "region",
) -> Mask:
    """The mask of a region in an image of `width` × `height` pixels; all of it for None.

    `labels` is the segmenter's uint8 [H, W], needed where `needs_segmenter` says so. An empty
    result is allowed. Raises what `check` raises, and `ValueError` for labels that are missing or
    of another size.
    """
    if spec is None:
        return whole_image(width, height)
    check(spec, width, height, class_names, field)
    if needs_segmenter(spec) and (labels is None or labels.shape != (height, width)):
        raise ValueError(f"classes and clicks need labels of shape {(height, width)}")
    inside = np.zeros((height, width), np.bool_)
    for part in spec.parts:
        _apply(part, inside, labels, class_names)
    if spec.grow_px > 0:
        inside = _grow(inside, spec.grow_px)
    elif spec.grow_px < 0:
        inside = ~_grow(~inside, -spec.grow_px)
    if spec.invert:
        inside = ~inside
    return Mask(inside, feather(inside, spec.feather_px))


def feather(inside: Bool, feather_px: int) -> F32:
    """Alpha, float32 [H, W]: 0 outside, rising from the edge to 1 over `feather_px` inside."""
    alpha = inside.astype(np.float32)
    if feather_px <= 0 or inside.all() or not inside.any():
        return alpha
    # One pixel more than the region is enough: a straight line to any pixel outside crosses that
    # rim.
    rows, columns = _around(inside, 1)
    distance = _distance_to_zero(inside[rows, columns])  # ≥ 1 inside, in pixels between centres
    np.subtract(distance, 0.5, out=distance)  # from the edge, which runs between two centres
    np.divide(distance, np.float32(feather_px), out=distance)
    t = np.clip(distance, 0.0, 1.0, out=distance)
    alpha[rows, columns] = t * t * (3.0 - 2.0 * t)  # > 0 wherever inside
    return alpha


def _check_part(
    part: RegionPart, width: int, height: int, class_names: Sequence[str], field: str
) -> None:
    match part:
        case ClassPart(class_name=name) if name not in class_names:
            known = ", ".join(class_names) or "none, there is no segmenter"
            raise RegionError(
                Reason.UNKNOWN_CLASS,
                f"{field}.class_name",
                f"there is no class {name!r}.",
                f"Known classes: {known}.",
                limit=known,
                actual=name,
            )
        case MaskPart(samples=samples) if samples.shape != (height, width):
            actual = "×".join(map(str, samples.shape[1::-1]))
            raise RegionError(
                Reason.WRONG_SIZE,
                f"{field}.mask",
                f"the mask is {actual} pixels and the image {width}×{height}.",
                "Send a mask of the image's own size.",
                limit=f"{width}×{height}",
                actual=actual,
            )
        case BoxPart(width=w, height=h) if w < 1 or h < 1:
            raise RegionError(
                Reason.OUT_OF_RANGE,
                f"{field}.box",
                f"a box of {w}×{h} pixels covers nothing.",
                "Give a width and a height of at least 1.",
                limit=1,
                actual=min(w, h),
            )
        case BoxPart(x=x, y=y, width=w, height=h) if (
            x >= width or y >= height or x + w <= 0 or y + h <= 0
        ):
            raise RegionError(
                Reason.OUTSIDE_IMAGE,
                f"{field}.box",
                f"the box x={x}, y={y}, {w}×{h} lies wholly outside the image of {width}×{height}.",
                "Count pixels from the image's top left corner.",
                limit=f"{width}×{height}",
                actual=f"{x},{y},{w},{h}",
            )
        case ClickPart(x=x, y=y) if not (0 <= x < width and 0 <= y < height):
            raise RegionError(
                Reason.OUTSIDE_IMAGE,
                f"{field}.click",
                f"the point x={x}, y={y} lies outside the image of {width}×{height}.",
                f"Use x 0..{width - 1} and y 0..{height - 1}.",
                limit=f"{width}×{height}",
                actual=f"{x},{y}",
            )


def _apply(part: RegionPart, inside: Bool, labels: U8 | None, class_names: Sequence[str]) -> None:
    """Add a checked part to `inside`, or take it away, in place."""
    match part:
        case BoxPart(x=x, y=y, width=w, height=h):
            inside[max(y, 0) : y + h, max(x, 0) : x + w] = not part.subtract
        case MaskPart(samples=samples):
            inside[samples >= MASK_THRESHOLD] = not part.subtract
        case ClassPart(class_name=name):
            assert labels is not None  # noqa: S101 - resolve has looked
            inside[labels == list(class_names).index(name)] = not part.subtract
        case ClickPart(x=x, y=y):
            assert labels is not None  # noqa: S101 - resolve has looked
            inside[_connected(labels, x, y)] = not part.subtract


def _connected(labels: U8, x: int, y: int) -> Bool:
    """Bool [H, W]: the pixels of one class that (x, y) reaches through its eight neighbours."""
    height, width = labels.shape
    found = np.zeros((height + 2, width + 2), np.uint8)  # OpenCV wants a rim
    flags = 8 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | 1 << 8
    # It leaves the labels as they are, and asks for an array that it might write to all the same.
    cv2.floodFill(labels.copy(), found, (x, y), 0, 0, 0, flags)
    return found[1:-1, 1:-1].view(np.bool_)


def _grow(inside: Bool, radius: int) -> Bool:
    """Widen by a disc of `radius` pixels: everything at most that far from a pixel inside."""
    if inside.all() or not inside.any():
        return inside
    grown = np.zeros_like(inside)
    rows, columns = _around(inside, radius)
    # Distances are roots of whole numbers, the next one after r is r + 1/(2r): above the tolerance
    # to 2048.
    grown[rows, columns] = _distance_to_zero(~inside[rows, columns]) <= radius + 2e-4
    return grown


def _distance_to_zero(values: Bool) -> F32:
    """Float32 [H, W]: exact Euclidean distance from each True to the nearest False; 0 at False."""
    distances = cv2.distanceTransform(values.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distances, np.float32)


def _around(inside: Bool, margin: int) -> tuple[slice, slice]:
    """Rows and columns of the bounding rectangle, wider by `margin` where the image allows it."""
    height, width = inside.shape
    x0, y0, x1, y1 = _bounds(inside)
    return (
        slice(max(y0 - margin, 0), min(y1 + margin, height)),
        slice(max(x0 - margin, 0), min(x1 + margin, width)),
    )


def _bounds(inside: Bool) -> tuple[int, int, int, int]:
    rows = np.flatnonzero(inside.any(axis=1))
    if rows.size == 0:
        return 0, 0, 0, 0
    columns = np.flatnonzero(inside.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
