"""When callers of an open loop arrive."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from velatura.client.loadtest.plan import Arrivals


def gaps(rate: float, arrivals: Arrivals, rng: Random) -> Iterator[float]:
    """Seconds between arrivals, without end, `rate` a second on average.

    "poisson" draws them exponentially, as when many callers do not know of each other: several
    within a moment are usual, and that is what queues are for. "even" spaces them alike.
    """
    while True:
        yield rng.expovariate(rate) if arrivals == "poisson" else 1.0 / rate
