"""Random interleavings of callers who ask for the same, leave, run out of time and fail: one run
for all of them, one outcome for each, in virtual time (see `virtual_time`).
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from velatura.server.engine.errors import (
    DeadlineExceeded,
    DeviceFailed,
    FailureKind,
    QueueFull,
    Refusal,
)
from velatura.server.engine.single_flight import SingleFlight

from .virtual_time import START, VirtualLoop, play

CASES, PARTS = 3_000, 6
QUEUE_S = 0.01  # before it, a computation can expire; after it, it runs to its end


@dataclass(frozen=True)
class Call:
    """One caller; times are seconds after the start, `patience` after the caller's arrival."""

    number: int
    key: int
    at: float
    patience: float | None
    cancelled_at: float | None

    @property
    def deadline(self) -> float | None:
        return None if self.patience is None else START + self.at + self.patience


@dataclass
class World:
    """One case: what runs, and what became of whom."""

    loop: VirtualLoop
    rng: random.Random
    flights: SingleFlight[tuple[int, int]]
    broken: set[int]
    outcomes: dict[int, Any] = field(default_factory=dict)
    running: Counter[int] = field(default_factory=Counter)
    begun: int = 0
    finished: list[tuple[int, float]] = field(default_factory=list)  # key, when

    async def compute(self, call: Call) -> tuple[int, int]:
        """As the engine does it: waits in a queue, expires there, or is run."""
        self.running[call.key] += 1
        self.begun += 1
        number = self.begun
        try:
            assert self.running[call.key] == 1, "two computations of one key"
            await self._wait_in_queue(call)
            await asyncio.sleep(self.rng.choice((0.0, 0.01, 0.03)))
            if call.key in self.broken:
                raise DeviceFailed("m", FailureKind.EXECUTION, "poisoned")
            self.finished.append((call.key, self.loop.time()))
            return call.key, number
        finally:
            self.running[call.key] -= 1

    async def _wait_in_queue(self, call: Call) -> None:
        left = float("inf") if call.deadline is None else call.deadline - self.loop.time()
        if left < QUEUE_S / 2:
            raise QueueFull("m", 0.05, Refusal.DEADLINE, "too late")
        await asyncio.sleep(min(QUEUE_S, left))
        if left <= QUEUE_S:
            raise DeadlineExceeded("m")


def random_call(rng: random.Random, number: int) -> Call:
    at = rng.choice((0.0, 0.0, rng.random() * 0.06, rng.randint(0, 12) * 0.004))
    cancelled = rng.random() < 0.3
    return Call(
        number=number,
        key=rng.randint(0, 1),
        at=at,
        patience=rng.choice((None, 1.0, 0.004, rng.random() * 0.03)),
        cancelled_at=at + rng.choice((0.0, 0.004, 0.008, rng.random() * 0.05))
        if cancelled
        else None,
    )


async def one(world: World, call: Call) -> None:
    await asyncio.sleep(call.at)
    try:
        outcome: Any = await world.flights.run(
            call.key, lambda: world.compute(call), deadline=call.deadline, what="m"
        )
    except BaseException as error:
        outcome = error
    assert call.number not in world.outcomes
    world.outcomes[call.number] = (outcome, world.loop.time())


async def scene(loop: VirtualLoop, rng: random.Random) -> Counter[str]:
    calls = [random_call(rng, number) for number in range(rng.randint(2, 10))]
    broken = {0} if rng.random() < 0.2 else set()
    world = World(loop, rng, SingleFlight(), broken)
    tasks = [asyncio.ensure_future(one(world, call)) for call in calls]
    for call, task in zip(calls, tasks, strict=True):
        if call.cancelled_at is not None:
            loop.call_later(call.cancelled_at, task.cancel)
    await asyncio.gather(*tasks, return_exceptions=True)
    for call in calls:
        check(world, call)
    assert len(world.flights) == 0
    # Nobody waits any more, so nothing may go on; a cancelled task needs a turn to notice.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not +world.running
    kinds = Counter(type(outcome).__name__ for outcome, _ in world.outcomes.values())
    kinds["shared"] = sum(isinstance(each, tuple) for each, _ in world.outcomes.values()) - len(
        world.finished
    )
    return kinds


def check(world: World, call: Call) -> None:
    if call.number not in world.outcomes:  # cancelled before it had even asked
        assert call.cancelled_at is not None
        assert call.cancelled_at <= call.at
        return
    outcome, when = world.outcomes[call.number]
    match outcome:
        case tuple():
            assert outcome[0] == call.key
            assert call.key not in world.broken
        case asyncio.CancelledError():
            assert call.cancelled_at is not None
        case DeviceFailed():
            assert call.key in world.broken
        case DeadlineExceeded():  # never before its own time, whoever it waited for
            assert call.deadline is not None
            assert when >= call.deadline - 1e-9
        case QueueFull():  # only who asked with too little time is refused
            assert call.deadline is not None
            assert call.deadline - when < QUEUE_S / 2
        case _:
            raise AssertionError((call, outcome))


def case(seed: int) -> Counter[str]:
    """Play one case."""
    rng = random.Random(seed)
    try:
        return play(lambda loop: scene(loop, rng))
    except BaseException as error:
        error.add_note(f"the case's seed is {seed}")
        raise


@pytest.mark.parametrize("part", range(PARTS))
def test_one_run_for_all_and_one_outcome_for_each(part: int) -> None:
    kinds: Counter[str] = Counter()
    for seed in range(part, CASES, PARTS):
        kinds += case(seed)
    for kind in ("tuple", "CancelledError", "DeviceFailed", "DeadlineExceeded", "QueueFull"):
        assert kinds[kind] > 20, kinds
    assert kinds["shared"] > 100
