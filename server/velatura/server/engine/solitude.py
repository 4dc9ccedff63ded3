"""Whether a run may happen on the event loop's own thread, which saves two hand-overs between
threads: a tenth of a short run.

It keeps the loop from everybody else, so it is for a caller who has the machine for himself, and
for short runs of networks that are known to end. While the loop is held nobody can be seen coming:
so every few runs one takes place on a thread, and company that shows meanwhile, or at any other
time, ends the solitude.
"""

from __future__ import annotations

from velatura.server.engine.gate import Gate
from velatura.server.engine.lanes import Lane
from velatura.server.engine.shape_queue import Chunk

# Runs in a row without company until nobody else is expected.
CALM_RUNS = 16
# One run in so many is on a thread all the same.
LOOK_EVERY = 8
# Longest run by the estimate: a question after the server's health waits no longer for its answer.
SHORT_S = 0.015


class Solitude:
    """One network's; the machine is watched through its gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._calm = 0
        self._since_look = 0

    def allows(self, chunks: list[Chunk], lane: Lane) -> bool:
        """Whether `chunks`, just taken from the queue, may run in `lane` on the loop's thread."""
        if not self._alone(len(chunks)):
            self._calm = 0
            return False
        if self._calm < CALM_RUNS or not lane.ends or lane.cost.estimate(chunks[0].work) > SHORT_S:
            return False
        self._since_look = (self._since_look + 1) % LOOK_EVERY
        return self._since_look > 0

    def ended(self, chunks: list[Chunk]) -> None:
        """A run on a thread has ended; its `chunks` still count as outstanding."""
        self._calm = self._calm + 1 if self._alone(len(chunks)) else 0

    def _alone(self, chunks: int) -> bool:
        return chunks == 1 and self._gate.outstanding == 1
