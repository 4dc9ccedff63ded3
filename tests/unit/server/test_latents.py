"""Steps and moves."""

from __future__ import annotations

import numpy as np
import pytest

from velatura.server.imaging.picture import Picture
from velatura.server.pipelines.errors import InvalidRequest, UnknownThing
from velatura.server.pipelines.latents import (
    DirectionStep,
    Layers,
    OffsetStep,
    ReferenceStep,
    Step,
    apply,
    check_steps,
    moves_of,
)
from velatura.server.pipelines.workers import Workers

from .fakes import GENERATOR, NUM_WS, W_DIM, FakeEngine, direction, encoder, job_on

KNOWN = {"smile": direction()}
OFFSETS = np.arange(NUM_WS * W_DIM, dtype=np.float32).reshape(NUM_WS, W_DIM)
START = np.full((NUM_WS, W_DIM), 2.0, np.float32)


async def moved(workers: Workers, *steps: Step, start: np.ndarray = START) -> np.ndarray:  # type: ignore[type-arg]
    job = job_on(FakeEngine({"encoder": encoder}), workers)
    return apply(await moves_of(job, steps, GENERATOR, KNOWN), start)


def values(*numbers: float) -> np.ndarray:  # type: ignore[type-arg]
    return np.array(numbers, np.float32)


async def test_a_direction_moves_its_own_layers(workers: Workers) -> None:
    got = await moved(workers, DirectionStep("smile", -2.0, None, "edits[0]"))
    expected = START.copy()
    expected[1:3] -= 2 * OFFSETS[1:3]
    assert np.array_equal(got, expected)


async def test_named_layers_choose_among_the_directions_own(workers: Workers) -> None:
    got = await moved(workers, DirectionStep("smile", 1.0, Layers(2, 4, "l"), "edits[0]"))
    expected = START.copy()
    expected[2] += OFFSETS[2]
    assert np.array_equal(got, expected)


@pytest.mark.parametrize("layers", [(0, 1), (3, 4)])
def test_layers_that_a_direction_has_nothing_in_are_refused(layers: tuple[int, int]) -> None:
    where = "edits[1].direction"
    steps: list[Step] = [
        DirectionStep("smile", 1.0, Layers(0, 2, "l"), "edits[0].direction"),
        DirectionStep("smile", 1.0, Layers(*layers, f"{where}.layers"), where),
    ]
    with pytest.raises(InvalidRequest, match=r"moves layers 1\.\.3, and .* has none") as bad:
        check_steps(steps, GENERATOR, KNOWN)
    assert [each.field for each in bad.value.violations] == [f"{where}.layers"]


async def test_offsets_are_one_number_one_row_or_all_rows(workers: Workers) -> None:
    layers = Layers(1, 3, "l")
    row = values(1, 2, 3)
    for given, added in (
        (values(0.5), np.full((2, W_DIM), 0.5)),
        (row, np.stack([row, row])),
        (np.arange(6, dtype=np.float32), np.arange(6).reshape(2, 3)),
    ):
        got = await moved(workers, OffsetStep(layers, given, "edits[0]"))
        assert np.array_equal(got[1:3], START[1:3] + added)
        assert np.array_equal(got[[0, 3]], START[[0, 3]])


async def test_a_reference_pulls_by_its_strength(workers: Workers) -> None:
    target = np.zeros((NUM_WS, W_DIM), np.float32)
    got = await moved(workers, ReferenceStep(target, Layers(0, 2, "l"), 0.25, "edits[0]"))
    assert np.array_equal(got[:2], np.full((2, W_DIM), 1.5))
    assert np.array_equal(got[2:], START[2:])


async def test_a_reference_picture_is_encoded(workers: Workers) -> None:
    white = Picture(np.full((10, 20, 3), 255, np.uint8))
    got = await moved(workers, ReferenceStep(white, None, 1.0, "edits[0]"))
    assert got == pytest.approx(np.ones((NUM_WS, W_DIM)), abs=1e-6)


async def test_the_order_of_steps_matters(workers: Workers) -> None:
    everything = Layers(0, NUM_WS, "l")
    add = OffsetStep(everything, values(1), "a")
    halve = ReferenceStep(np.zeros((NUM_WS, W_DIM), np.float32), None, 0.5, "b")
    assert (await moved(workers, add, halve) == 1.5).all()
    assert (await moved(workers, halve, add) == 2.0).all()


async def test_the_input_is_left_alone_and_batches_are_moved_alike(workers: Workers) -> None:
    start = np.stack([START, 2 * START])
    kept = start.copy()
    got = await moved(workers, DirectionStep("smile", 1.0, None, "e"), start=start)
    assert np.array_equal(start, kept)
    assert got.dtype == np.float32
    assert np.array_equal(got[1] - start[1], got[0] - start[0])


def test_every_bad_step_is_named() -> None:
    steps: list[Step] = [
        DirectionStep(
            "smile", 1.0, Layers(2, 2, "edits[0].direction.layers"), "edits[0].direction"
        ),
        OffsetStep(Layers(0, 2, "l"), values(1, 2), "edits[1].offset"),
        ReferenceStep(START, Layers(0, 9, "edits[2].reference.layers"), 1.0, "edits[2].reference"),
    ]
    with pytest.raises(InvalidRequest) as raised:
        check_steps(steps, GENERATOR, KNOWN)
    assert [each.field for each in raised.value.violations] == [
        "edits[0].direction.layers",
        "edits[1].offset.values",
        "edits[2].reference.layers.end",
    ]


def test_an_unknown_direction_lists_the_known() -> None:
    with pytest.raises(UnknownThing, match="smile") as raised:
        check_steps([DirectionStep("grin", 1.0, None, "edits[0].direction")], GENERATOR, KNOWN)
    assert raised.value.field == "edits[0].direction.name"
