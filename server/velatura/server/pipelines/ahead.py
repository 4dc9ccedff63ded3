"""Batches in order, a few of them always running ahead of the one that is being taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

SAMPLES_AT_ONCE = 8
BATCHES_AHEAD = 2


async def batches_ahead(
    count: int, run: Callable[[int], Awaitable[Sequence[T]]]
) -> AsyncGenerator[T]:
    """Results of `run(start)` for start 0, 8, 16 … below `count`, one by one and in order."""
    starts = list(range(0, count, SAMPLES_AT_ONCE))
    running: dict[int, asyncio.Future[Sequence[T]]] = {}
    try:
        for place, start in enumerate(starts):
            for ahead in starts[place : place + BATCHES_AHEAD]:
                if ahead not in running:
                    running[ahead] = asyncio.ensure_future(run(ahead))
            for result in await running[start]:
                yield result
    finally:
        # A failed batch or a caller who hangs up must not leave the others running on the device.
        for task in running.values():
            task.cancel()
        await asyncio.gather(*running.values(), return_exceptions=True)
