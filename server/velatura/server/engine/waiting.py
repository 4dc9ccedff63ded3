"""What waits for one network, counted wherever it counts: in its queue, in the backlog of the
server, and among the chunks that the machine's gate has outstanding.
"""

from __future__ import annotations

from collections.abc import Sequence

from velatura.server.engine.gate import Backlog, Gate, Member
from velatura.server.engine.shape_queue import Chunk, Request, ShapeQueue


class Waiting:
    """The only door of `queue`: nobody else puts chunks in or takes them out. `member` is the
    network's scheduler."""

    def __init__(self, queue: ShapeQueue, backlog: Backlog, gate: Gate, member: Member) -> None:
        self._queue = queue
        self._backlog = backlog
        self._gate = gate
        self._member = member

    def put(self, chunk: Chunk) -> None:
        """`chunk` waits."""
        self._queue.push(chunk)
        self._backlog.add(chunk)
        self._gate.queued(1, self._member)

    def take(self, chunks: Sequence[Chunk]) -> None:
        """`chunks` go to the device."""
        self._queue.take(chunks)
        for chunk in chunks:
            self._backlog.remove(chunk)
        self._gate.dispatched(len(chunks))

    def drop(self, request: Request) -> int:
        """`request` does not wait any more; items that it had here."""
        dropped = 0
        for chunk in request.chunks:
            if self._queue.remove(chunk):
                self._backlog.remove(chunk)
                self._gate.queued(-1, self._member)
                dropped += chunk.items
        return dropped
