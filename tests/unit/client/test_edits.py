"""Edits and styles, as people write them."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from velatura.client import Direction, InvalidArgument, Offset, Reference, Style
from velatura.client.edits import edits_to_protos, styles_to_protos
from velatura.v1 import edit_pb2, stylize_pb2


def direction(name: str, strength: float, span: tuple[int, int] | None = None) -> edit_pb2.Edit:
    layers = edit_pb2.LayerRange(start=span[0], end=span[1]) if span else None
    return edit_pb2.Edit(
        direction=edit_pb2.DirectionEdit(name=name, strength=strength, layers=layers)
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"smile": 1, "glasses": -0.5}, [direction("smile", 1), direction("glasses", -0.5)]),
        ("smile", [direction("smile", 1)]),
        (
            ["smile", Direction("sad", 2, (4, 8))],
            [direction("smile", 1), direction("sad", 2, (4, 8))],
        ),
        ({}, []),
        (
            Offset((8, 12), 0.5),
            [
                edit_pb2.Edit(
                    offset=edit_pb2.OffsetEdit(
                        layers=edit_pb2.LayerRange(start=8, end=12), values=[0.5]
                    )
                )
            ],
        ),
        (
            Reference(latent_token=b"abc", layers=(0, 4), strength=0.25),
            [
                edit_pb2.Edit(
                    reference=edit_pb2.ReferenceEdit(
                        latent_token=b"abc",
                        layers=edit_pb2.LayerRange(start=0, end=4),
                        strength=0.25,
                    )
                )
            ],
        ),
    ],
)
def test_edits(given: Any, expected: list[edit_pb2.Edit]) -> None:
    assert edits_to_protos(given, "png") == expected


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"smile": math.nan}, "edits[0].direction.strength"),
        ({"a": 1, "smile": math.inf}, "edits[1].direction.strength"),
        ({"smile": "much"}, "edits[0].direction.strength"),
        ([Direction("smile", 1, (8, 8))], "edits[0].direction.layers"),
        ([Direction("smile", 1, (0, 65))], "edits[0].direction.layers"),
        ([Offset((8, 12), [0.5, math.nan])], "edits[0].offset.values[1]"),
        ([Reference()], "edits[0].reference"),
        ([Reference(image=b"text", strength=1)], "edits[0].reference.image"),
        ([3], "edits[0]"),
    ],
)
def test_wrong_edits_are_named_by_field(given: Any, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        edits_to_protos(given, "png")
    assert caught.value.violations[0].field == field


def preset(name: str, weight: float = 1) -> stylize_pb2.StyleSource:
    return stylize_pb2.StyleSource(preset=name, weight=weight)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("candy", [preset("candy")]),
        ({"candy": 2, "mosaic": 1}, [preset("candy", 2), preset("mosaic")]),
        (["candy", ("mosaic", 0.5)], [preset("candy"), preset("mosaic", 0.5)]),
        ([Style("candy", 3)], [preset("candy", 3)]),
    ],
)
def test_presets(given: Any, expected: list[stylize_pb2.StyleSource]) -> None:
    assert styles_to_protos(given, "png") == expected


def test_pictures_as_styles(tmp_path: Path) -> None:
    picture = Image.new("RGB", (4, 4), (9, 8, 7))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    path = tmp_path / "style.png"
    path.write_bytes(buffer.getvalue())
    for given in (path, buffer.getvalue(), picture, [(path, 1.0)], {path: 1.0}):
        (style,) = styles_to_protos(given, "png")  # type: ignore[arg-type]
        assert Image.open(io.BytesIO(style.image.encoded)).getpixel((0, 0)) == (9, 8, 7)


@pytest.mark.parametrize("weight", [0, -1, math.nan])
def test_a_style_of_no_weight_is_refused(weight: float) -> None:
    with pytest.raises(InvalidArgument) as caught:
        styles_to_protos(["mosaic", ("candy", weight)], "png")
    assert caught.value.violations[0].field == "styles[1].weight"
