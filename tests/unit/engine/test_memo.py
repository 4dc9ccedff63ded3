"""Results are kept within their bytes, least recently used go first, and everything is counted."""

from __future__ import annotations

import asyncio

import pytest

from velatura.server.engine.memo import ENTRY_BYTES, Memo
from velatura.server.observability.metrics import Metrics

ROOM = 3 * (100 + ENTRY_BYTES)


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, {"cache": "things", **labels}) or 0.0


def memo(metrics: Metrics, limit: int = ROOM) -> Memo[bytes]:
    return Memo("things", limit, len, metrics.caches.of("things"))


async def fetch(kept: Memo[bytes], key: str, size: int = 100) -> bytes:
    async def make() -> bytes:
        return key.encode().ljust(size)

    found = kept.peek(key)
    return found if found is not None else await kept.compute(key, make)


async def test_least_recently_used_goes_first(metrics: Metrics) -> None:
    kept = memo(metrics)
    for key in ("a", "b", "c"):
        await fetch(kept, key)
    await fetch(kept, "a")
    await fetch(kept, "d")
    assert kept.peek("b") is None
    for key in ("a", "c", "d"):
        assert kept.peek(key) == key.encode().ljust(100)
    assert kept.nbytes == ROOM
    assert value(metrics, "velatura_cache_requests_total", outcome="hit") == 4
    assert value(metrics, "velatura_cache_requests_total", outcome="miss") == 5
    assert value(metrics, "velatura_cache_evictions_total") == 1
    assert value(metrics, "velatura_cache_bytes") == ROOM
    assert value(metrics, "velatura_cache_entries") == 3
    assert value(metrics, "velatura_cache_limit_bytes") == ROOM


async def test_what_is_too_large_drives_nothing_out(metrics: Metrics) -> None:
    kept = memo(metrics)
    await fetch(kept, "small")
    assert len(await fetch(kept, "large", ROOM)) == ROOM
    assert kept.peek("large") is None
    assert kept.peek("small") is not None


async def test_many_small_ones_stay_within_the_bytes(metrics: Metrics) -> None:
    kept = memo(metrics)
    for number in range(1000):
        await fetch(kept, str(number), size=number % 7)
        assert kept.nbytes <= ROOM
    assert value(metrics, "velatura_cache_bytes") == kept.nbytes > 0


async def test_nothing_is_kept_with_no_bytes_and_runs_are_shared_all_the_same(
    metrics: Metrics,
) -> None:
    kept, runs = memo(metrics, 0), 0

    async def make() -> bytes:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0.01)
        return b"done"

    assert await asyncio.gather(*(kept.compute("k", make) for _ in range(10))) == [b"done"] * 10
    assert runs == 1
    assert kept.peek("k") is None
    assert kept.nbytes == 0
    assert value(metrics, "velatura_single_flight_joined_total") == 9
    assert value(metrics, "velatura_cache_requests_total", outcome="miss") == 0


async def test_failures_and_what_is_not_to_be_kept_are_not_kept(metrics: Metrics) -> None:
    kept = memo(metrics)

    async def fail() -> bytes:
        raise ValueError("no")

    async def make() -> bytes:
        return b"once"

    with pytest.raises(ValueError, match="no"):
        await kept.compute("k", fail)
    assert await kept.compute("k", make, keep=False) == b"once"
    assert kept.peek("k") is None
    assert kept.in_flight == 0


async def test_only_callers_of_one_variant_share_a_failure(metrics: Metrics) -> None:
    kept = memo(metrics)

    async def fail(field: str) -> bytes:
        await asyncio.sleep(0.01)
        raise ValueError(field)

    fields = ("image", "image", "content")
    results = await asyncio.gather(
        *(kept.compute("k", lambda field=field: fail(field), variant=field) for field in fields),  # type: ignore[misc]
        return_exceptions=True,
    )
    assert [str(result) for result in results] == list(fields)
    assert value(metrics, "velatura_single_flight_joined_total") == 1
