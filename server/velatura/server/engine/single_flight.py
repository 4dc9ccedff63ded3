"""Single flight: what several callers ask for at the same time is computed once.

The computation is a task of its own that belongs to nobody. It goes on as long as one caller is
interested, whoever began it, and is cancelled when the last one has left. Every caller keeps its
own deadline: one that is sooner ends the caller's wait and nothing else, and one that is later
outlives a computation that failed only because whoever began it had less time.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from velatura.server.engine.errors import DeadlineExceeded, QueueFull, Refusal

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Flight(Generic[T]):
    task: asyncio.Task[T]
    deadline: float  # of whoever began it; infinity for none
    interested: int = 0


class SingleFlight(Generic[T]):
    """Computations in progress by key. Belongs to one event loop."""

    def __init__(self, on_join: Callable[[], None] = lambda: None) -> None:
        self._flights: dict[Hashable, _Flight[T]] = {}
        self._on_join = on_join

    def __len__(self) -> int:
        """Computations in progress."""
        return len(self._flights)

    def __contains__(self, key: Hashable) -> bool:
        """Whether `key` is being computed."""
        return key in self._flights

    async def run(
        self,
        key: Hashable,
        compute: Callable[[], Coroutine[Any, Any, T]],
        *,
        deadline: float | None = None,
        what: str = "",
    ) -> T:
        """The result of `compute`, or of a computation of the same `key` that is in progress.

        `compute` should itself obey `deadline` (on time.monotonic()'s clock), as the engine does.
        `what` names the network for `DeadlineExceeded`, which ends a wait for another's computation
        that is longer than the deadline allows. Whatever `compute` raises reaches all who wait for
        it, except that a caller with more time than the computation had tries once more.
        """
        own = math.inf if deadline is None else deadline
        while True:
            flight = self._flights.get(key)
            if flight is None:
                return await self._follow(key, self._begin(key, compute, own))
            self._on_join()
            try:
                if own >= flight.deadline:
                    return await self._follow(key, flight)
                try:
                    async with asyncio.timeout_at(own):
                        return await self._follow(key, flight)
                except TimeoutError:
                    raise DeadlineExceeded(what) from None
            except (DeadlineExceeded, QueueFull) as error:
                if own <= flight.deadline or not _for_want_of_time(error):
                    raise

    def _begin(
        self, key: Hashable, compute: Callable[[], Coroutine[Any, Any, T]], deadline: float
    ) -> _Flight[T]:
        async def fly() -> T:
            try:
                return await compute()
            finally:
                # Before anybody hears of it: who asks from here on begins anew.
                self._forget(key, flight)

        flight = _Flight(asyncio.get_running_loop().create_task(fly()), deadline)
        flight.task.add_done_callback(_seen)
        self._flights[key] = flight
        return flight

    async def _follow(self, key: Hashable, flight: _Flight[T]) -> T:
        flight.interested += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.interested -= 1
            if not flight.interested and not flight.task.done():
                self._forget(key, flight)
                flight.task.cancel()

    def _forget(self, key: Hashable, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


def _for_want_of_time(error: Exception) -> bool:
    return not isinstance(error, QueueFull) or error.reason is Refusal.DEADLINE


def _seen(task: asyncio.Task[Any]) -> None:
    """A failure that everybody has walked away from is no news for the log."""
    if not task.cancelled():
        task.exception()
