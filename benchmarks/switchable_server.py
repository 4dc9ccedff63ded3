"""Our server with switches for what it counts and traces: two servers that are equal in all else
still differ by more than that costs, by where their memory lies.

`python -m benchmarks.switchable_server serve …` takes the server's flags. SIGUSR1 switches counting
and tracing off, SIGUSR2 counting on, SIGHUP both. Off, instruments are what `--no-metrics` makes of
them, and there is no tracer.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from velatura.server.cli import app
from velatura.server.observability.instruments import Silent
from velatura.server.observability.tracing import Tracer
from velatura.server.rpc.observation import Observer

BARE, METRICS, TRACED = signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP
SWITCHED = {Counter: ("inc",), Gauge: ("inc", "dec", "set"), Histogram: ("observe",)}


class Switch:
    """Everything that is switched, as it is when on."""

    def __init__(self) -> None:
        self._counting = {
            (kind, name): getattr(kind, name) for kind, names in SWITCHED.items() for name in names
        }
        self._observer: Any = None
        self._tracer: Tracer | None = None
        made: Any = Observer.__init__

        def note(observer: Observer, metrics: Any, tracer: Tracer | None = None) -> None:
            made(observer, metrics, tracer)
            self._observer, self._tracer = observer, tracer

        Observer.__init__ = note  # type: ignore[method-assign,assignment]

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        for (kind, name), counting in self._counting.items():
            setattr(kind, name, getattr(Silent, name) if number == BARE else counting)
        self._observer._tracer = self._tracer if number == TRACED else None


def main() -> None:
    """Reads the server's command line and serves."""
    switch = Switch()
    for number in (BARE, METRICS, TRACED):
        signal.signal(number, switch)
    app()


if __name__ == "__main__":
    main()
