"""Nothing changes outside the region: a hundred edits and stylisations by chance, measured here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from velatura.client import Box, Client, EditResult, Region, StylizeResult

from ..running import file_of
from .arrays import Bools, array_of
from .cases import CASES, Case, case, content_of, edits_of, frame_of, region_of, styles_of
from .conftest import Names
from .oracle import Labels, inside_of


@dataclass(frozen=True)
class Outcome:
    """What a case did, by our own measure and by the server's."""

    size: tuple[int, int]
    format: str | None
    outside: int  # largest difference outside the region, alpha included
    outside_frame: int  # the same outside the square that the generator sees
    alpha: int  # largest difference of the alpha channel anywhere
    inside: float  # mean difference inside
    share: float
    reach: int  # pixels of the region that the operation can see, and so should change
    told_outside: int | None
    told_inside: float | None
    told_share: float | None


Outcomes = Callable[[int], Outcome]


@pytest.fixture(scope="module")
def outcome_of(client: Client, names: Names) -> Outcomes:
    """Runs a case once, whoever asks for it."""
    return cache(lambda number: run(case(number), client, names))


def run(each: Case, client: Client, names: Names) -> Outcome:
    """Send the case and measure."""
    content = content_of(each)
    file = file_of(content, compress_level=1)

    @cache
    def labels() -> Labels:
        return np.asarray(client.segment(file).image)

    region = region_of(each, labels, names)
    inside = inside_of(region, each.size, labels, names.classes)
    result = send(each, file, region, client, names)

    sent, got = array_of(content), array_of(result.image)  # [H, W, 3 or 4]
    assert got.shape == sent.shape
    difference = np.abs(got - sent)
    beyond = ~seen_of(each)
    return Outcome(
        size=result.image.size,
        format=result.image.format,
        outside=int(difference[~inside].max(initial=0)),
        outside_frame=int(difference[beyond].max(initial=0)),
        alpha=int(difference[..., 3:].max(initial=0)),
        inside=float(difference[inside][:, :3].mean()) if inside.any() else 0.0,
        share=float(inside.mean()),
        reach=int((inside & ~beyond).sum()),
        told_outside=result.max_difference_outside,
        told_inside=result.mean_difference_inside,
        told_share=result.region_share,
    )


def seen_of(each: Case) -> Bools:
    """Bool [H, W]: what the operation looks at; for edits the frame, or else the central square."""
    width, height = each.size
    if each.operation == "stylize":
        return np.ones((height, width), np.bool_)
    side = min(width, height)
    frame = frame_of(each) or Box((width - side) // 2, (height - side) // 2, side, side)
    seen = np.zeros((height, width), np.bool_)
    seen[frame.y : frame.y + frame.height, frame.x : frame.x + frame.width] = True
    return seen


def send(
    each: Case, content: bytes, region: Region, client: Client, names: Names
) -> EditResult | StylizeResult:
    """The request itself."""
    rng = each.rng(5)
    if each.operation == "edit":
        edits, frame = edits_of(each, names), frame_of(each)
        token = client.encode(content, frame=frame).latent_token if rng.random() < 0.2 else None
        return client.edit_image(content, edits, region=region, frame=frame, latent_token=token)
    return client.stylize(
        content,
        styles_of(each, names),
        strength=float(rng.uniform(0.2, 1)),
        preserve_color=bool(rng.random() < 0.3),
        region=region,
    )


@pytest.mark.parametrize("number", range(CASES), ids=lambda number: str(case(number)))
def test_nothing_changes_outside_the_region(outcome_of: Outcomes, number: int) -> None:
    outcome = outcome_of(number)
    assert outcome.size == case(number).size
    assert outcome.format == "PNG"
    assert outcome.outside == 0
    assert outcome.outside_frame == 0
    assert outcome.alpha == 0
    # The server saw the same region and measured the same change.
    assert outcome.told_outside == 0
    assert outcome.told_share == pytest.approx(outcome.share, rel=1e-6)
    assert outcome.told_inside == pytest.approx(outcome.inside, rel=1e-5, abs=1e-6)


def test_the_operations_do_change_what_is_inside(outcome_of: Outcomes) -> None:
    outcomes = [(case(number), outcome_of(number)) for number in range(CASES)]
    for operation in ("edit", "stylize"):
        ours = [outcome for each, outcome in outcomes if each.operation == operation]
        # A region may by chance be empty, or lie beside the square that is edited; and a weak edit
        # of a few pixels may round to nothing.
        able = [outcome for outcome in ours if outcome.reach >= 50]
        assert len(able) >= 0.75 * len(ours)
        assert sum(outcome.inside > 0 for outcome in able) >= 0.9 * len(able)
        assert np.median([outcome.inside for outcome in able]) > 1
        assert all(outcome.inside == 0 for outcome in ours if outcome.reach == 0)
    parts = [outcome for _, outcome in outcomes if 0.01 < outcome.share < 0.99]
    assert len(parts) >= 70  # else the hundred would prove little


def test_the_hundred_reach_the_limits_of_the_claim() -> None:
    cases = [case(number) for number in range(CASES)]
    for operation in ("edit", "stylize"):
        sizes = {each.size for each in cases if each.operation == operation}
        assert len(sizes) >= 30
        assert min(map(min, sizes)) == 64
        assert max(map(max, sizes)) == 2048
        assert sum(width != height for width, height in sizes) > len(sizes) / 2
    assert (1500, 1000) in {each.size for each in cases}
