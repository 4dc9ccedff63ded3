"""How the metrics are made: all in one registry, or as instruments that do nothing where metrics
are off.

Base units everywhere (seconds, bytes, pixels); counters end in `_total`. Labels are closed sets or
names from the bundle, so that no caller can make the number of series grow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# Buckets follow what `make bench` measured on two busy CPU cores with the embedded networks: calls
# took 14 ms (Generate, one caller) to 4.7 s (Stylize with pictures, 32 callers), batches 10 ms (one
# image) to 0.6 s (eight). There the steps are a factor of 1.6, so that a quantile is off by a fifth
# at worst; catalog calls below and 16-megapixel pictures above get coarser ones.
CALL_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.016, 0.025, 0.04, 0.065, 0.1, 0.16, 0.25, 0.4, 0.65, 1.0, 1.6,
    2.5, 4.0, 6.5, 10.0, 25.0, 60.0,
)  # fmt: skip
RUN_SECONDS = (*CALL_SECONDS[:-2], 30.0)
# A face of 128 px takes about a millisecond, a PNG of 16 megapixels two seconds.
CODEC_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
# An idle loop is late by less than a millisecond; a tenth of a second is felt by every caller.
LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
# From a request for a preset by name to a picture at the size limit.
MESSAGE_BYTES = tuple(float(4**power) for power in range(4, 14))  # 256 B to 64 MiB
BATCH_ITEMS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0)

Exemplar: TypeAlias = dict[str, str] | None


class Silent:
    """Stands in for every instrument where metrics are off."""

    def labels(self, *_values: object, **_named: object) -> Silent:
        """Itself."""
        return self

    def inc(self, amount: float = 1, exemplar: Exemplar = None) -> None:
        """Nothing."""

    def dec(self, amount: float = 1) -> None:
        """Nothing."""

    def set(self, value: float) -> None:
        """Nothing."""

    def set_function(self, function: Callable[[], float]) -> None:
        """Nothing."""

    def observe(self, amount: float, exemplar: Exemplar = None) -> None:
        """Nothing."""


SILENT = Silent()


class Instruments:
    """Makes counters, gauges and histograms in `registry`; silent ones without a registry."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self._registry = registry

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """A counter; its name ends in `_total`."""
        if self._registry is None:
            return cast("Counter", SILENT)
        return Counter(name, text, labels, registry=self._registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        """A gauge."""
        if self._registry is None:
            return cast("Gauge", SILENT)
        return Gauge(name, text, labels, registry=self._registry)

    def histogram(
        self, name: str, text: str, *labels: str, buckets: tuple[float, ...]
    ) -> Histogram:
        """A histogram with these upper bounds (and +Inf)."""
        if self._registry is None:
            return cast("Histogram", SILENT)
        return Histogram(name, text, labels, registry=self._registry, buckets=buckets)

    def info(self, name: str, text: str, labels: Mapping[str, str]) -> None:
        """A gauge that is always 1 and whose labels tell something; call it once a name."""
        gauge: Any = self.gauge(name, text, *labels)
        gauge.labels(*labels.values()).set(1)
