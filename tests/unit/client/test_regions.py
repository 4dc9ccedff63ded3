"""Regions, as people write them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from velatura.client import Box, Click, InvalidArgument, Region, Subtract
from velatura.client.regions import box_to_proto, to_proto
from velatura.v1 import region_pb2


def parts(region: Any) -> list[region_pb2.RegionPart]:
    proto = to_proto(region)
    assert proto is not None
    return list(proto.parts)


MOUTH = region_pb2.RegionPart(class_name="mouth")
EYES = region_pb2.RegionPart(class_name="eyes")
BOX = region_pb2.RegionPart(box=region_pb2.Box(x=1, y=2, width=30, height=40))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("mouth", [MOUTH]),
        (["mouth", "eyes"], [MOUTH, EYES]),
        (("mouth", "eyes"), [MOUTH, EYES]),
        ((1, 2, 30, 40), [BOX]),
        ([1, 2, 30, 40], [BOX]),
        (Box(1, 2, 30, 40), [BOX]),
        (["mouth", (1, 2, 30, 40)], [MOUTH, BOX]),
        (Click(3, 4), [region_pb2.RegionPart(click=region_pb2.Point(x=3, y=4))]),
        (
            ["mouth", Subtract("eyes")],
            [MOUTH, region_pb2.RegionPart(class_name="eyes", subtract=True)],
        ),
    ],
)
def test_parts(given: Any, expected: list[region_pb2.RegionPart]) -> None:
    assert parts(given) == expected


def test_none_is_the_whole_image() -> None:
    assert to_proto(None) is None


def test_region_carries_grow_feather_and_invert() -> None:
    assert to_proto(Region("mouth", grow_px=-3, feather_px=7, invert=True)) == region_pb2.Region(
        parts=[MOUTH], grow_px=-3, feather_px=7, invert=True
    )


def test_masks_come_as_pictures_paths_and_bytes(tmp_path: Path) -> None:
    mask = Image.new("L", (4, 3), 0)
    mask.putpixel((2, 1), 255)
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    path = tmp_path / "mask.png"
    path.write_bytes(buffer.getvalue())
    for given in (mask, path, buffer.getvalue()):
        (part,) = parts(given)
        assert Image.open(io.BytesIO(part.mask.encoded)).tobytes() == mask.tobytes()


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ([], "region.parts"),
        (Region("mouth", grow_px=513), "region.grow_px"),
        (Region("mouth", feather_px=-1), "region.feather_px"),
        (["mouth", ""], "region.parts[1].class_name"),
        (Box(0, 0, 0, 5), "region.parts[0].box"),
        ((1, 2, 3), "region.parts[0]"),
        ((1.5, 2, 3, 4), "region.parts[0]"),
        ((True, 2, 3, 4), "region.parts[0]"),
        (Click(-1, 0), "region.parts[0].click"),
        (object(), "region.parts[0]"),
    ],
)
def test_mistakes_are_named_by_field(given: Any, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        to_proto(given)
    assert caught.value.violations[0].field == field


def test_a_frame_is_a_box_or_four_numbers() -> None:
    assert box_to_proto((1, 2, 30, 40), "frame") == BOX.box
    with pytest.raises(InvalidArgument, match=r"frame.*\(x, y, width, height\)"):
        box_to_proto((1, 2, 30), "frame")
