"""Wide for one, narrow for many: the choice by cost, the split, and the gate over the CPUs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

from velatura.server.engine.admission import BatchLimits
from velatura.server.engine.batcher import Batcher
from velatura.server.engine.cost import LEARNED_RUNS, SMALLEST_LIMIT, CostModel
from velatura.server.engine.errors import QueueFull
from velatura.server.engine.gate import Gate
from velatura.server.engine.lanes import FORGOTTEN_S, Lane, Lanes
from velatura.server.engine.standing import Priority, Standing, current_standing
from velatura.server.observability.metrics import Metrics

from .benches import Device, items, until


class Known(CostModel):
    """t(n) = a·n + b, whatever the runs of a test's device take."""

    def observe(self, work: float, seconds: float) -> None:
        """Learn nothing."""


def cost(a: float, b: float) -> CostModel:
    return Known(a=a, b=b, runs=LEARNED_RUNS)


class Pair:
    """One network in a wide and a narrow lane, behind a gate that others may share.

    The costs are those of a generator on two CPUs: 15 ms for one image on both, 20 ms on one.
    """

    def __init__(self, gate: Gate, name: str = "m", **limits: Any) -> None:
        self.wide, self.narrow = Device(held=True), Device(held=True)
        self.metrics = Metrics()
        self.batcher = Batcher(
            name,
            [
                Lane("narrow", self.narrow.run, 1, 2, cost(0.020, 0.0005)),
                Lane("wide", self.wide.run, 2, 1, cost(0.0105, 0.0045)),
            ],
            BatchLimits(**limits),
            self.metrics.for_model(name),
            gate=gate,
        )
        self.name = name

    def submit(self, *values: float, **more: Any) -> asyncio.Task[Any]:
        return asyncio.create_task(self.batcher.submit(items(*values), **more))

    def value(self, name: str, **labels: str) -> float:
        labels = {"model": self.name, **labels}
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    @property
    def sizes(self) -> tuple[list[int], list[int]]:
        return self.wide.sizes, self.narrow.sizes


@pytest.fixture
async def pair() -> AsyncIterator[Callable[..., Pair]]:
    made: list[Pair] = []

    def make(gate: Gate | None = None, name: str = "m", **limits: Any) -> Pair:
        made.append(Pair(gate or Gate(2), name, **limits))
        return made[-1]

    yield make
    for each in made:
        each.wide.let_go(1000)
        each.narrow.let_go(1000)
        await each.batcher.close()


async def test_alone_a_request_gets_all_threads(pair: Any) -> None:
    p = pair()
    p.wide.let_go(3)
    for n in range(3):
        await p.submit(float(n))
    assert p.sizes == ([1, 1, 1], [])
    assert p.value("velatura_lane_runs_total", lane="wide") == 3


async def test_a_crowd_is_split_evenly_between_the_narrow_places(pair: Any) -> None:
    p = pair()
    tasks = [p.submit(float(n)) for n in range(8)]
    await until(lambda: len(p.narrow.batches) == 2)
    assert p.sizes == ([], [4, 4])
    p.narrow.let_go(2)
    answers = [float((await task)["y"][0, 0]) for task in tasks]
    assert answers == [2.0 * n for n in range(8)]
    assert p.value("velatura_lane_runs_total", lane="narrow") == 2


async def test_wide_and_narrow_never_share_the_cpus(pair: Any) -> None:
    p = pair()
    first = p.submit(1.0)
    await until(lambda: p.wide.sizes == [1])
    others = [p.submit(float(n)) for n in range(4)]
    await asyncio.sleep(0.02)
    assert p.narrow.sizes == []
    p.wide.let_go()
    await first
    await until(lambda: len(p.narrow.batches) == 2)
    assert p.sizes == ([1], [2, 2])
    late = p.submit(9.0)
    await asyncio.sleep(0.02)
    assert p.sizes == ([1], [2, 2])  # both CPUs are taken
    p.narrow.let_go(3)
    p.wide.let_go()
    await asyncio.gather(late, *others)


async def test_one_large_request_is_not_torn_apart(pair: Any) -> None:
    """Two images of one request share a run: so rounding in the network is the same for both."""
    p = pair()
    p.wide.let_go(1)
    await p.submit(1.0, 2.0)
    assert p.sizes == ([2], [])


async def test_callers_who_come_back_at_once_are_a_crowd(pair: Any) -> None:
    """Two callers in a closed loop: at the moment of dispatch one of them is on its way."""
    p = pair()
    p.wide.held = p.narrow.held = False
    end = time.monotonic() + 0.3

    async def caller() -> None:
        while time.monotonic() < end:
            await p.batcher.submit(items(1.0))
            await asyncio.sleep(0)

    await asyncio.gather(*(caller() for _ in range(4)))
    assert sum(p.narrow.sizes) > sum(p.wide.sizes)


async def test_the_gate_serves_what_has_been_on_its_way_longest(pair: Any) -> None:
    gate = Gate(2)
    a, b = pair(gate, "a"), pair(gate, "b")
    first = a.submit(1.0)
    await until(lambda: a.wide.sizes == [1])
    newer = [b.submit(float(n)) for n in range(2)]
    await asyncio.sleep(0)
    early = Standing(since=time.monotonic() - 0.5)
    token = current_standing.set(early)  # a later stage of an early call
    newer.append(a.submit(2.0))
    current_standing.reset(token)
    await asyncio.sleep(0.02)
    assert b.sizes == ([], [])
    a.wide.let_go()
    await first
    await until(lambda: len(a.narrow.batches) + len(b.narrow.batches) == 2)
    assert a.narrow.sizes == [1]
    assert b.narrow.sizes[0] <= 2
    for each in (a, b):
        each.narrow.let_go(9)
        each.wide.let_go(9)
    await asyncio.gather(*newer)
    assert gate.used == 0
    assert gate.outstanding == gate.waiting == 0


async def test_the_gate_lets_the_urgent_pass(pair: Any) -> None:
    gate = Gate(1)
    a, b = pair(gate, "a"), pair(gate, "b")
    running = a.submit(1.0)
    await until(lambda: sum(map(len, a.sizes)) == 1)
    normal = a.submit(2.0)
    await asyncio.sleep(0)
    token = current_standing.set(Standing(priority=Priority.HIGH))
    urgent = b.submit(3.0)
    current_standing.reset(token)
    await asyncio.sleep(0)
    a.wide.let_go()
    a.narrow.let_go()
    await running
    await until(lambda: sum(map(len, b.sizes)) == 1)
    assert sum(map(len, a.sizes)) == 1
    for each in (a, b):
        each.narrow.let_go(9)
        each.wide.let_go(9)
    await asyncio.gather(normal, urgent)


async def test_what_others_wait_for_counts_against_a_deadline(pair: Any) -> None:
    """Ten items of 20 ms wait for another network on two CPUs: about 100 ms ahead."""
    gate = Gate(2)
    a, b = pair(gate, "a"), pair(gate, "b")
    b.narrow.let_go(9)
    b.wide.let_go(1)
    await b.submit(0.0)  # its estimates are fresh
    tasks = [a.submit(float(n)) for n in range(10)]
    await until(lambda: len(a.narrow.batches) == 2)
    with pytest.raises(QueueFull) as caught:
        await b.submit(1.0, deadline=time.monotonic() + 0.06)
    assert 0.05 <= caught.value.retry_after_s < 0.15
    fits = b.submit(1.0, deadline=time.monotonic() + 5.0)
    a.narrow.let_go(9)
    a.wide.let_go(9)
    await asyncio.gather(fits, *tasks)


async def test_the_retry_delay_is_that_of_two_narrow_places(pair: Any) -> None:
    """16 items of 20 ms, two at a time, are gone in 160 ms and not in 320."""
    p = pair(max_queue_items=8)
    running = [p.submit(float(n)) for n in range(8)]
    await until(lambda: len(p.narrow.batches) == 2)
    waiting = [p.submit(float(n)) for n in range(8)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull) as caught:
        await p.submit(*map(float, range(8)))
    assert 0.08 < caught.value.retry_after_s < 0.32
    p.narrow.let_go(9)
    p.wide.let_go(9)
    await asyncio.gather(*running, *waiting)


def test_a_batch_stops_growing_where_it_no_longer_pays() -> None:
    linear, fixed = cost(0.02, 0.0001), cost(0.001, 0.005)
    assert linear.economical(64, 1.0) == SMALLEST_LIMIT
    assert linear.economical(2, 1.0) == 2
    assert fixed.economical(64, 1.0) == 64
    assert 30 < cost(0.004, 0.006).economical(64, 1.0) < 45
    assert CostModel().economical(64, 1.0) == 64  # nothing is known yet
    assert cost(0.02, 0.005).economical(64, 16.0) == SMALLEST_LIMIT  # large pictures


async def test_batches_closed_by_cost_and_by_deadline_are_counted() -> None:
    device = Device(held=True)
    metrics = Metrics()
    lane = Lane("device", device.run, 0, 1, cost(0.05, 0.0001))
    batcher = Batcher("m", [lane], BatchLimits(max_batch_size=8), metrics.for_model("m"))

    def closed(reason: str) -> float | None:
        labels = {"model": "m", "reason": reason}
        return metrics.registry.get_sample_value("velatura_batch_closed_total", labels)

    def submit(value: float, deadline: float | None = None) -> asyncio.Task[Any]:
        return asyncio.create_task(batcher.submit(items(value), deadline=deadline))

    tasks = [submit(-1.0)]
    await until(lambda: len(device.batches) == 1)
    tasks += [submit(float(n)) for n in range(6)]
    await asyncio.sleep(0)
    device.let_go()
    await until(lambda: len(device.batches) == 2)
    assert device.sizes == [1, SMALLEST_LIMIT]
    assert closed("cost") == 1
    device.let_go()
    await until(lambda: len(device.batches) == 3)
    lane.cost.a = 10.0  # now two take 20 s
    tasks += [submit(7.0, time.monotonic() + 45.0), submit(8.0), submit(9.0)]
    await asyncio.sleep(0)
    lane.cost.a = 20.0
    device.let_go()
    await until(lambda: len(device.batches) == 4)
    assert device.sizes == [1, SMALLEST_LIMIT, 2, 2]
    assert closed("deadline") == 1
    device.let_go(9)
    await asyncio.gather(*tasks)
    await batcher.close()


async def test_what_surely_comes_too_late_is_not_run() -> None:
    """Admitted when things were faster; its run would only delay those that can still be served."""
    device = Device(held=True)
    lane = Lane("device", device.run, 0, 1, cost(0.001, 0.0))
    batcher = Batcher("m", [lane], BatchLimits(max_batch_size=1), Metrics().for_model("m"))
    running = asyncio.create_task(batcher.submit(items(-1.0)))
    await until(lambda: len(device.batches) == 1)
    deadline = time.monotonic() + 5.0
    late = asyncio.create_task(batcher.submit(items(1.0), deadline=deadline))
    fine = asyncio.create_task(batcher.submit(items(2.0)))
    await asyncio.sleep(0)
    lane.cost.a = 10.0
    device.let_go(3)
    with pytest.raises(QueueFull, match="left for a run"):
        await late
    await asyncio.gather(running, fine)
    assert [float(batch[0, 0]) for batch in device.batches] == [-1.0, 2.0]
    await batcher.close()


def test_a_forgotten_lane_is_tried_again() -> None:
    def run(inputs: Any) -> Any:
        return inputs

    slow = Lane("wide", run, 2, 1, cost(9.0, 0.0))
    fast = Lane("narrow", run, 1, 2, cost(0.02, 0.0))
    lanes = Lanes([fast, slow])
    now = 1000.0
    fast.last_run, slow.last_run = now, now - 1.0
    assert lanes.choose(1, 1, 1, 8, 2, now) is fast
    slow.last_run = now - FORGOTTEN_S - 1.0
    assert lanes.choose(1, 1, 1, 8, 2, now) is slow
    assert lanes.choose(1, 1, 1, 8, 1, now) is fast  # not at the others' expense
    fast.running = 2
    assert lanes.choose(1, 1, 1, 8, 1, now) is None


async def test_padding_fills_up_to_allowed_sizes_and_is_cut_off_again() -> None:
    device, metrics = Device(held=True), Metrics()
    limits = BatchLimits(max_batch_size=8, pad_sizes=(2, 4))
    batcher = Batcher("m", device.run, limits, metrics.for_model("m"))
    first = asyncio.create_task(batcher.submit(items(5.0)))
    await until(lambda: len(device.batches) == 1)
    others = [asyncio.create_task(batcher.submit(items(float(n)))) for n in range(7)]
    await asyncio.sleep(0)
    device.let_go(3)
    assert (await first)["y"].tolist() == [[10.0, 10.0]]
    assert [float((await task)["y"][0, 0]) for task in others] == [2.0 * n for n in range(7)]
    assert device.sizes == [2, 4, 4]
    np.testing.assert_array_equal(device.batches[0], np.full((2, 2), 5.0))
    labels = {"model": "m"}
    name = "velatura_batch_padding_items_total"
    assert metrics.registry.get_sample_value(name, labels) == 2
    await batcher.close()


async def test_who_waits_for_full_batches_gets_them_whole(pair: Any) -> None:
    p = pair(max_queue_delay_s=30.0, max_batch_size=8)
    p.narrow.let_go(9)
    p.wide.let_go(9)
    await asyncio.gather(*(p.submit(float(n)) for n in range(8)))
    assert sorted([*p.wide.sizes, *p.narrow.sizes]) == [8]
    assert p.value("velatura_batch_closed_total", reason="full") == 1
