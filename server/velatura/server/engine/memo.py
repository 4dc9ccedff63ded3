"""Results kept for whoever asks for the same again: least recently used go first, bounded by bytes,
and computed once where several ask at once.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from cachetools import LRUCache

from velatura.server.engine.single_flight import SingleFlight
from velatura.server.observability.cache_metrics import CacheMetrics

T = TypeVar("T")

# What an entry costs besides its value: key, digest and places in dictionaries.
ENTRY_BYTES = 512


class Memo(Generic[T]):
    """Results of one kind. Belongs to one event loop.

    Values are shared by all who ask and must not be changed. Keys hold everything that the result
    depends on. With `limit_bytes` of 0 nothing is kept, and what runs is still shared.
    """

    def __init__(
        self, name: str, limit_bytes: int, size_of: Callable[[T], int], metrics: CacheMetrics
    ) -> None:
        self.name = name
        self._kept: _Lru[T] | None = None
        if limit_bytes > 0:
            self._kept = _Lru(limit_bytes, lambda value: size_of(value) + ENTRY_BYTES, metrics)
        self._metrics = metrics
        self._flights: SingleFlight[T] = SingleFlight(metrics.joined.inc)
        metrics.limit.set(limit_bytes)
        metrics.flights.set_function(lambda: len(self._flights))

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return 0 if self._kept is None else int(self._kept.currsize)

    @property
    def in_flight(self) -> int:
        """Computations in progress."""
        return len(self._flights)

    def peek(self, key: Hashable) -> T | None:
        """What is kept for `key`; counts as a hit or as a miss."""
        if self._kept is None:
            return None
        found: T | None = self._kept.get(key)
        (self._metrics.misses if found is None else self._metrics.hits).inc()
        return found

    def there(self, key: Hashable, variant: Hashable = None) -> bool:
        """Whether it is kept or being computed, without counting it as asked for."""
        return (self._kept is not None and key in self._kept) or self.in_progress(key, variant)

    def in_progress(self, key: Hashable, variant: Hashable = None) -> bool:
        """Whether somebody is computing it."""
        return (key, variant) in self._flights

    async def compute(
        self,
        key: Hashable,
        compute: Callable[[], Coroutine[Any, Any, T]],
        *,
        deadline: float | None = None,
        what: str = "",
        variant: Hashable = None,
        keep: bool = True,
    ) -> T:
        """The result of `compute`, computed once for all who ask at the same time, then kept.

        Only callers of the same `variant` share a computation, and with it its failure; see
        `SingleFlight.run` for the rest.
        """

        async def computed() -> T:
            value = await compute()
            if keep:
                self.put(key, value)
            return value

        return await self._flights.run((key, variant), computed, deadline=deadline, what=what)

    def put(self, key: Hashable, value: T) -> None:
        """Keep `value`, where it is not larger than everything that may be kept."""
        if self._kept is not None:
            self._kept.keep(key, value)


class _Lru(LRUCache[Hashable, T]):
    """Counts what it drops."""

    def __init__(
        self, limit_bytes: int, size_of: Callable[[T], int], metrics: CacheMetrics
    ) -> None:
        super().__init__(limit_bytes, size_of)
        self._metrics = metrics

    def keep(self, key: Hashable, value: T) -> None:
        """Put an entry in, unless it alone would be too much."""
        assert self.getsizeof is not None  # noqa: S101 - given above
        if self.getsizeof(value) <= self.maxsize:
            self[key] = value
            self._metrics.kept.set(self.currsize)
            self._metrics.entries.set(len(self))

    def popitem(self) -> tuple[Hashable, T]:
        """The least recently used entry, taken out to make room."""
        self._metrics.evictions.inc()
        return super().popitem()
