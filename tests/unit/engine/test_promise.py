"""What a call will ask of later networks counts from its arrival, and is given back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from velatura.server.engine.bundle import Bundle
from velatura.server.engine.engine import EngineOptions, LocalEngine
from velatura.server.engine.errors import QueueFull
from velatura.server.engine.gate import Gate
from velatura.server.engine.promise import (
    MOST_FOR_LATER,
    Expected,
    Promise,
    Turn,
    current_promise,
)
from velatura.server.engine.providers import Provider
from velatura.server.observability.metrics import Metrics

STAGES = [
    {"encoder": Expected(0.02, 0.02), "segmenter": Expected(0.03, 0.03)},
    {"synthesis": Expected(0.04, 0.05)},
]


def ahead(gate: Gate) -> float:
    return gate.cpu_seconds_ahead(time.monotonic())


def test_stages_are_used_up_one_by_one() -> None:
    gate = Gate(2)
    promise = Promise(gate, STAGES)
    assert ahead(gate) == pytest.approx(0.10)
    assert promise.begun("encoder") == Turn(False, 0.04, pytest.approx(0.08))
    assert ahead(gate) == pytest.approx(0.08)
    assert promise.begun("segmenter") == Turn(False, 0.04, pytest.approx(0.05))
    assert promise.begun("synthesis") == Turn(True, 0)
    assert ahead(gate) == pytest.approx(0.0, abs=1e-9)
    assert promise.begun("synthesis") == Turn()  # more than was promised stands for itself
    promise.release()
    assert ahead(gate) == pytest.approx(0.0, abs=1e-9)


def test_a_skipped_stage_is_no_admission() -> None:
    """The latents were known: the generator is the first that is asked, and may refuse."""
    gate = Gate(2)
    promise = Promise(gate, STAGES)
    assert promise.begun("synthesis") == Turn(False, 0)
    assert ahead(gate) == pytest.approx(0.0, abs=1e-9)


def test_a_call_that_ends_early_gives_everything_back() -> None:
    gate = Gate(2)
    promise = Promise(gate, STAGES)
    promise.begun("encoder")
    promise.release()
    promise.release()
    assert ahead(gate) == pytest.approx(0.0, abs=1e-9)
    assert promise.begun("segmenter") == Turn()


def test_later_stages_leave_time_for_this_one() -> None:
    assert Turn(False, 0.2).deadline(10.0, 9.0) == pytest.approx(9.8)
    assert Turn(False, 5.0).deadline(10.0, 9.0) == pytest.approx(10.0 - MOST_FOR_LATER)
    assert Turn(False, 5.0).deadline(None, 9.0) is None
    assert Turn().deadline(10.0, 9.0) == 10.0


@pytest.fixture
async def engine(bundle_root: Path) -> AsyncIterator[LocalEngine]:
    options = EngineOptions(provider=Provider.CPU, instances=1, intra_threads=1)
    engine = LocalEngine(Bundle.load(bundle_root), options, Metrics())
    await engine.start()
    yield engine
    await engine.close()


def slow(engine: LocalEngine, model: str, seconds: float) -> None:
    """Let the scheduler believe that an item of `model` takes so long."""
    for lane in engine.batcher(model).lanes:
        lane.cost.a, lane.cost.b = seconds, 0.0


def picture() -> dict[str, Any]:
    return {"image": np.zeros((1, 3, 8, 8), np.float32)}


def latents() -> dict[str, Any]:
    return {"w_plus": np.zeros((1, 2, 4), np.float32)}


async def test_no_first_stage_is_run_for_a_call_that_its_second_cannot_serve(
    engine: LocalEngine,
) -> None:
    await engine.run("tiny-segmenter", picture())
    slow(engine, "tiny-segmenter", 0.01)
    slow(engine, "tiny-synthesis", 0.4)
    deadline = time.monotonic() + 0.42
    with engine.promise([[("tiny-segmenter", 1)], [("tiny-synthesis", 1)]]):
        # Half of the time stays for the first; a second of the queue would not.
        await engine.run("tiny-segmenter", picture(), deadline=deadline)
    slow(engine, "tiny-segmenter", 0.25)
    with (
        engine.promise([[("tiny-segmenter", 1)], [("tiny-synthesis", 1)]]),
        pytest.raises(QueueFull),
    ):
        await engine.run("tiny-segmenter", picture(), deadline=time.monotonic() + 0.42)
    await engine.run("tiny-segmenter", picture(), deadline=time.monotonic() + 0.42)


async def test_what_calls_in_their_first_stage_will_ask_counts_as_a_queue(
    engine: LocalEngine,
) -> None:
    await engine.run("tiny-synthesis", latents())
    slow(engine, "tiny-synthesis", 0.3)

    def call() -> Any:
        return engine.promise([[("tiny-segmenter", 1)], [("tiny-synthesis", 1)]])

    with call(), call(), call():
        with pytest.raises(QueueFull) as caught:
            await asyncio.create_task(_alone(engine, "tiny-synthesis", time.monotonic() + 0.6))
        assert 0.1 < caught.value.retry_after_s < 1.0
    slow(engine, "tiny-synthesis", 0.3)
    await _alone(engine, "tiny-synthesis", time.monotonic() + 0.8)


async def _alone(engine: LocalEngine, model: str, deadline: float) -> None:
    """As a call without a promise of its own."""
    current_promise.set(None)
    await engine.run(model, latents(), deadline=deadline)


async def test_the_second_stage_is_not_turned_away_again(engine: LocalEngine) -> None:
    await engine.run("tiny-synthesis", latents())
    deadline = time.monotonic() + 5.0
    with engine.promise([[("tiny-segmenter", 1)], [("tiny-synthesis", 1)]]):
        await engine.run("tiny-segmenter", picture(), deadline=deadline)
        slow(engine, "tiny-synthesis", 60.0)
        outputs = await engine.run("tiny-synthesis", latents(), deadline=deadline)
    assert outputs["image"].shape == (1, 3, 8, 8)


async def test_a_call_is_turned_away_before_anything_is_spent_on_it(engine: LocalEngine) -> None:
    await engine.run("tiny-segmenter", picture())
    slow(engine, "tiny-segmenter", 0.1)
    slow(engine, "tiny-synthesis", 0.3)
    stages = [[("tiny-segmenter", 1)], [("tiny-synthesis", 1)]]
    now = time.monotonic()
    with pytest.raises(QueueFull, match=r"0\.400 s of running"):
        engine.reserve(stages, now + 0.35)
    first = engine.reserve(stages, now + 0.6)
    with pytest.raises(QueueFull) as caught:
        engine.reserve(stages, now + 0.6)  # behind the first one's 0.4 CPU seconds
    assert 0.05 <= caught.value.retry_after_s < 0.6
    first.release()
    engine.reserve(stages, now + 0.6).release()
    assert engine._gate.promised == 0.0


async def test_a_call_that_was_let_in_early_is_not_asked_again(engine: LocalEngine) -> None:
    await engine.run("tiny-segmenter", picture())
    deadline = time.monotonic() + 5.0
    reserved = engine.reserve([[("tiny-segmenter", 1)], [("tiny-synthesis", 1)]], deadline)
    slow(engine, "tiny-segmenter", 60.0)
    slow(engine, "tiny-synthesis", 60.0)
    with engine.promise([[("tiny-segmenter", 1)], [("tiny-synthesis", 1)]], reserved):
        await engine.run("tiny-segmenter", picture(), deadline=deadline)
        await engine.run("tiny-synthesis", latents(), deadline=deadline)
    assert engine._gate.promised == 0.0
    reserved.release()
    slow(engine, "tiny-segmenter", 60.0)
    with pytest.raises(QueueFull):
        await engine.run("tiny-segmenter", picture(), deadline=deadline)


async def test_the_network_that_lets_a_call_in_learns_how_long_all_of_it_took(
    engine: LocalEngine,
) -> None:
    lateness = engine.batcher("tiny-segmenter")._admission.lateness
    stages = [[("tiny-segmenter", 1)], [("tiny-synthesis", 1)]]

    async def call(then_s: float) -> float:
        slow(engine, "tiny-segmenter", 0.05)
        slow(engine, "tiny-synthesis", 0.05)
        before = lateness.factor(time.monotonic())
        with engine.promise(stages):
            await engine.run("tiny-segmenter", picture())
            await engine.run("tiny-synthesis", latents())
            await asyncio.sleep(then_s)  # pictures have to be made of it
        return lateness.factor(time.monotonic()) / before

    assert await call(0.0) < 1.0
    assert await call(0.2) > 1.0


async def test_a_call_that_its_deadline_cuts_off_took_too_long(engine: LocalEngine) -> None:
    await engine.run("tiny-segmenter", picture())
    lateness = engine.batcher("tiny-segmenter")._admission.lateness
    for error, longer in ((TimeoutError(), True), (ValueError(), False)):
        slow(engine, "tiny-segmenter", 0.05)
        slow(engine, "tiny-synthesis", 0.05)
        before = lateness.factor(time.monotonic())
        with pytest.raises(type(error)):
            await _ending_with(error, engine, time.monotonic() + 0.2)
        assert (lateness.factor(time.monotonic()) > before) == longer


async def _ending_with(error: Exception, engine: LocalEngine, deadline: float) -> None:
    """A call that fails after its first stage, at its deadline."""
    with engine.promise([[("tiny-segmenter", 1)]]):
        await engine.run("tiny-segmenter", picture(), deadline=deadline)
        await asyncio.sleep(deadline - time.monotonic())
        raise error


async def test_what_calls_do_besides_networks_is_learned_and_counts_for_others(
    engine: LocalEngine,
) -> None:
    stages = [[("tiny-segmenter", 1)], [("tiny-synthesis", 1)]]
    reserved = engine.reserve(stages, None)
    networks_s = engine._gate.promised
    reserved.release(TimeoutError(), 5.0)  # cut short: says nothing
    for _ in range(40):
        engine.reserve(stages, None, nbytes=1500).release(None, 0.2)
        engine.reserve(stages, None, nbytes=1 << 20).release(None, 30.0)  # larger pictures
    await engine.run("tiny-segmenter", picture())
    first = engine.reserve(stages, time.monotonic() + 0.1, nbytes=1100)
    assert engine._gate.promised == pytest.approx(networks_s + 0.2, rel=0.01)
    with pytest.raises(QueueFull):
        engine.reserve(stages, time.monotonic() + 0.1, nbytes=1100)
    with engine.promise(stages, first):
        await engine.run("tiny-segmenter", picture())
        await engine.run("tiny-synthesis", latents())
        assert engine._gate.promised == pytest.approx(0.2, rel=0.01)  # until the answer is written
    first.release(None, 0.2)
    assert engine._gate.promised == pytest.approx(0.0, abs=1e-9)
    engine.reserve(stages, time.monotonic() + 0.1, nbytes=1100).release()
