"""A batch on the device: what it holds, since when, and how long it may hold its CPUs."""

from __future__ import annotations

import asyncio
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
