"""The ledger: every call's exact time and outcome, from which the figures come.

Locust keeps rounded times (147 becomes 150) and mixes those of failures in; a gate needs better.
Quantiles here are of the calls that succeeded, since quick refusals would flatter them; failures
have a limit of their own.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

ALL = "all calls"
_SHARES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True)
class Call:
    """One call that ended: `failure` is empty, or the status and the reason."""

    name: str
    seconds: float
    response_bytes: int
    failure: str = ""


@dataclass(frozen=True)
class Figures:
    """What a load test measured of one kind of call. Quantiles are None when none succeeded."""

    calls: int
    failed: int
    rate: float  # successes a second
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    response_mib_per_s: float

    @property
    def error_ratio(self) -> float:
        """Share of the calls that failed, 0..1; 0 for no calls."""
        return self.failed / self.calls if self.calls else 0.0

    def quantile_ms(self, quantity: str) -> float | None:
        """A quantile by its name: p50, p95 or p99."""
        return {"p50": self.p50_ms, "p95": self.p95_ms, "p99": self.p99_ms}[quantity]


@dataclass
class _Row:
    milliseconds: array[float] = field(default_factory=lambda: array("d"))
    failures: Counter[str] = field(default_factory=Counter)
    response_bytes: int = 0
    # The same when the time was over; calls that ended later count, but not in the rates.
    successes_in_time: int | None = None
    bytes_in_time: int | None = None


class Ledger:
    """Takes calls in and gives figures out; `lateness` has the seconds by which arrivals began
    after they were due."""

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}
        self._is_over = False
        self.lateness: array[float] = array("d")

    def add(self, call: Call) -> None:
        """Enter a call that ended."""
        for name in (call.name, ALL):
            row = self._rows.get(name) or self._rows.setdefault(name, self._new_row())
            row.response_bytes += call.response_bytes
            if call.failure:
                row.failures[call.failure] += 1
            else:
                row.milliseconds.append(call.seconds * 1000)

    def end_time(self) -> None:
        """The time that is measured is over; what follows are calls that began in it."""
        for row in self._rows.values():
            row.successes_in_time = len(row.milliseconds)
            row.bytes_in_time = row.response_bytes
        self._is_over = True

    def clear(self) -> None:
        """Forget everything, as after the warm-up."""
        self._rows.clear()
        self.lateness = array("d")

    def figures(self, elapsed_s: float) -> dict[str, Figures]:
        """The figures by name, `ALL` last; `elapsed_s` is the time that was measured."""
        names = [*sorted(name for name in self._rows if name != ALL), ALL]
        return {name: self._figures(self._rows.get(name, _Row()), elapsed_s) for name in names}

    def failures(self) -> dict[str, dict[str, int]]:
        """How often each name failed in each way; names without failures are left out."""
        rows = sorted((name, row) for name, row in self._rows.items() if name != ALL)
        return {name: dict(row.failures.most_common()) for name, row in rows if row.failures}

    def _new_row(self) -> _Row:
        return _Row(successes_in_time=0, bytes_in_time=0) if self._is_over else _Row()

    @staticmethod
    def _figures(row: _Row, elapsed_s: float) -> Figures:
        ordered = sorted(row.milliseconds)
        failed = row.failures.total()
        p50, p95, p99 = (quantile(ordered, share) for share in _SHARES.values())
        in_time = len(ordered) if row.successes_in_time is None else row.successes_in_time
        bytes_in_time = row.response_bytes if row.bytes_in_time is None else row.bytes_in_time
        return Figures(
            calls=len(ordered) + failed,
            failed=failed,
            rate=in_time / elapsed_s if elapsed_s > 0 else 0.0,
            p50_ms=p50,
            p95_ms=p95,
            p99_ms=p99,
            max_ms=ordered[-1] if ordered else None,
            response_mib_per_s=bytes_in_time / 2**20 / elapsed_s if elapsed_s > 0 else 0.0,
        )


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """Nearest-rank quantile of values in rising order: the least one that `share` of them do not
    exceed. None for no values."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None
