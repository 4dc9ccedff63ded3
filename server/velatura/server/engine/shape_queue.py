"""What waits for a network: requests, the chunks that they are split into, and the queue by shape.

Plain data without a clock or an event loop; the batcher owns the only instance and touches it from
the loop's thread.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from numpy.typing import NDArray

from velatura.server.observability.record import CallRecord
from velatura.server.observability.tracing import RequestTrace

Tensors: TypeAlias = dict[str, NDArray[Any]]


@dataclass(eq=False, slots=True)
class Request:
    """One call of the engine: `parts` has one place for the outputs of each of its chunks; `record`
    and `trace` are those of the RPC behind it, where there are any.
    """

    items: int
    arrived: float
    deadline: float | None
    future: asyncio.Future[list[Tensors]]
    chunks: list[Chunk] = field(default_factory=list)
    parts: list[Tensors] = field(default_factory=list)
    missing: int = 0
    record: CallRecord | None = None
    trace: RequestTrace | None = None

    @property
    def settled(self) -> bool:
        """Answered, failed or given up by its caller."""
        return self.future.done()

    def expired(self, now: float) -> bool:
        """Whether its deadline has passed."""
        return self.deadline is not None and self.deadline <= now


@dataclass(eq=False, slots=True)
class Chunk:
    """Consecutive items of one request, at most a batch; views of the request's arrays, [items,
    ...] each.
    """

    request: Request
    index: int
    sequence: int
    inputs: Tensors
    items: int
    nbytes: int
    elements: int
    work: float
    shape: Hashable
    alone: bool = False

    @property
    def bucket(self) -> Hashable:
        """What it may share a batch with; a chunk to be run alone shares it with nothing."""
        return (self.shape, self.sequence) if self.alone else self.shape


def shape_of(inputs: Mapping[str, NDArray[Any]]) -> Hashable:
    """Equal for inputs that can be concatenated along the batch axis."""
    return tuple(sorted((name, array.dtype.str, array.shape[1:]) for name, array in inputs.items()))


def split(
    request: Request, inputs: Tensors, first_sequence: int, rows: int, work_per_item: float
) -> list[Chunk]:
    """`request`'s arrays as chunks of at most `rows` items; one chunk is the arrays themselves."""
    shape = shape_of(inputs)
    chunks = []
    for index, start in enumerate(range(0, request.items, rows)):
        stop = min(start + rows, request.items)
        whole = stop - start == request.items
        part = inputs if whole else {name: array[start:stop] for name, array in inputs.items()}
        chunks.append(
            Chunk(
                request=request,
                index=index,
                sequence=first_sequence + index,
                inputs=part,
                items=stop - start,
                nbytes=sum(array.nbytes for array in part.values()),
                elements=sum(array.size for array in part.values()),
                work=work_per_item * (stop - start),
                shape=shape,
            )
        )
    return chunks


class ShapeQueue:
    """Chunks by bucket, each bucket in order of arrival; the oldest head decides which bucket is
    next.
    """

    def __init__(self) -> None:
        self._buckets: dict[Hashable, dict[int, Chunk]] = {}
        self.items = 0
        self.nbytes = 0
        self.work = 0.0

    def __bool__(self) -> bool:
        return bool(self._buckets)

    def __iter__(self) -> Iterator[Chunk]:
        for bucket in self._buckets.values():
            yield from bucket.values()

    def __contains__(self, chunk: Chunk) -> bool:
        return chunk.sequence in self._buckets.get(chunk.bucket, ())

    def push(self, chunk: Chunk) -> None:
        """Put `chunk` behind its bucket."""
        self._buckets.setdefault(chunk.bucket, {})[chunk.sequence] = chunk
        self.items += chunk.items
        self.nbytes += chunk.nbytes
        self.work += chunk.work

    def remove(self, chunk: Chunk) -> bool:
        """Take `chunk` out wherever it stands; False where it is not waiting."""
        bucket = self._buckets.get(chunk.bucket)
        if bucket is None or bucket.pop(chunk.sequence, None) is None:
            return False
        if not bucket:
            del self._buckets[chunk.bucket]
        self.items -= chunk.items
        self.nbytes -= chunk.nbytes
        # Sums of floats drift: an empty queue starts from zero again.
        self.work = self.work - chunk.work if self._buckets else 0.0
        return True

    def heads(self) -> list[Chunk]:
        """The oldest chunk of every bucket, oldest first."""
        return sorted(
            (next(iter(bucket.values())) for bucket in self._buckets.values()),
            key=lambda chunk: chunk.sequence,
        )

    def pick(self, head: Chunk, max_items: int, max_elements: int) -> list[Chunk]:
        """The chunks of `head`'s bucket that go together: `head`, then all that still fit, oldest
        first.

        They stay in the queue. `head` goes however large it is.
        """
        picked: list[Chunk] = []
        items = elements = 0
        for chunk in self._buckets[head.bucket].values():
            if picked and (
                items + chunk.items > max_items or elements + chunk.elements > max_elements
            ):
                continue
            picked.append(chunk)
            items += chunk.items
            elements += chunk.elements
            if items >= max_items:
                break
        return picked

    def batches(self, max_items: int) -> int:
        """How many runs the queue is at least worth."""
        return sum(
            math.ceil(sum(chunk.items for chunk in bucket.values()) / max_items)
            for bucket in self._buckets.values()
        )
