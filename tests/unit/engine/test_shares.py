"""Fair share between callers, priorities and ageing, on the queue alone and through a batcher."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velatura.server.engine.errors import QueueFull
from velatura.server.engine.shape_queue import AGED_EVERY, AGED_S, Chunk, Request, ShapeQueue, split
from velatura.server.engine.standing import Priority, Standing, current_standing


class Line:
    """A queue with a way to put requests of one item, and to take batches off it."""

    def __init__(self) -> None:
        self.queue = ShapeQueue()
        self._loop = asyncio.new_event_loop()
        self._next = 0

    def put(
        self,
        caller: str,
        priority: Priority = Priority.NORMAL,
        *,
        count: int = 1,
        width: int = 2,
        arrived: float = 0.0,
    ) -> Chunk:
        future = self._loop.create_future()
        standing = Standing(caller, priority)
        request = Request(count, arrived, None, future, standing=standing)
        (chunk,) = split(request, {"x": np.zeros((count, width))}, self._next, 99, 1.0)
        request.chunks = [chunk]
        self._next += 1
        self.queue.push(chunk)
        return chunk

    def take(self, most: int, now: float = 0.0) -> list[Chunk]:
        picked = self.queue.pick(self.queue.heads(now)[0], most, 10_000)
        self.queue.take(picked)
        return picked

    def callers(self, most: int, now: float = 0.0) -> str:
        return "".join(chunk.request.standing.caller for chunk in self.take(most, now))

    def close(self) -> None:
        self._loop.close()


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.close()


def test_a_flood_waits_behind_itself_alone(line: Line) -> None:
    for _ in range(50):
        line.put("a")
    assert line.callers(4) == "aaaa"
    line.put("b")
    line.put("b")
    assert line.callers(4).count("b") == 2
    assert line.callers(4) == "aaaa"


def test_callers_with_much_to_do_take_turns(line: Line) -> None:
    for caller in "abc":
        for _ in range(8):
            line.put(caller)
    for _ in range(4):
        assert sorted(line.callers(6)) == list("aabbcc")


def test_large_requests_use_the_share_up_faster(line: Line) -> None:
    for _ in range(6):
        line.put("a", count=4)
        line.put("b")
    order = "".join(line.callers(1) for _ in range(5))
    assert order.count("b") >= 3


def test_one_caller_is_served_in_the_order_of_arrival_over_all_shapes(line: Line) -> None:
    chunks = [line.put("a", width=2 + n % 2) for n in range(10)]
    taken = [line.take(1)[0] for _ in range(10)]
    assert taken == chunks


def test_the_urgent_go_first_and_the_patient_are_not_starved(line: Line) -> None:
    low = line.put("a", Priority.LOW)
    line.put("a")
    high = line.put("b", Priority.HIGH)
    assert line.take(1) == [high]
    now = AGED_S + 1.0
    for _ in range(AGED_EVERY * 3):
        line.put("b", Priority.HIGH, arrived=now)
    lowest = []
    for _ in range(2 * AGED_EVERY):
        (chunk,) = line.take(1, now)
        lowest.append(chunk.request.standing.priority)
        line.put("b", Priority.HIGH, arrived=now)
    assert low not in line.queue
    assert lowest.count(Priority.HIGH) == len(lowest) - 2  # one batch in AGED_EVERY, no more


def test_an_aged_one_of_another_shape_gets_its_batch(line: Line) -> None:
    low = line.put("a", Priority.LOW, width=7)
    taken = []
    for _ in range(AGED_EVERY):
        line.put("b", Priority.HIGH, arrived=AGED_S + 1.0)
        taken += line.take(8, AGED_S + 1.0)
    assert low in taken


def test_who_left_owes_nothing(line: Line) -> None:
    gone = [line.put("a") for _ in range(20)]
    for chunk in gone:
        line.queue.remove(chunk)
    for _ in range(3):
        line.put("b")
    line.put("a")
    assert "a" in line.callers(2)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    callers=st.integers(1, 5),
    flood=st.integers(1, 80),
    batch=st.integers(1, 8),
    seed=st.integers(0, 999),
)
def test_waiting_is_bounded_by_the_own_share(
    callers: int, flood: int, batch: int, seed: int
) -> None:
    """Whatever one caller floods the queue with: another one's k-th request is served within the
    batches that k requests of everybody fill, and each caller's order is kept.
    """
    line, rng = Line(), random.Random(seed)
    try:
        sent: dict[str, list[Chunk]] = {"z": [line.put("z") for _ in range(flood)]}
        for _ in range(rng.randrange(4)):
            if line.queue:
                for chunk in line.take(batch):
                    sent["z"].remove(chunk)
        for name in "abcde"[:callers]:
            sent[name] = [line.put(name) for _ in range(rng.randint(1, 6))]
        served: dict[str, list[Chunk]] = {name: [] for name in sent}
        batches = 0
        while line.queue:
            batches += 1
            for chunk in line.take(batch):
                name = chunk.request.standing.caller
                served[name].append(chunk)
                if name != "z":
                    assert batches <= -(-len(served[name]) * (callers + 1) // batch) + 1
        assert served == sent
    finally:
        line.close()


@pytest.fixture
def asks(bench: Any) -> Any:
    """Submit one item as a caller of some standing."""

    def ask(b: Any, value: float, caller: str, priority: Priority = Priority.NORMAL) -> Any:
        token = current_standing.set(Standing(caller, priority))
        task = b.submit(value)
        current_standing.reset(token)
        return task

    return ask


async def test_a_full_queue_makes_room_for_those_with_less_in_it(bench: Any, asks: Any) -> None:
    b = bench(held=True, max_queue_items=3, max_batch_size=1)
    running = await b.occupy()
    flood = [asks(b, float(n), "a") for n in range(3)]
    await asyncio.sleep(0)
    other = asks(b, 10.0, "b")
    await asyncio.sleep(0)
    with pytest.raises(QueueFull):
        await flood[2]  # the latest of the greediest
    assert b.value("velatura_queue_dropped_total", reason="displaced") == 1
    with pytest.raises(QueueFull):
        await asks(b, 11.0, "a")  # their share is what it is
    with pytest.raises(QueueFull):
        await asks(b, 12.0, "b", Priority.LOW)
    b.device.let_go(4)
    await asyncio.gather(running, other, *flood[:2])


async def test_a_place_ahead_of_the_flood_counts_for_the_deadline(bench: Any, asks: Any) -> None:
    """The flood's own deadlines are hopeless; whoever has nothing queued waits for nobody's."""
    b = bench(held=True, max_batch_size=1)
    for _ in range(20):
        b.batcher.cost.observe(1.0, 0.2)
    running = await b.occupy()
    flood = [asks(b, float(n), "a") for n in range(10)]
    await asyncio.sleep(0)
    assert b.batcher.queued_items == 10
    deadline = time.monotonic() + 1.0
    token = current_standing.set(Standing("b"))
    admitted = b.submit(20.0, deadline=deadline)
    current_standing.set(Standing("a"))
    refused = b.submit(21.0, deadline=deadline)
    current_standing.reset(token)
    with pytest.raises(QueueFull):
        await refused
    b.device.let_go(12)
    assert (await admitted)["y"][0, 0] == 40.0
    await asyncio.gather(running, *flood)
