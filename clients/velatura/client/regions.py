"""Regions: where an operation may change the image.

Everything that reads naturally is taken: a class name, several of them, a box as four numbers, a
PIL mask, or a `Region` that joins pieces and grows, feathers or inverts the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from PIL import Image as PilImage

from velatura.client.errors import invalid
from velatura.client.images import mask_to_proto
from velatura.v1 import region_pb2


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, from the image's top left corner; what lies beyond the image is cut
    off."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Click:
    """The connected area of the class that the segmenter sees at this pixel."""

    x: int
    y: int


@dataclass(frozen=True)
class Subtract:
    """Takes a piece away from what the pieces before it have covered."""

    part: Part


# A str is a class name ("mouth"); four integers are a box; images, paths and bytes are masks.
Part: TypeAlias = "str | Box | Click | PilImage.Image | Path | bytes | tuple[int, int, int, int]"


class Region:
    """The union of `parts`, in order, then grown, then inverted, then feathered.

    Args:
        parts: Class names, `Box`, `Click`, masks (PIL image, `Path` or bytes; samples of 128 and
            more are inside; the image's own size), `(x, y, width, height)`, or `Subtract` of one of
            them.
        grow_px: Widen (positive) or shrink (negative) the union, -512..512.
        feather_px: Fade the effect in over this many pixels, inward from the edge, 0..512.
        invert: Take everything but the region.
    """

    def __init__(
        self,
        *parts: Part | Subtract,
        grow_px: int = 0,
        feather_px: int = 0,
        invert: bool = False,
    ) -> None:
        self.parts = parts
        self.grow_px = grow_px
        self.feather_px = feather_px
        self.invert = invert

    def __repr__(self) -> str:
        return (
            f"Region({', '.join(map(repr, self.parts))}, grow_px={self.grow_px}, "
            f"feather_px={self.feather_px}, invert={self.invert})"
        )


RegionInput: TypeAlias = "Region | Part | Subtract | Sequence[Part | Subtract]"


def to_proto(region: RegionInput | None, field: str = "region") -> region_pb2.Region | None:
    """The wire's form; None (the whole image) stays None.

    Raises:
        InvalidArgument: naming the part, when it is none of the accepted kinds.
    """
    if region is None:
        return None
    if not isinstance(region, Region):
        region = Region(*_as_parts(region))
    if not region.parts:
        raise invalid(f"{field}.parts", "empty; name at least one part, or leave the region out")
    _check_pixels(f"{field}.grow_px", region.grow_px, -512)
    _check_pixels(f"{field}.feather_px", region.feather_px, 0)
    return region_pb2.Region(
        parts=[_part(part, f"{field}.parts[{i}]") for i, part in enumerate(region.parts)],
        grow_px=region.grow_px,
        feather_px=region.feather_px,
        invert=region.invert,
    )


def box_to_proto(box: Box | Sequence[int], field: str) -> region_pb2.Box:
    """A box given as `Box` or as four integers."""
    if not isinstance(box, Box):
        if not _is_box(box):
            raise invalid(field, f"expected (x, y, width, height) in whole pixels, got {box!r}")
        box = Box(*box)
    if box.width < 1 or box.height < 1:
        raise invalid(field, f"is {box.width}×{box.height} pixels; a box is at least 1×1")
    return region_pb2.Box(x=box.x, y=box.y, width=box.width, height=box.height)


def _as_parts(region: Part | Subtract | Sequence[Part | Subtract]) -> Sequence[Part | Subtract]:
    # A string is a sequence too, and so is a box.
    if isinstance(region, (list, tuple)) and not _is_box(region):
        return region
    return [region]  # type: ignore[list-item]


def _is_box(value: object) -> bool:
    # bool is an int, but (True, …) is no box.
    return (
        isinstance(value, (tuple, list))
        and len(value) == 4
        and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
    )


def _part(part: Part | Subtract, field: str) -> region_pb2.RegionPart:
    if isinstance(part, Subtract):
        proto = _part(part.part, field)
        proto.subtract = True
        return proto
    if isinstance(part, str):
        if not part:
            raise invalid(f"{field}.class_name", "is empty; ListRegionClasses gives the names")
        return region_pb2.RegionPart(class_name=part)
    if isinstance(part, (Box, tuple, list)):
        return region_pb2.RegionPart(box=box_to_proto(part, f"{field}.box"))
    if isinstance(part, Click):
        if part.x < 0 or part.y < 0:
            raise invalid(f"{field}.click", f"({part.x}, {part.y}) lies outside the image")
        return region_pb2.RegionPart(click=region_pb2.Point(x=part.x, y=part.y))
    if isinstance(part, (PilImage.Image, Path, bytes)):
        return region_pb2.RegionPart(mask=mask_to_proto(part, f"{field}.mask"))
    raise invalid(
        field,
        f"cannot use {type(part).__name__} as a part of a region; give a class name, a Box, "
        "a Click, a mask, or four whole numbers",
    )


def _check_pixels(field: str, value: int, least: int) -> None:
    if not least <= value <= 512:
        raise invalid(field, f"must be {least}..512 pixels, got {value}")
