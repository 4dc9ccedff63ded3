"""How much longer requests take than was estimated when they were let in.

An estimate is right on average, and half of all requests take longer. Who is promised an answer by
a deadline wants to be among the many that keep it, so what is estimated is stretched by the factor
that all but a few stayed below. The factor is a quantile, tracked without any history: it rises
after every request that took longer, and falls after the others by so much less that both balance
where the wanted share is above it (Robbins and Monro 1951, stochastic approximation).
"""

from __future__ import annotations

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


class Lateness:
    """One network's."""

    def __init__(self) -> None:
        self.factor = FIRST

    def observe(self, expected_s: float, taken_s: float) -> None:
        """A request that was expected to take `expected_s` seconds took `taken_s`; infinity for one
        that its deadline cut off.
        """
        if expected_s < SHORT_S:
            return
        if taken_s > self.factor * expected_s:
            self.factor = min(MOST, self.factor * (1.0 + STEP))
        else:
            self.factor = max(LEAST, self.factor * (1.0 - STEP * MISSED / (1.0 - MISSED)))
