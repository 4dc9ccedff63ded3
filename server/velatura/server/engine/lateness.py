"""How much longer requests take than was estimated when they were let in.

An estimate is right on average, and half of all requests take longer. Who is promised an answer by
a deadline wants to be among the many that keep it, so what is estimated is stretched by the factor
that all but a few stayed below. The factor is a quantile, tracked without any history: it rises
after every request that took longer, and falls after the others by so much less that both balance
where the wanted share is above it (Robbins and Monro 1951, stochastic approximation).
"""

from __future__ import annotations

import math

# Where it begins, and where it is kept: the answer has to reach its caller as well.
FIRST, LEAST, MOST = 1.15, 1.08, 4.0
# The share of requests that may take longer.
MISSED = 0.02
# How far one request that did moves the factor: a stall of the machine strikes all that wait at
# once.
STEP = 0.01
# Who is cut off so shortly before the deadline is cut off by it: callers' clocks run ahead.
NEARLY_S = 0.01
# Of requests that do not wait, the time says more about the machine than about the estimate.
SHORT_S = 0.05


# What is above `FIRST` is forgotten by two thirds in so many seconds: where few ask, few could show
# that a machine which was slow for a while no longer is.
FADING_S = 120.0


class Lateness:
    """One network's; moments are on time.monotonic()'s clock."""

    def __init__(self) -> None:
        self._factor = FIRST
        self._changed = -math.inf

    def factor(self, now: float) -> float:
        """What estimates have to be stretched by."""
        above = self._factor - FIRST
        if above <= 0.0:
            return self._factor
        return FIRST + above * math.exp(min(0.0, (self._changed - now) / FADING_S))

    def observe(self, expected_s: float, taken_s: float, now: float) -> None:
        """A request that was expected to take `expected_s` seconds took `taken_s`; infinity for one
        that its deadline cut off.
        """
        if expected_s < SHORT_S:
            return
        factor = self.factor(now)
        if taken_s > factor * expected_s:
            self._factor = min(MOST, factor * (1.0 + STEP))
        else:
            self._factor = max(LEAST, factor * (1.0 - STEP * MISSED / (1.0 - MISSED)))
        self._changed = now
