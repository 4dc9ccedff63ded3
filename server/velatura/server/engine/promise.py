"""Calls of several stages: what they will ask of later networks counts from their arrival.

Else a call is let in by its first network, and turned away by the second after time was spent on
it. How long the whole call took is what its first network learns from: there it is let in.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeAlias

from velatura.server.engine.errors import DeadlineExceeded
from velatura.server.engine.gate import Gate
from velatura.server.engine.lateness import NEARLY_S, Lateness

# The networks of a call's stages with the items that each gets; those of one stage run side by
# side.
Stages: TypeAlias = Sequence[Sequence[tuple[str, int]]]

# Of the newest call, in the mean of what calls do besides networks.
PIXELS_WEIGHT = 0.1
# Later stages may take so much of the time that is left away from the one that is asked; estimates
# are not good enough to let them take all.
MOST_FOR_LATER = 0.5
# How a call ends whose deadline passes.
_CUT_OFF = (asyncio.CancelledError, TimeoutError, DeadlineExceeded)


@dataclass(frozen=True, slots=True)
class Expected:
    """What one network is expected to do for a call: seconds, and CPU seconds."""

    run_s: float
    cpu_s: float


@dataclass(slots=True)
class Pixels:
    """CPU seconds that calls of one kind spend besides networks, on codecs and compositing: a
    fading mean, 0 until there is one.
    """

    seconds: float = 0.0

    def observe(self, seconds: float) -> None:
        """One call has spent so many."""
        share = PIXELS_WEIGHT if self.seconds else 1.0
        self.seconds += share * (seconds - self.seconds)


class Promise:
    """One call's stages. Use it up with `begun`, say that it was `admitted`, and `release` it when
    the call ends.
    """

    def __init__(
        self,
        gate: Gate,
        stages: Sequence[dict[str, Expected]],
        pixels: Pixels | None = None,
    ) -> None:
        self._gate = gate
        self._pixels = pixels
        # Counts for others alone: a call is not turned away for what its like have spent here.
        self._pixels_s = pixels.seconds if pixels and gate.cpus is not None else 0.0
        gate.promise(self._pixels_s)
        self._stages: list[dict[str, Expected]] = []
        self._open: list[dict[str, Expected]] = []
        self._reached = -1  # the last stage that has begun
        self._began = time.monotonic()
        self._lateness: Lateness | None = None
        self._expected_s = 0.0
        self._deadline = math.inf
        self.restate(stages)

    def restate(self, stages: Sequence[dict[str, Expected]]) -> None:
        """It turns out that these are the call's stages; none of them has begun."""
        self._gate.promise(-self._cpu_s(self._open))
        self._stages = list(stages)
        self._open = [dict(stage) for stage in stages]
        self._gate.promise(self._cpu_s(self._open))

    def begun(self, model: str) -> Turn:
        """The call now asks `model`: it and all stages before its own are no promise any more."""
        found = (index for index, stage in enumerate(self._open) if model in stage)
        index = next(found, None)
        if index is None:
            return ALONE
        later = self._lateness is not None or index > self._reached >= 0
        self._reached = max(self._reached, index)
        passed = [*self._open[:index], {model: self._open[index].pop(model)}]
        self._gate.promise(-self._cpu_s(passed))
        for stage in self._open[:index]:
            stage.clear()
        ahead = sum(
            max((each.run_s for each in stage.values()), default=0.0)
            for stage in self._stages[index + 1 :]
        )
        return Turn(later, ahead, self._cpu_s(self._open) + self._pixels_s, self)

    def admitted(self, lateness: Lateness, expected_s: float, deadline: float | None) -> None:
        """The call was let in by a network with such a `lateness`, which expects all of its stages
        to take so long from then on."""
        if self._lateness is None:
            waited = time.monotonic() - self._began
            self._lateness, self._expected_s = lateness, waited + expected_s
            self._deadline = math.inf if deadline is None else deadline

    def release(self, error: BaseException | None = None, pixels_s: float | None = None) -> None:
        """The call has ended, with `error` unless it went well; it spent `pixels_s` CPU seconds
        besides networks, None where nobody knows."""
        if error is None and pixels_s is not None and self._pixels is not None:
            self._pixels.observe(pixels_s)
        self._gate.promise(-self._cpu_s(self._open) - self._pixels_s)
        self._open, self._pixels_s = [], 0.0
        lateness, self._lateness = self._lateness, None
        if lateness is None:
            return
        now = time.monotonic()
        if error is None:
            lateness.observe(self._expected_s, now - self._began, now)
        elif isinstance(error, _CUT_OFF) and now >= self._deadline - NEARLY_S:
            lateness.observe(self._expected_s, math.inf, now)

    @staticmethod
    def _cpu_s(stages: Sequence[dict[str, Expected]]) -> float:
        return sum(each.cpu_s for stage in stages for each in stage.values())


@dataclass(frozen=True, slots=True)
class Turn:
    """A network's turn in a call: whether the call has already been let in, the seconds that later
    stages will take, and the CPU seconds that are still promised for the call: those are
    nothing that it has to wait for.
    """

    later: bool = False
    ahead_s: float = 0.0
    promised_cpu_s: float = 0.0
    promise: Promise | None = field(default=None, compare=False)

    def deadline(self, deadline: float | None, now: float) -> float | None:
        """When this network has to be done, so that the call can be."""
        if deadline is None or not self.ahead_s:
            return deadline
        return deadline - min(self.ahead_s, MOST_FOR_LATER * max(0.0, deadline - now))


ALONE = Turn()

current_promise: ContextVar[Promise | None] = ContextVar("current_promise", default=None)
