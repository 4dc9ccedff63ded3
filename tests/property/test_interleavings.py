"""Ten thousand random interleavings of requests that arrive, are cancelled, expire, fail and are
shut down: everybody gets exactly one outcome, the right one, and nothing is left over.

Time is virtual (see `virtual_time`), so every case is the same at each run: a failure's message
names its seed, and `case(seed)` plays it again.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from velatura.server.engine.admission import BatchLimits
from velatura.server.engine.batcher import Batcher
from velatura.server.engine.errors import (
    DeadlineExceeded,
    DeviceFailed,
    Draining,
    InvalidTensor,
    QueueFull,
)
from velatura.server.engine.gate import Gate
from velatura.server.engine.lanes import Lane, Run
from velatura.server.engine.standing import Priority, Standing, current_standing
from velatura.server.observability.metrics import Metrics

from .virtual_time import START, VirtualLoop, play

CASES, PARTS = 10_000, 20
METRICS = Metrics()


@dataclass(frozen=True)
class Call:
    """One caller; times are seconds after the start, `patience` after the caller's arrival."""

    number: int
    at: float
    count: int
    width: int
    patience: float | None
    cancelled_at: float | None
    poisoned: bool
    standing: Standing


@dataclass
class World:
    """One case as it goes on: what runs, when, and what became of whom."""

    loop: VirtualLoop
    rng: random.Random
    calls: list[Call]
    flaky: float
    outcomes: dict[int, Any] = field(default_factory=dict)
    late_runs: list[str] = field(default_factory=list)
    unlucky: set[int] = field(default_factory=set)  # were alone in a run that failed
    rows: list[tuple[int, int]] = field(default_factory=list)
    most_items: int = 0
    cpus: int = 0  # what runs may take together; 0 where they take none
    crowds: list[int] = field(default_factory=list)  # threads at a time that were more than CPUs
    ends: list[tuple[float, int]] = field(default_factory=list)  # of the runs, and their threads

    def run(self, inputs: Mapping[str, NDArray[Any]], threads: int = 0) -> dict[str, NDArray[Any]]:
        """The network: on a thread, as far as the batcher knows."""
        tag, body = inputs["tag"], inputs["body"]
        started = self.loop.clock()
        callers = sorted(set(tag[:, 0].tolist()))
        for number in callers:
            self._note_if_late(number, started)
        self.most_items = max(self.most_items, len(tag))
        assert len({self.calls[number].width for number in callers}) == 1
        seconds = self.rng.choice((0.0, 0.001, 0.004, 0.02)) + 0.0005 * len(tag)
        self.loop.spend(seconds)
        self.ends.append((started + seconds, threads))
        taken = sum(count for end, count in self.ends if end > started + 1e-9)
        self.crowds += [taken] * (taken > self.cpus)  # raised here, it would be a failed run
        if (body < 0).any() or self.rng.random() < self.flaky:
            if len(callers) == 1:
                self.unlucky.add(callers[0])
            raise ValueError("poisoned, or bad luck")
        self.rows.extend(map(tuple, tag.tolist()))
        return {"tag": tag * 10, "width": np.full(len(tag), body.shape[1])}

    def _note_if_late(self, number: int, now: float) -> None:
        call = self.calls[number]
        if number in self.outcomes:
            self.late_runs.append(f"{number} had its outcome: {self.outcomes[number]!r}")
        if call.patience is not None and START + call.at + call.patience <= now:
            self.late_runs.append(f"{number} had expired")


def random_call(rng: random.Random, number: int) -> Call:
    at = rng.choice((0.0, 0.0, 0.001, rng.random() * 0.05))
    cancelled = rng.random() < 0.25
    return Call(
        number=number,
        at=at,
        count=rng.choice((1, 1, 1, 2, 3, rng.randint(1, 13))),
        width=rng.choice((1, 1, 2)),
        patience=rng.choice((None, None, rng.random() * 0.06, 0.004, 1.0)),
        cancelled_at=at + rng.choice((0.0, 0.0005, rng.random() * 0.05)) if cancelled else None,
        poisoned=rng.random() < 0.08,
        standing=Standing(rng.choice(("", "ann", "bob")), rng.choice(list(Priority))),
    )


def random_limits(rng: random.Random) -> BatchLimits:
    return BatchLimits(
        max_batch_size=rng.randint(1, 8),
        max_queue_items=rng.choice((4, 12, 1000)),
        max_queue_delay_s=rng.choice((0.0, 0.0, 0.003)),
        instances=rng.choice((1, 1, 2, 3)),
    )


def random_lanes(rng: random.Random, world: World) -> tuple[Gate | None, Run | list[Lane]]:
    """A device, or CPUs with a narrow lane, and a wide one besides; on them runs are made ready
    behind others.
    """
    cpus = rng.choice((0, 0, 1, 2, 3))
    if not cpus:
        return None, world.run
    lanes = [Lane("narrow", partial(world.run, threads=1), 1, cpus)]
    if cpus > 1 and rng.random() < 0.5:
        lanes.append(Lane("wide", partial(world.run, threads=cpus), cpus, 1))
    world.cpus = cpus
    return Gate(cpus), lanes


def tensors(call: Call) -> dict[str, NDArray[Any]]:
    tag = np.stack([np.full(call.count, call.number), np.arange(call.count)], axis=1)  # [count, 2]
    value = -1.0 if call.poisoned else 1.0
    return {"tag": tag, "body": np.full((call.count, call.width), value, np.float32)}


async def one(world: World, batcher: Batcher, call: Call) -> None:
    """A caller from arrival to outcome. A second outcome for the same caller would be an error."""
    current_standing.set(call.standing)
    await asyncio.sleep(call.at)
    deadline = None if call.patience is None else START + call.at + call.patience
    try:
        outcome: Any = await batcher.submit(tensors(call), deadline=deadline)
    except BaseException as error:
        outcome = error
    assert call.number not in world.outcomes
    world.outcomes[call.number] = outcome


async def stop(rng: random.Random, batcher: Batcher) -> str:
    """Shut the batcher down at some time, in some way; says how."""
    how = rng.choice(("later", "later", "drain", "drain shortly", "close"))
    if how == "later":
        return how
    await asyncio.sleep(rng.random() * 0.06)
    if how == "close":
        await batcher.close()
    else:
        await batcher.drain(30.0 if how == "drain" else 0.005)
    return how


async def scene(loop: VirtualLoop, rng: random.Random) -> None:
    calls = [random_call(rng, number) for number in range(rng.randint(1, 11))]
    world = World(loop, rng, calls, flaky=rng.choice((0.0, 0.0, 0.0, 0.15)))
    limits = random_limits(rng)
    gate, how_run = random_lanes(rng, world)
    batcher = Batcher("m", how_run, limits, METRICS.for_model("m"), gate=gate)
    tasks = [asyncio.ensure_future(one(world, batcher, call)) for call in calls]
    for call, task in zip(calls, tasks, strict=True):
        if call.cancelled_at is not None:
            loop.call_later(call.cancelled_at, task.cancel)
    how = await stop(rng, batcher)
    await asyncio.gather(*tasks, return_exceptions=True)
    await batcher.drain(30.0)
    check(world, limits, how)
    assert (batcher.queued_items, batcher.queued_bytes, batcher.running_items) == (0, 0, 0)
    assert (batcher.gate.used, batcher.gate.runs, batcher.gate.relay.used) == (0, 0, 0)
    for gauge in (METRICS.models.queue_depth, METRICS.models.queue_bytes):
        assert [sample.value for family in gauge.collect() for sample in family.samples] == [0.0]
    await batcher.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not others, "a task was left behind"


def check(world: World, limits: BatchLimits, how: str) -> None:
    assert not world.late_runs, world.late_runs
    assert not world.crowds, world.crowds
    assert world.most_items <= limits.max_batch_size
    for call in world.calls:
        outcome = world.outcomes.get(call.number)
        if outcome is None:  # cancelled before it had even asked
            assert call.cancelled_at is not None
            assert call.cancelled_at <= call.at
            continue
        if isinstance(outcome, dict):
            check_answer(call, outcome)
            continue
        assert isinstance(outcome, BaseException)
        assert allowed(world, call, outcome, limits, how), (call, outcome)
    # Without failures nothing is run twice.
    if not world.flaky and not any(call.poisoned for call in world.calls):
        assert max(Counter(world.rows).values(), default=1) == 1


def check_answer(call: Call, outcome: Mapping[str, NDArray[Any]]) -> None:
    assert not call.poisoned
    assert outcome["tag"].tolist() == [[call.number * 10, n * 10] for n in range(call.count)]
    assert outcome["width"].tolist() == [call.width] * call.count


def allowed(  # noqa: PLR0911 - one for each kind
    world: World, call: Call, outcome: BaseException, limits: BatchLimits, how: str
) -> bool:
    """Whether a caller has itself, the limits or the shutdown to thank for its failure, and never
    anybody else."""
    match outcome:
        case asyncio.CancelledError():
            return call.cancelled_at is not None
        case DeadlineExceeded():
            return call.patience is not None
        case DeviceFailed():
            return call.number in world.unlucky
        case Draining():
            return how != "later"
        case InvalidTensor():
            return call.count > limits.max_queue_items
        case QueueFull():
            full = sum(each.count for each in world.calls) > limits.max_queue_items
            return full or call.patience is not None
    return False


def case(seed: int) -> None:
    """Play one case."""
    rng = random.Random(seed)
    try:
        play(lambda loop: scene(loop, rng))
    except BaseException as error:
        error.add_note(f"the case's seed is {seed}")
        raise


@pytest.mark.parametrize("part", range(PARTS))
def test_every_caller_gets_exactly_one_outcome(part: int) -> None:
    for seed in range(part, CASES, PARTS):
        case(seed)


def test_the_cases_are_not_all_alike() -> None:
    """Every kind of end comes up among the first cases, so that the property is about something."""
    kinds: Counter[str] = Counter()
    real_check = check

    def counting(world: World, limits: BatchLimits, how: str) -> None:
        real_check(world, limits, how)
        kinds.update(type(outcome).__name__ for outcome in world.outcomes.values())
        kinds[how] += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "check", counting)
        for seed in range(300):
            case(seed)
    ends = {"dict", "CancelledError", "DeadlineExceeded", "DeviceFailed", "Draining", "QueueFull"}
    ends |= {"later", "drain", "drain shortly", "close"}
    assert {kind for kind in ends if kinds[kind] >= 10} == ends, kinds
