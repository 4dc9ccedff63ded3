"""The CPUs that all networks share, and whose turn it is: never more running threads than CPUs, and
never more than one run ready behind them.

Two networks on all threads at once take each other's CPUs and caches, and both get slower; so one
waits, and what has been on its way longest goes first, whichever network it is for.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Protocol

from velatura.server.engine.relay import Relay
from velatura.server.engine.shape_queue import Chunk
from velatura.server.engine.standing import Priority

# What was outstanding so long ago counts a third: callers that have just been answered come back.
FADING_S = 0.1
# Up to so many, networks under load want all of them, and one thread can do the rest.
FEW_CPUS = 2


class Member(Protocol):
    """The scheduler of one network, as the gate sees it."""

    @property
    def busy(self) -> bool:
        """Whether anything waits or runs."""

    def rank(self, now: float) -> tuple[Priority, float] | None:
        """Urgency and age of what is due; None for nothing."""

    def dispatch(self, now: float) -> bool:
        """Begin one run; False where none can begin."""

    def cpu_seconds_queued(self) -> float:
        """What its queue will take."""

    def cpu_seconds_running(self, now: float) -> float:
        """What its runs still take."""


class Gate:
    """Belongs to one event loop. Without `cpus` everybody passes."""

    def __init__(self, cpus: int | None = None) -> None:
        self.cpus = cpus
        self.relay = Relay(cpus)
        self.used = 0
        self.runs = 0
        self.outstanding = 0  # chunks that wait or run, of all networks
        self.waiting = 0
        self.promised = 0.0  # CPU seconds that calls which were let in will still bring
        self._load = 0.0
        self._changed = time.monotonic()
        self._busy: dict[Member, None] = {}  # those who may have something, in order of arrival
        self._due = False

    @property
    def free(self) -> int:
        """CPUs that a run may take. Where nothing runs, any run may begin, however wide."""
        if self.cpus is None or not self.used:
            return 1 << 30
        return max(0, self.cpus - self.used)

    @property
    def free_cpus(self) -> int:
        """CPUs that are idle; 0 where everybody passes and nobody counts."""
        return 0 if self.cpus is None else max(0, self.cpus - self.used)

    @property
    def leaves_cpus(self) -> bool:
        """Whether another thread would run beside the networks, rather than in their place."""
        return self.cpus is None or (self.cpus > FEW_CPUS and self.used > 0)

    def lets_ahead(self, threads: int) -> bool:
        """Whether a run of so many CPUs may be made ready behind those that hold all of them, to
        begin where the first of them ends. Only behind its like: behind a wide run it would be
        bound to be a narrow one, and go without company, before anybody knows who comes.
        """
        return self.used == self.cpus and self.runs * threads >= self.used

    def take(self, threads: int) -> None:
        """A run begins on so many CPUs, or will as soon as it can."""
        self.used += threads
        self.runs += 1

    def give(self, threads: int) -> None:
        """A run has ended."""
        self.used -= threads
        self.runs -= 1

    def queued(self, chunks: int, member: Member) -> None:
        """So many chunks have come to a queue, or left it unanswered where negative."""
        self._busy[member] = None
        self._note()
        self.waiting += chunks
        self.outstanding += chunks

    def dispatched(self, chunks: int) -> None:
        """So many chunks have gone from a queue to the device."""
        self.waiting -= chunks

    def answered(self, chunks: int) -> None:
        """So many chunks have come back from the device."""
        self._note()
        self.outstanding -= chunks

    def demand(self) -> int:
        """Chunks that want CPUs: those that wait, or as many as usually are outstanding."""
        self._note()
        return max(1, self.waiting, round(self._load))

    def _note(self) -> None:
        now = time.monotonic()
        kept = math.exp((self._changed - now) / FADING_S)
        self._load = kept * self._load + (1.0 - kept) * self.outstanding
        self._changed = now

    def promise(self, cpu_seconds: float) -> None:
        """Work that calls in their first stages will bring to later ones; negative to take it
        back.
        """
        self.promised = max(0.0, self.promised + cpu_seconds)

    def cpu_seconds_ahead(self, now: float, but: Member | None = None) -> float:
        """CPU seconds that the queues, the runs and the promises of all networks come to; `but` is
        one whose queue is left out.
        """
        ahead = self.promised
        for each in self._busy:
            ahead += each.cpu_seconds_running(now)
            if each is not but:
                ahead += each.cpu_seconds_queued()
        return ahead

    def pump_soon(self) -> None:
        """Requests that arrive in the same turn of the loop share a batch, at no cost in time."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self.pump)

    def pump(self) -> None:
        """Begin runs until no network can: the most urgent first, then the longest on its way."""
        self._due = False
        now = time.monotonic()
        able = dict(self._busy)
        while self.waiting:
            ranked = [(rank, each) for each in able if (rank := each.rank(now)) is not None]
            if not ranked:
                break
            _, first = min(ranked, key=lambda pair: pair[0])
            if not first.dispatch(now):
                del able[first]
        for each in [each for each in self._busy if not each.busy]:
            del self._busy[each]


class Backlog:
    """Bytes and pixels that wait, over all networks: what bounds the memory of the whole server."""

    def __init__(self, max_bytes: int | None = None, max_pixels: int | None = None) -> None:
        self.max_bytes = max_bytes
        self.max_pixels = max_pixels
        self.nbytes = 0
        self.pixels = 0

    def add(self, chunk: Chunk) -> None:
        """`chunk` waits."""
        self.nbytes += chunk.nbytes
        self.pixels += chunk.pixels

    def remove(self, chunk: Chunk) -> None:
        """`chunk` waits no more."""
        self.nbytes -= chunk.nbytes
        self.pixels -= chunk.pixels
