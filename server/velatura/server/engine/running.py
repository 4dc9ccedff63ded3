"""The batches on the device: what they hold, since when, and how long they may hold their CPUs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass

from velatura.server.engine.lanes import Lane
from velatura.server.engine.shape_queue import Chunk
from velatura.server.observability.tracing import BatchTrace

# A run that takes so many times what was expected, and so long, holds no CPUs any more.
OVERDUE_TIMES = 8.0
OVERDUE_S = 1.0


@dataclass(eq=False, slots=True)
class Batch:
    """Times are on time.monotonic()'s clock. `overdue` fires when its CPUs are to be given up, and
    is None from then on.
    """

    chunks: list[Chunk]
    lane: Lane
    items: int
    elements: int
    work: float
    started: float
    expected_end: float
    trace: BatchTrace | None
    overdue: asyncio.TimerHandle | None = None

    def patience_s(self) -> float:
        """Seconds after which it must be hanging."""
        return max(OVERDUE_S, OVERDUE_TIMES * (self.expected_end - self.started))


class Running:
    """The batches of one network that are on the device."""

    def __init__(self) -> None:
        self._batches: list[Batch] = []

    def __bool__(self) -> bool:
        return bool(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)

    @property
    def items(self) -> int:
        """Of all batches."""
        return sum(batch.items for batch in self._batches)

    @property
    def elements(self) -> int:
        """Of all batches."""
        return sum(batch.elements for batch in self._batches)

    def longest_s(self) -> float:
        """Age of the oldest batch, seconds; 0 where there is none. Safe from any thread."""
        started = min((batch.started for batch in tuple(self._batches)), default=None)
        return 0.0 if started is None else time.monotonic() - started

    def cpu_seconds(self, now: float) -> float:
        """What the runs still take, by what was expected of them."""
        return sum(
            max(0.0, batch.expected_end - now) * max(1, batch.lane.threads)
            for batch in self._batches
        )

    def begin(self, chunks: list[Chunk], lane: Lane, now: float, trace: BatchTrace | None) -> Batch:
        """`chunks` go to the device together."""
        work = sum(chunk.work for chunk in chunks)
        batch = Batch(
            chunks,
            lane,
            items=sum(chunk.items for chunk in chunks),
            elements=sum(chunk.elements for chunk in chunks),
            work=work,
            started=now,
            expected_end=now + lane.cost.estimate(work),
            trace=trace,
        )
        self._batches.append(batch)
        lane.running += 1
        return batch

    def end(self, batch: Batch) -> None:
        """`batch` has come back, however it went."""
        self._batches.remove(batch)
        batch.lane.running -= 1
