"""What a server's metrics say happened between two moments."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from ..running import RunningServer

HANDLED = "grpc_server_handled_total"


@dataclass(frozen=True)
class Batches:
    """Batches that one network ran."""

    count: int
    items: int
    by_limit: dict[float, int]  # how many had at most so many items

    @property
    def mean(self) -> float:
        """Items a batch; 0 where none ran."""
        return self.items / self.count if self.count else 0.0

    def of_exactly(self, items: int) -> int:
        """How many had this size; only where the histogram has a bucket for it and for one less."""
        below = max((limit for limit in self.by_limit if limit < items), default=None)
        return self.by_limit[float(items)] - (self.by_limit[below] if below is not None else 0)


class Watch:
    """Takes the metrics when made; everything it tells is the difference to now."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self._before = server.metrics()

    def batches(self, model: str) -> Batches:
        """Batches of one network since then."""
        now, label = self._server.metrics(), f'model="{model}"'
        limits = {}
        for name in now:
            if name.startswith("velatura_batch_size_bucket{") and label in name:
                found = re.search(r'le="([^"]+)"', name)
                assert found is not None
                limits[float(found[1])] = self._since(now, name)
        return Batches(
            count=self._since(now, f"velatura_batch_size_count{{{label}}}"),
            items=self._since(now, f"velatura_batch_size_sum{{{label}}}"),
            by_limit=limits,
        )

    def by_code(self, method: str = "") -> Counter[str]:
        """RPCs ended since then by status code, of one method or of all."""
        now, codes = self._server.metrics(), Counter[str]()
        for name in now:
            if name.startswith(HANDLED + "{") and (not method or f'grpc_method="{method}"' in name):
                found = re.search(r'grpc_code="([^"]+)"', name)
                assert found is not None
                codes[found[1]] += self._since(now, name)
        return +codes

    def total(self, metric: str, **labels: str) -> float:
        """Sum of a metric's samples with these labels, since then."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            value - self._before.get(name, 0.0)
            for name, value in self._server.metrics().items()
            if name.partition("{")[0] == metric and all(label in name for label in wanted)
        )

    def _since(self, now: dict[str, float], name: str) -> int:
        return round(now.get(name, 0.0) - self._before.get(name, 0.0))
