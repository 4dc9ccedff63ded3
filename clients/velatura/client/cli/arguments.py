"""Reads what people type after options: `smile=1.0`, `8:12=0.5`, `10,20,300,200`, `1..8`.

Every function raises `BadArgument` naming the option, what was typed and how it is written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from velatura.client.edits import Direction, Edit, Layers, Offset, Reference, Style
from velatura.client.regions import Box, Part, Region, Subtract

_MOST_SEEDS = 256


class BadArgument(Exception):  # noqa: N818  as click names its own
    """A value on the command line that cannot be used."""

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")


def edits(
    named: Sequence[str], offsets: Sequence[str], references: Sequence[str], layers: str | None
) -> list[Edit]:
    """Directions, then offsets, then references, each group in the order typed."""
    span = parse_layers(layers, "--layers") if layers else None
    steps: list[Edit] = []
    for text in named:
        name, equals, value = text.partition("=")
        if not name or (equals and not value):
            raise BadArgument("--edit", f"{text!r}: write NAME=STRENGTH, such as smile=1.0")
        strength = _number(value, "--edit", f"{name}=1.0") if equals else 1.0
        steps.append(Direction(name, strength, span))
    for text in offsets:
        start_end, _, values = text.partition("=")
        if not values:
            raise BadArgument("--offset", f"{text!r}: write START:END=NUMBER, such as 8:12=0.5")
        numbers = [_number(v, "--offset", "8:12=0.5") for v in values.split(",")]
        steps.append(Offset(parse_layers(start_end, "--offset"), numbers))
    for text in references:
        path, strength = _path_and_number(text, "--reference")
        steps.append(Reference(image=path, layers=span, strength=strength))
    return steps


def region(
    classes: str | None,
    masks: Sequence[Path],
    boxes: Sequence[str],
    grow: int,
    feather: int,
    invert: bool,
) -> Region | None:
    """The union of everything named; None for the whole image."""
    parts: list[Part | Subtract] = []
    for word in (classes or "").split(","):
        name = word.strip()
        if name.startswith("-"):
            parts.append(Subtract(name[1:].strip()))
        elif name:
            parts.append(name)
    if classes is not None and not parts:
        raise BadArgument("--region", "is empty; write class names, such as mouth,eyes")
    parts += [existing(mask, "--mask") for mask in masks]
    parts += [box(text, "--box") for text in boxes]
    if not parts:
        if grow or feather or invert:
            raise BadArgument(
                "--grow, --feather, --invert", "need a region; add --region, --mask or --box"
            )
        return None
    return Region(*parts, grow_px=grow, feather_px=feather, invert=invert)


def box(text: str, option: str) -> Box:
    """`x,y,width,height` in whole pixels."""
    fields = text.split(",")
    if len(fields) != 4:
        raise BadArgument(option, f"{text!r}: write x,y,width,height, such as 10,20,300,200")
    x, y, width, height = (_whole(field, option, "10,20,300,200") for field in fields)
    if width < 1 or height < 1:
        raise BadArgument(option, f"{text!r} is {width}×{height}; a box is at least 1×1 pixels")
    return Box(x, y, width, height)


def styles(texts: Sequence[str], known: Sequence[str] = ()) -> list[Style]:
    """Presets and pictures, each with `:weight` or without.

    A text is a picture when a file of this name exists, or when its ending says so. `known` are
    names that stay presets even when a file is called the same.
    """
    if not texts:
        raise BadArgument("--style", "give at least one; `velatura models` lists the presets")
    found = []
    for text in texts:
        source, weight = _path_and_number(text, "--style", check=False)
        if weight <= 0:
            raise BadArgument("--style", f"{text!r}: the weight must be above 0")
        name = str(source)
        if name not in known and (source.is_file() or source.suffix.lower() in PICTURE_SUFFIXES):
            found.append(Style(existing(source, "--style"), weight))
        else:
            found.append(Style(name, weight))
    return found


def seeds(texts: Sequence[str]) -> list[int]:
    """`7`, `1,5,9`, or `1..8` (both ends included); several are joined in order."""
    found: list[int] = []
    for text in texts:
        for piece in text.split(","):
            first, dots, last = piece.partition("..")
            start = _whole(first, "--seed", "1..8")
            end = _whole(last, "--seed", "1..8") if dots else start
            if start < 0 or end < start:
                raise BadArgument("--seed", f"{piece!r}: write FIRST..LAST, such as 1..8")
            if end - start >= _MOST_SEEDS or len(found) + end - start >= _MOST_SEEDS:
                raise BadArgument("--seed", f"{text!r}: at most {_MOST_SEEDS} seeds in one call")
            found += range(start, end + 1)
    return found


def parse_layers(text: str, option: str) -> Layers:
    """`start:end`, half open, as in Python's slices."""
    start, colon, end = text.partition(":")
    if not colon:
        raise BadArgument(option, f"{text!r}: write START:END, such as 8:12 for layers 8 to 11")
    span = (_whole(start, option, "8:12"), _whole(end, option, "8:12"))
    if not 0 <= span[0] < span[1] <= 64:
        raise BadArgument(option, f"{text!r}: START is below END, and both are 0..64")
    return span


def existing(path: Path, option: str) -> Path:
    """The path, when there is such a file."""
    if not path.is_file():
        raise BadArgument(option, f"there is no file {path}")
    return path


PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


def _path_and_number(text: str, option: str, check: bool = True) -> tuple[Path, float]:
    """`path[:number]`; a colon that belongs to the path itself (`C:\\…`) is left alone."""
    head, colon, tail = text.rpartition(":")
    if colon and head and not Path(text).exists():
        try:
            number = float(tail)
        except ValueError:
            pass
        else:
            if not math.isfinite(number):
                raise BadArgument(option, f"{text!r}: {tail} is not a finite number")
            return (existing(Path(head), option) if check else Path(head)), number
    return (existing(Path(text), option) if check else Path(text)), 1.0


def _number(text: str, option: str, example: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise BadArgument(option, f"{text!r} is not a number; write {example}") from None
    if not math.isfinite(value):
        raise BadArgument(option, f"{text!r} is not finite; write {example}")
    return value


def _whole(text: str, option: str, example: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise BadArgument(option, f"{text!r} is not a whole number; write {example}") from None
