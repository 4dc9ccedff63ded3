"""A hundred operations by chance, always the same hundred: what to send, where it may act."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from velatura.client import Box, Click, Direction, Offset, Reference, Region, Style, Subtract

from ..running import picture
from .conftest import Names
from .oracle import Labels

CASES = 100
Rng = np.random.Generator

# The sizes that chance would rarely pick, by the number of the case.
EDIT_SIZES = {
    0: (64, 64), 2: (2048, 2048), 4: (1500, 1000), 6: (2048, 333), 8: (64, 1100), 10: (700, 2048),
    12: (129, 65), 14: (1023, 769),
}  # fmt: skip
STYLE_SIZES = {
    1: (64, 64),
    3: (2048, 300),
    5: (64, 903),
    7: (800, 500),
    9: (65, 67),
    11: (301, 199),
}
LARGEST_BY_CHANCE = {"edit": 640, "stylize": 224}  # style networks cost by the pixel


@dataclass(frozen=True)
class Case:
    """One operation; everything else about it follows from `number`."""

    number: int
    operation: str  # edit or stylize
    size: tuple[int, int]  # width, height

    def __str__(self) -> str:
        return f"{self.number}-{self.operation}-{self.size[0]}x{self.size[1]}"

    def rng(self, purpose: int) -> Rng:
        """Numbers of its own for each purpose, so that one draw more does not change the rest."""
        return np.random.default_rng([2026, self.number, purpose])


def case(number: int) -> Case:
    """The case of this number: odd ones below 80 are stylisations, all others edits."""
    operation = "stylize" if number % 2 and number < 80 else "edit"
    sizes = STYLE_SIZES if operation == "stylize" else EDIT_SIZES
    rng = np.random.default_rng([2026, number])
    sides = np.exp(rng.uniform(np.log(64), np.log(LARGEST_BY_CHANCE[operation]), 2))
    width, height = (int(side) for side in sides)
    return Case(number, operation, sizes.get(number, (width, height)))


def content_of(each: Case) -> Image.Image:
    """The picture to send; every fifth has transparency."""
    return picture(*each.size, seed=1000 + each.number, alpha=each.number % 5 == 4)


def edits_of(each: Case, names: Names) -> list[Any]:
    """One to three steps, of any kind."""
    rng = each.rng(1)
    return [_step(rng, names) for _ in range(rng.integers(1, 4))]


def styles_of(each: Case, names: Names) -> list[Style]:
    """One to three presets and pictures with weights."""
    rng = each.rng(2)
    styles = []
    for _ in range(rng.integers(1, 4)):
        art = picture(*(int(side) for side in rng.integers(40, 300, 2)), seed=int(rng.integers(99)))
        source = art if rng.random() < 0.5 else str(rng.choice(names.styles))
        styles.append(Style(source, float(rng.uniform(0.2, 3))))
    return styles


def frame_of(each: Case) -> Box | None:
    """For every third edit, a square that the generator is to see instead of the central one."""
    rng, (width, height) = each.rng(3), each.size
    if each.number % 3:
        return None
    side = int(rng.integers(32, min(width, height) + 1))
    x, y = (int(rng.integers(extent - side + 1)) for extent in each.size)
    return Box(x, y, side, side)


def region_of(each: Case, labels: Callable[[], Labels], names: Names) -> Region:
    """One to four pieces, united and subtracted, grown, feathered, inverted."""
    rng, short = each.rng(4), min(each.size)
    parts: list[Any] = [_part(rng, each, labels, names) for _ in range(rng.integers(1, 5))]
    parts[1:] = [Subtract(part) if rng.random() < 0.3 else part for part in parts[1:]]
    most = max(2, min(40, short // 8))
    return Region(
        *parts,
        grow_px=int(rng.integers(-most // 2, most + 1)) if rng.random() < 0.6 else 0,
        feather_px=int(rng.integers(1, most + 1)) if rng.random() < 0.5 else 0,
        invert=bool(rng.random() < 0.25),
    )


def _step(rng: Rng, names: Names) -> Any:
    start, end = sorted(int(at) for at in rng.choice(names.num_ws + 1, 2, replace=False))
    kind = rng.integers(3)
    if kind == 0:
        strength = float(rng.uniform(0.5, 2) * rng.choice([-1, 1]))
        name = str(rng.choice(names.directions))
        first, last = names.layers[name]
        # Outside its own layers a direction has no offsets, and moves nothing.
        fewer = (first, int(rng.integers(first + 1, last + 1)))
        return Direction(name, strength, fewer if rng.random() < 0.3 else None)
    if kind == 1:
        count = int(rng.choice([1, names.w_dim, (end - start) * names.w_dim]))
        return Offset((start, end), [float(value) for value in rng.normal(0, 0.6, count)])
    other = picture(*(int(side) for side in rng.integers(40, 300, 2)), seed=int(rng.integers(99)))
    return Reference(other, layers=(start, end), strength=float(rng.uniform(0.3, 1)))


def _part(rng: Rng, each: Case, labels: Callable[[], Labels], names: Names) -> Any:
    width, height = each.size
    # Walking fronts through millions of pixels would be the test's own time, so clicks stay small.
    kind = rng.choice(["class", "mask", "box"] + (["click"] if max(each.size) <= 640 else []))
    if kind == "class":
        present = np.unique(labels())
        return names.classes[int(rng.choice(present))]
    if kind == "click":
        return Click(int(rng.integers(width)), int(rng.integers(height)))
    if kind == "mask":
        return _mask(rng, width, height)
    x, y = int(rng.integers(-width // 4, width)), int(rng.integers(-height // 4, height))
    most_wide, most_high = width // 2 + max(-x, 0) + 1, height // 2 + max(-y, 0) + 1
    least_wide, least_high = max(1, 1 - x), max(1, 1 - y)  # a box wholly outside is refused
    return Box(
        x, y, int(rng.integers(least_wide, most_wide)), int(rng.integers(least_high, most_high))
    )


def _mask(rng: Rng, width: int, height: int) -> Image.Image:
    """Grey clouds, so that samples lie close to the threshold on both sides; or single pixels."""
    if rng.random() < 0.2:
        noise = rng.integers(0, 256, (height, width), dtype=np.uint8)
        return Image.fromarray(noise)
    coarse = rng.integers(
        0, 256, (int(rng.integers(2, 9)), int(rng.integers(2, 9))), dtype=np.uint8
    )
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
