"""What is asked for several times at once runs once, and nobody's leaving hurts anybody else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
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

Compute = Callable[[], Coroutine[Any, Any, str]]


class Work:
    """Counts its runs; each waits until it is let go, or fails with the next of `failures`."""

    def __init__(self, *failures: Exception) -> None:
        self.runs = self.cancelled = 0
        self.go = asyncio.Event()
        self.failures = list(failures)

    async def __call__(self) -> str:
        self.runs += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failures:
            raise self.failures.pop(0)
        return f"run {self.runs}"


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def ask(flights: SingleFlight[str], work: Compute, **more: Any) -> asyncio.Task[str]:
    return asyncio.ensure_future(flights.run("key", work, what="m", **more))


async def test_fifty_callers_share_one_run() -> None:
    joined: list[None] = []
    flights, work = SingleFlight[str](lambda: joined.append(None)), Work()
    tasks = [ask(flights, work) for _ in range(50)]
    await settle()
    work.go.set()
    assert set(await asyncio.gather(*tasks)) == {"run 1"}
    assert work.runs == 1
    assert len(joined) == 49
    assert len(flights) == 0
    assert await ask(flights, work) == "run 2", "what is over is not kept"


async def test_the_work_goes_on_for_whoever_is_left() -> None:
    flights, work = SingleFlight[str](), Work()
    leader, follower = ask(flights, work), ask(flights, work)
    await settle()
    leader.cancel()
    await settle()
    assert leader.cancelled()
    assert work.cancelled == 0
    work.go.set()
    assert await follower == "run 1"


async def test_the_work_stops_when_nobody_is_left_and_the_next_begins_anew() -> None:
    flights, work = SingleFlight[str](), Work()
    tasks = [ask(flights, work) for _ in range(3)]
    await settle()
    for task in tasks:
        task.cancel()
    late = ask(flights, work)  # in the same turn of the loop
    await settle()
    later = ask(flights, work)  # the cancelled run's end must not hide the one that has begun since
    await settle()
    work.go.set()
    assert await asyncio.gather(late, later) in (["run 1"] * 2, ["run 2"] * 2)
    assert work.runs <= 2
    await settle()
    assert len(flights) == 0

    work = Work()
    task = ask(flights, work)
    await settle()
    task.cancel()
    await settle()
    assert work.cancelled == 1
    assert len(flights) == 0


async def test_a_failure_reaches_everybody_and_is_forgotten() -> None:
    flights = SingleFlight[str]()
    work = Work(DeviceFailed("m", FailureKind.EXECUTION, "poisoned"))
    tasks = [ask(flights, work) for _ in range(5)]
    await settle()
    work.go.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, DeviceFailed) for result in results)
    assert work.runs == 1
    assert await ask(flights, work) == "run 2"


@pytest.mark.parametrize(
    "failure",
    [DeadlineExceeded("m"), QueueFull("m", 0.1, Refusal.DEADLINE, "too late")],
    ids=["expired", "refused"],
)
async def test_more_time_outlives_a_leader_with_less(failure: Exception) -> None:
    flights, work, now = SingleFlight[str](), Work(failure), time.monotonic()
    leader = ask(flights, work, deadline=now + 10)
    same = ask(flights, work, deadline=now + 10)
    longer = [ask(flights, work, deadline=now + 60), ask(flights, work)]
    await settle()
    work.go.set()
    for task in (leader, same):
        with pytest.raises(type(failure)):
            await task
    assert await asyncio.gather(*longer) == ["run 2", "run 2"]


async def test_a_full_queue_is_full_for_everybody() -> None:
    flights = SingleFlight[str]()
    work = Work(QueueFull("m", 0.1, Refusal.QUEUE_ITEMS, "no room"))
    leader = ask(flights, work, deadline=time.monotonic() + 10)
    other = ask(flights, work)
    await settle()
    work.go.set()
    results = await asyncio.gather(leader, other, return_exceptions=True)
    assert all(isinstance(result, QueueFull) for result in results)
    assert work.runs == 1


async def test_less_time_ends_a_wait_and_not_the_work() -> None:
    flights, work = SingleFlight[str](), Work()
    leader = ask(flights, work)
    await settle()
    with pytest.raises(DeadlineExceeded):
        await ask(flights, work, deadline=time.monotonic() + 0.01)
    with pytest.raises(DeadlineExceeded):
        await ask(flights, work, deadline=time.monotonic() - 1)
    assert work.runs == 1
    assert work.cancelled == 0
    work.go.set()
    assert await leader == "run 1"
