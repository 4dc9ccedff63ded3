"""What people type after options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from velatura.client import Box, Direction, Offset, Reference, Style, Subtract
from velatura.client.cli import arguments
from velatura.client.cli.arguments import BadArgument


def test_edits_in_order(tmp_path: Path) -> None:
    other = tmp_path / "other.png"
    other.write_bytes(b"x")
    steps = arguments.edits(
        ["smile=1.5", "glasses", "sad=-2"], ["8:12=0.5,1"], [f"{other}:0.25", str(other)], "2:6"
    )
    assert steps == [
        Direction("smile", 1.5, (2, 6)),
        Direction("glasses", 1.0, (2, 6)),
        Direction("sad", -2.0, (2, 6)),
        Offset((8, 12), [0.5, 1.0]),
        Reference(image=other, layers=(2, 6), strength=0.25),
        Reference(image=other, layers=(2, 6), strength=1.0),
    ]


def test_regions(tmp_path: Path) -> None:
    mask = tmp_path / "m.png"
    mask.write_bytes(b"x")
    region = arguments.region("mouth, eyes,-glasses", [mask], ["1,2,3,4"], 5, 6, True)
    assert region is not None
    assert region.parts == ("mouth", "eyes", Subtract("glasses"), mask, Box(1, 2, 3, 4))
    assert (region.grow_px, region.feather_px, region.invert) == (5, 6, True)
    assert arguments.region(None, [], [], 0, 0, False) is None


def test_styles_tell_presets_from_pictures(tmp_path: Path) -> None:
    picture = tmp_path / "a.jpg"
    picture.write_bytes(b"x")
    odd = tmp_path / "b:2.jpg"  # the colon is the name's
    odd.write_bytes(b"x")
    assert arguments.styles(["candy", "mosaic:0.5", str(picture), f"{picture}:3", str(odd)]) == [
        Style("candy"),
        Style("mosaic", 0.5),
        Style(picture),
        Style(picture, 3.0),
        Style(odd),
    ]


def test_seeds() -> None:
    assert arguments.seeds(["1..4"]) == [1, 2, 3, 4]
    assert arguments.seeds(["7,9..10", "3"]) == [7, 9, 10, 3]
    assert len(arguments.seeds(["0..255"])) == 256


@pytest.mark.parametrize(
    ("read", "says"),
    [
        (lambda: arguments.edits(["smile=big"], [], [], None), "--edit: 'big' is not a number"),
        (lambda: arguments.edits(["smile=nan"], [], [], None), "--edit: 'nan' is not finite"),
        (lambda: arguments.edits(["=1"], [], [], None), "--edit: '=1': write NAME=STRENGTH"),
        (lambda: arguments.edits(["smile="], [], [], None), "write NAME=STRENGTH"),
        (lambda: arguments.edits([], ["8:12"], [], None), "--offset: '8:12': write START:END="),
        (lambda: arguments.edits([], ["12:8=1"], [], None), "--offset: '12:8'"),
        (lambda: arguments.edits([], [], ["/no.png"], None), "--reference: there is no file"),
        (lambda: arguments.edits(["a"], [], [], "3"), "--layers: '3': write START:END"),
        (lambda: arguments.region("", [], [], 0, 0, False), "--region: is empty"),
        (lambda: arguments.region(None, [], [], 3, 0, False), "need a region"),
        (lambda: arguments.region(None, [Path("/no")], [], 0, 0, False), "--mask: there is no"),
        (lambda: arguments.region(None, [], ["1,2,3"], 0, 0, False), "write x,y,width,height"),
        (lambda: arguments.region(None, [], ["1,2,0,4"], 0, 0, False), "--box: '1,2,0,4' is 0×4"),
        (lambda: arguments.styles([]), "--style: give at least one"),
        (lambda: arguments.styles(["candy:0"]), "--style: 'candy:0': the weight"),
        (lambda: arguments.styles(["none.jpg"]), "--style: there is no file none.jpg"),
        (lambda: arguments.seeds(["8..1"]), "--seed: '8..1'"),
        (lambda: arguments.seeds(["x"]), "--seed: 'x' is not a whole number"),
        (lambda: arguments.seeds(["0..256"]), "at most 256"),
        (lambda: arguments.seeds(["0..200", "0..200"]), "at most 256"),
        (lambda: arguments.seeds(["0..99999999999999"]), "at most 256"),
    ],
)
def test_mistakes_name_the_option(read: Callable[[], object], says: str) -> None:
    with pytest.raises(BadArgument) as caught:
        read()
    assert says in str(caught.value)
