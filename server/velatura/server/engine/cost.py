"""Learns what a batch costs, t(work) = a × work + b seconds, from every run: the scheduler's
crystal ball.

`work` counts items in units of the warm-up's item: 1 for networks of fixed size, the ratio of
pixels for networks with free height and width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# Before so many runs the costs of an item and of a batch are not told apart well enough.
LEARNED_RUNS = 16
# Less than this share of an item's time is not worth making others wait for it.
WORTHWHILE = 0.02
# A batch of so few is never split: what is learned of an item is too rough for that.
SMALLEST_LIMIT = 4


@dataclass(slots=True)
class CostModel:
    """Least squares over exponentially fading moments; needs no history and follows a machine that
    slows down.
    """

    weight: float = 0.1  # of the newest run, once there are enough
    a: float = 0.0  # seconds per unit of work
    b: float = 0.0  # seconds per run
    runs: int = 0
    _work: float = 0.0
    _time: float = 0.0
    _work2: float = 0.0
    _work_time: float = 0.0

    def estimate(self, work: float, runs: float = 1.0) -> float:
        """Seconds for `work` units in `runs` batches; 0 before the first observation."""
        return self.a * work + self.b * runs

    def economical(self, most: int, work: float) -> int:
        """Items of `work` each that a batch may hold before one more no longer pays: up to `most`.

        An item takes a + b/n in a batch of n. Where even twice as many would save less than
        `WORTHWHILE` of that, a larger batch only makes its first items wait for its last.
        """
        if self.runs < LEARNED_RUNS or self.a <= 0.0:
            return most
        enough = math.ceil(self.b / (2.0 * WORTHWHILE * self.a * work)) if work > 0.0 else most
        return min(most, max(SMALLEST_LIMIT, enough))

    def observe(self, work: float, seconds: float) -> None:
        """Learn from one run."""
        if self.runs:
            # One stall of the machine must not teach that the network has become slow: growth is at
            # most fourfold a run, which a true slowdown still reaches in a few.
            seconds = min(seconds, 4.0 * self.estimate(work) + 1e-3)
        self.runs += 1
        share = max(self.weight, 1.0 / self.runs)  # a plain mean at first
        self._work += share * (work - self._work)
        self._time += share * (seconds - self._time)
        self._work2 += share * (work * work - self._work2)
        self._work_time += share * (work * seconds - self._work_time)
        self._fit()

    def _fit(self) -> None:
        variance = self._work2 - self._work * self._work
        if variance > 1e-3 * self._work2:
            self.a = max(0.0, (self._work_time - self._work * self._time) / variance)
        elif self.runs == 1:
            self.a = self._time / self._work
        # Without spread in the sizes the slope stays as it was, and only the level follows.
        self.b = self._time - self.a * self._work
        if self.b < 0.0:
            self.a, self.b = self._time / self._work, 0.0
