"""Begins runs on worker threads, never on more CPUs than there are: what comes early waits for one.

Who waits begins on the thread that ends a run, without a turn of the event loop in between: on a
loop that is busy with other calls a CPU would stand idle for that long.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable


class Ticket:
    """One run's place; `launch` hands it to its thread and never raises."""

    __slots__ = ("begun", "ended", "launch", "threads")

    def __init__(self, threads: int, launch: Callable[[], None]) -> None:
        self.threads = threads
        self.launch = launch
        self.begun = False
        self.ended = False


class Relay:
    """Safe from any thread. Without `cpus` everybody begins at once."""

    def __init__(self, cpus: int | None = None) -> None:
        self._cpus = cpus
        self._used = 0
        self._waiting: deque[Ticket] = deque()
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """CPUs that runs hold."""
        return self._used

    def start(self, ticket: Ticket) -> None:
        """Launch it when there are CPUs for it, at once or from `end`, in order of arrival. Where
        nothing runs anything may begin, however wide. It may have ended when this returns.
        """
        with self._lock:
            self._waiting.append(ticket)
        self._begin_due()

    def end(self, ticket: Ticket) -> None:
        """Its run has ended, or holds its CPUs no more; a second time changes nothing."""
        with self._lock:
            if ticket.ended:
                return
            ticket.ended = True
            if ticket.begun:
                self._used -= ticket.threads
            else:
                self._waiting.remove(ticket)
        self._begin_due()

    def _begin_due(self) -> None:
        while (ticket := self._next()) is not None:
            ticket.launch()

    def _next(self) -> Ticket | None:
        with self._lock:
            if not self._waiting:
                return None
            ticket = self._waiting[0]
            fits = self._cpus is None or self._used + ticket.threads <= self._cpus
            if self._used and not fits:
                return None
            ticket.begun = True
            self._used += ticket.threads
            return self._waiting.popleft()
