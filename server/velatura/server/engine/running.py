"""The batches on the device: what they hold, since when, and how long they may hold their CPUs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass

from velatura.server.engine.lanes import Lane
from velatura.server.engine.relay import Ticket
from velatura.server.engine.shape_queue import Chunk
from velatura.server.observability.tracing import BatchTrace

# A run that takes so many times what was expected, and so long, holds no CPUs any more.
OVERDUE_TIMES = 8.0
OVERDUE_S = 1.0


@dataclass(eq=False, slots=True)
class Batch:
    """`begun` is on time.monotonic()'s clock, and None while it is only ready. `overdue` fires when
    its CPUs are to be given up, and is None from then on.
    """

    chunks: list[Chunk]
    lane: Lane
    items: int
    elements: int
    expected_s: float
    trace: BatchTrace | None
    begun: float | None = None
    ticket: Ticket | None = None
    overdue: asyncio.TimerHandle | None = None

    def patience_s(self, now: float) -> float:
        """Seconds from `now` after which it must be hanging, if it is not back by then."""
        patience = max(OVERDUE_S, OVERDUE_TIMES * self.expected_s)
        return patience if self.begun is None else self.begun + patience - now

    def left_s(self, now: float) -> float:
        """Seconds that it still takes, by what was expected."""
        ran = 0.0 if self.begun is None else now - self.begun
        return max(0.0, self.expected_s - ran)


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
        all_begun = (batch.begun for batch in tuple(self._batches))
        first = min((begun for begun in all_begun if begun is not None), default=None)
        return 0.0 if first is None else time.monotonic() - first

    def cpu_seconds(self, now: float) -> float:
        """What the runs still take, by what was expected of them."""
        return sum(batch.left_s(now) * max(1, batch.lane.threads) for batch in self._batches)

    def add(self, chunks: list[Chunk], lane: Lane, trace: BatchTrace | None) -> Batch:
        """`chunks` go to the device together."""
        batch = Batch(
            chunks,
            lane,
            items=sum(chunk.items for chunk in chunks),
            elements=sum(chunk.elements for chunk in chunks),
            expected_s=lane.cost.estimate(sum(chunk.work for chunk in chunks)),
            trace=trace,
        )
        self._batches.append(batch)
        lane.running += 1
        return batch

    def end(self, batch: Batch) -> None:
        """`batch` has come back, however it went."""
        self._batches.remove(batch)
        batch.lane.running -= 1
