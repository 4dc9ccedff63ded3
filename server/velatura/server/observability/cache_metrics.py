"""What the caches keep, find and drop, by cache."""

from __future__ import annotations

from velatura.server.observability.instruments import Instruments


class CachesMetrics:
    """The metrics of all caches; `of` hands out those of one."""

    def __init__(self, make: Instruments) -> None:
        self.requests = make.counter(
            "velatura_cache_requests_total",
            "Results asked for, count, by outcome: hit or miss.",
            "cache",
            "outcome",
        )
        self.joined = make.counter(
            "velatura_single_flight_joined_total",
            "Times that a result was waited for that was being computed for somebody else, count.",
            "cache",
        )
        self.flights = make.gauge(
            "velatura_single_flights", "Results being computed for whoever asks, count.", "cache"
        )
        self.evictions = make.counter(
            "velatura_cache_evictions_total", "Results dropped to make room, count.", "cache"
        )
        self.kept = make.gauge("velatura_cache_bytes", "Size of the results kept, bytes.", "cache")
        self.entries = make.gauge("velatura_cache_entries", "Results kept, count.", "cache")
        self.limit = make.gauge(
            "velatura_cache_limit_bytes", "Most bytes of results kept, bytes.", "cache"
        )

    def of(self, cache: str) -> CacheMetrics:
        """The metrics of one cache, all of them there from the start."""
        return CacheMetrics(self, cache)


class CacheMetrics:
    """Metrics of one cache with their label bound."""

    def __init__(self, metrics: CachesMetrics, cache: str) -> None:
        self.hits = metrics.requests.labels(cache, "hit")
        self.misses = metrics.requests.labels(cache, "miss")
        self.joined = metrics.joined.labels(cache)
        self.flights = metrics.flights.labels(cache)
        self.evictions = metrics.evictions.labels(cache)
        self.kept = metrics.kept.labels(cache)
        self.entries = metrics.entries.labels(cache)
        self.limit = metrics.limit.labels(cache)
