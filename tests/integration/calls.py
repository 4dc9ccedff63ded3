"""Requests in many copies, each with a picture of its own, and their answers as arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from velatura.client import Client, Offset, Region

from ..running import picture
from .arrays import Samples, array_of
from .conftest import Names

SIDE = 128


@dataclass(frozen=True)
class Operation:
    """`send(client, n)` makes the n-th request; `networks` run with so many items a request."""

    name: str
    networks: dict[str, int]
    send: Callable[[Client, int], Samples]

    def __str__(self) -> str:
        return self.name


def operations(names: Names) -> dict[str, Operation]:
    """The operations by name; each lists all networks that it runs."""
    role = names.by_role
    every = [
        Operation("edit", {names.encoder: 1, names.synthesis: 2}, lambda c, n: edit(c, n, names)),
        Operation("encode", {names.encoder: 1, names.synthesis: 1}, encode),
        Operation("segment", {role["segmenter"]: 1}, segment),
        Operation("stylize-preset", {role["preset_style"]: 1}, lambda c, n: preset(c, n, names)),
        Operation(
            "stylize-picture",
            {role["style_predictor"]: 1, role["style_transformer"]: 1},
            stylize_picture,
        ),
        Operation("generate", {role["mapping"]: 1, names.synthesis: 1}, generate),
    ]
    return {each.name: each for each in every}


def edit(client: Client, n: int, names: Names) -> Samples:
    """A strong edit of the n-th picture in a region that is the n-th picture's own."""
    region = Region((n % 16, n % 8, 100, 110), feather_px=4)
    edits = [Offset((0, names.num_ws), 0.2 + 0.01 * n)]
    return array_of(client.edit_image(picture(SIDE, SIDE, n), edits, region=region).image)


def encode(client: Client, n: int) -> Samples:
    """What the generator makes of the n-th picture's latents."""
    image = client.encode(picture(SIDE, SIDE, n), with_reconstruction=True).image
    assert image is not None
    return array_of(image)


def segment(client: Client, n: int) -> Samples:
    """The n-th picture's label map."""
    return array_of(client.segment(picture(SIDE, SIDE, n)).image)


def preset(client: Client, n: int, names: Names) -> Samples:
    """The n-th picture in a mix of two presets of its own."""
    first, second = (names.styles[(n + step) % len(names.styles)] for step in (0, 7))
    return array_of(client.stylize(picture(SIDE, SIDE, n), {first: 1.0, second: 0.5}).image)


def stylize_picture(client: Client, n: int) -> Samples:
    """The n-th picture in the style of another."""
    style = picture(200, 150, 500 + n)
    return array_of(client.stylize(picture(SIDE, SIDE, n), style).image)


def generate(client: Client, n: int) -> Samples:
    """The sample of the n-th seed."""
    (sample,) = client.generate(7000 + n, truncation_psi=1.0)
    return array_of(sample.image)


def same(operation: str, one: Samples, other: Samples) -> bool:
    """Whether two answers are the same picture: at most 1/255 apart, sample by sample.

    A label map holds classes and not brightness, so there no step is small; where two classes are
    level to the last bit of a float, one pixel in a thousand may fall to either side.
    """
    if one.shape != other.shape:
        return False
    if operation == "segment":
        return bool(np.mean(one != other) <= 0.001)
    return bool(np.abs(one - other).max() <= 1)
