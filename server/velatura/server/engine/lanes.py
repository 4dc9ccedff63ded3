"""The ways to run one network: alone on all threads, or several runs side by side on one thread
each; and the choice between them by what they are known to cost.

A lane with many threads answers a lone request soonest; lanes of one thread lose nothing to
synchronisation and answer most requests a second. Both compete for the same CPUs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from numpy.typing import NDArray

from velatura.server.engine.cost import CostModel
from velatura.server.engine.shape_queue import Tensors

Run: TypeAlias = Callable[[Mapping[str, NDArray[Any]]], Tensors]

# A lane that has not run for so long while another did is tried again: only runs correct an
# estimate, and one slow phase must not rule a lane out for ever.
FORGOTTEN_S = 5.0
# The wide lane has to win by so much: side by side the first answers come sooner for the same time.
WIDE_GAIN = 0.97


@dataclass(eq=False, slots=True)
class Lane:
    """One way to run a network: `threads` CPUs for each run (0 where none are taken, as on a GPU),
    `places` runs at a time, and what its runs have been seen to cost. `ends` where a run is known
    to end, whatever its inputs.
    """

    name: str
    run: Run
    threads: int = 0
    places: int = 1
    cost: CostModel = field(default_factory=CostModel)
    ends: bool = False
    running: int = 0
    last_run: float = field(default_factory=time.monotonic)  # warm-up counts

    @property
    def free(self) -> int:
        """Runs that may begin now."""
        return self.places - self.running

    def makespan(self, chunks: float, items: float, work: float, rows: int, places: int) -> float:
        """Seconds until so many chunks are done that together hold `items` and `work`, shared
        evenly by `places` runs of at most `rows` items.
        """
        side_by_side = min(places, self.places, max(1, math.ceil(chunks)))
        runs = math.ceil(items / side_by_side / rows)
        return self.cost.estimate(work / side_by_side, max(1, runs))


class Lanes:
    """The lanes of one network, widest first."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = sorted(lanes, key=lambda lane: -lane.threads)

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes)

    @property
    def wide(self) -> Lane:
        """For a request alone."""
        return self._lanes[0]

    @property
    def narrow(self) -> Lane:
        """For a crowd; the same as `wide` where there is one lane."""
        return self._lanes[-1]

    @property
    def most_places(self) -> int:
        """Threads that runs can occupy at a time."""
        return sum(lane.places for lane in self._lanes)

    def choose(
        self, demand: float, item: float, work: float, rows: int, cpus_free: int, now: float
    ) -> Lane | None:
        """The lane for the next run; None where no lane can begin one.

        `demand` counts the chunks that want the CPUs now or are known to come back soon; a chunk
        has on average `item` items and `work` work. `cpus_free` is what the gate would let go.
        """
        open_now = [lane for lane in self._lanes if lane.free and lane.threads <= cpus_free]
        if len(open_now) < 2 or self.wide is self.narrow:
            return open_now[0] if open_now else None
        forgotten = self._forgotten(now)
        if forgotten in open_now:
            return forgotten
        places = cpus_free // max(1, self.narrow.threads)
        wide = self.wide.makespan(demand, demand * item, demand * work, rows, 1)
        narrow = self.narrow.makespan(demand, demand * item, demand * work, rows, places)
        return self.wide if wide < WIDE_GAIN * narrow else self.narrow

    def _forgotten(self, now: float) -> Lane | None:
        oldest = min(self._lanes, key=lambda lane: lane.last_run)
        newest = max(lane.last_run for lane in self._lanes)
        if newest - oldest.last_run > FORGOTTEN_S and now - newest < FORGOTTEN_S:
            return oldest
        return None

    def soonest(self, work: float, runs: int) -> float:
        """Seconds that a request of `work` in `runs` batches takes on an idle machine."""
        seconds = math.inf
        for lane in self._lanes:  # asked for every chunk that waits, at every run
            seconds = min(seconds, lane.cost.estimate(work, runs) / min(lane.places, max(1, runs)))
        return seconds

    def cpu_seconds(self, work: float, runs: float) -> float:
        """CPU seconds that `work` in `runs` batches takes under load; where lanes take no CPUs,
        seconds of a place.
        """
        return self.narrow.cost.estimate(work, runs) * max(1, self.narrow.threads)


def single(run: Run, places: int, cost: CostModel | None = None) -> list[Lane]:
    """The one lane of a network that knows no other: a device of its own."""
    return [Lane("device", run, 0, places, cost or CostModel())]
