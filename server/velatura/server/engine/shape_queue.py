"""What waits for a network: requests, the chunks that they are split into, and the queue by shape.

Plain data without a clock or an event loop; the batcher owns the only instance and touches it from
the loop's thread.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from numpy.typing import NDArray

from velatura.server.engine.standing import NOBODY, Priority, Standing
from velatura.server.observability.record import CallRecord
from velatura.server.observability.tracing import RequestTrace

Tensors: TypeAlias = dict[str, NDArray[Any]]
Flow: TypeAlias = tuple[Priority, str]  # requests of one priority from one caller

# What has waited longer may lead a batch before all that is more urgent, one batch in so many: the
# urgent can delay the others, never starve them.
AGED_S = 1.0
AGED_EVERY = 4


@dataclass(eq=False, slots=True)
class Request:
    """One call of the engine: `parts` has one place for the outputs of each of its chunks; `record`
    and `trace` are those of the RPC behind it, where there are any.
    """

    items: int
    arrived: float
    deadline: float | None
    future: asyncio.Future[list[Tensors]]
    expected_s: float = 0.0  # from its arrival to its answer, by the estimate that let it in
    chunks: list[Chunk] = field(default_factory=list)
    parts: list[Tensors] = field(default_factory=list)
    missing: int = 0
    record: CallRecord | None = None
    trace: RequestTrace | None = None
    standing: Standing = NOBODY

    @property
    def since(self) -> float:
        """When the call behind it arrived."""
        return self.arrived if self.standing.since is None else self.standing.since

    @property
    def flow(self) -> Flow:
        """Whom it shares its place in the queue with."""
        return self.standing.priority, self.standing.caller

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
    pixels: int = 0
    alone: bool = False
    tag: float = -1.0  # its place by fair share, given when it is first queued

    @property
    def order(self) -> tuple[float, int]:
        """Sorts the chunks of one priority."""
        return self.tag, self.sequence

    @property
    def bucket(self) -> Hashable:
        """What it may share a batch with; a chunk to be run alone shares it with nothing."""
        return (self.shape, self.sequence) if self.alone else self.shape


def shape_of(inputs: Mapping[str, NDArray[Any]]) -> Hashable:
    """Equal for inputs that can be concatenated along the batch axis."""
    return tuple(sorted((name, array.dtype.str, array.shape[1:]) for name, array in inputs.items()))


def pixels_of(array: NDArray[Any]) -> int:
    """Pixels of images [N, channels, height, width]; 0 for arrays that are none."""
    return array.size // max(1, array.shape[1]) if array.ndim == 4 else 0


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
                pixels=sum(pixels_of(array) for array in part.values()),
            )
        )
    return chunks


class ShapeQueue:
    """Chunks by bucket, in each by priority and in a priority by fair share between callers.

    Fair share is start-time fair queueing: a chunk's tag is the virtual time at which it would
    start if all callers that wait were served side by side. The tags of one caller grow, so what it
    sends stays in order, and a caller who sends much waits behind itself alone.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, Chunk] = {}
        self._buckets: dict[Hashable, tuple[list[Chunk], ...]] = {}  # lists by priority, by order
        self._bucket_items: Counter[Hashable] = Counter()
        self._flows: dict[Flow, _Share] = {}
        self._virtual = 0.0
        self._batches_since_aged = 0
        self.items = 0
        self.nbytes = 0
        self.pixels = 0
        self.work = 0.0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Chunk]:
        return iter(self._waiting.values())

    def __contains__(self, chunk: Chunk) -> bool:
        return chunk.sequence in self._waiting

    def push(self, chunk: Chunk) -> None:
        """Queue `chunk` behind what its caller has sent; one that was queued before gets its old
        place.
        """
        flow = chunk.request.flow
        share = self._flows.setdefault(flow, _Share(self._virtual))
        if chunk.tag < 0.0:
            chunk.tag = max(self._virtual, share.finish)
            share.finish = chunk.tag + chunk.work
        share.chunks += 1
        share.items += chunk.items
        self._waiting[chunk.sequence] = chunk
        levels = self._buckets.setdefault(chunk.bucket, ([], [], []))
        bisect.insort(levels[flow[0]], chunk, key=_order)
        self._bucket_items[chunk.bucket] += chunk.items
        self.items += chunk.items
        self.nbytes += chunk.nbytes
        self.pixels += chunk.pixels
        self.work += chunk.work

    def remove(self, chunk: Chunk) -> bool:
        """Take `chunk` out wherever it stands; False where it is not waiting."""
        if self._waiting.pop(chunk.sequence, None) is None:
            return False
        flow = chunk.request.flow
        levels = self._buckets[chunk.bucket]
        level = levels[flow[0]]
        del level[bisect.bisect_left(level, chunk.order, key=_order)]
        self._bucket_items[chunk.bucket] -= chunk.items
        if not any(levels):
            del self._buckets[chunk.bucket], self._bucket_items[chunk.bucket]
        share = self._flows[flow]
        share.chunks -= 1
        share.items -= chunk.items
        if not share.chunks:  # who has nothing queued owes nothing
            del self._flows[flow]
        self.items -= chunk.items
        self.nbytes -= chunk.nbytes
        self.pixels -= chunk.pixels
        # Sums of floats drift: an empty queue starts from zero again.
        self.work = self.work - chunk.work if self._waiting else 0.0
        return True

    def take(self, picked: Sequence[Chunk]) -> None:
        """`picked` go to the device: remove them, and let virtual time pass."""
        urgent = min(priority for priority, _ in self._flows)
        led_by_aged = picked[0].request.flow[0] > urgent
        self._batches_since_aged = 0 if led_by_aged else self._batches_since_aged + 1
        for chunk in picked:
            self.remove(chunk)
            self._virtual = max(self._virtual, chunk.tag)

    def heads(self, now: float = -math.inf) -> list[Chunk]:
        """What may lead the next batch, one chunk for every bucket, best first.

        Usually the first by priority and share; now and then one that has waited too long.
        """
        heads = [next(level[0] for level in levels if level) for levels in self._buckets.values()]
        heads.sort(key=lambda chunk: (chunk.request.flow[0], chunk.order))
        if self._batches_since_aged >= AGED_EVERY - 1:
            aged = self._aged(now, heads[0].request.flow[0]) if heads else None
            if aged is not None:
                return [aged, *(head for head in heads if head.bucket != aged.bucket)]
        return heads

    def oldest(self, now: float) -> tuple[Priority, float] | None:
        """Rank of what waits, for the choice between networks: most urgent, then longest on its
        way; None for nothing. Who waits gets more urgent.
        """
        ranks = (
            (Priority(max(0, priority - int((now - since) / AGED_S))), since)
            for priority in {priority for priority, _ in self._flows}
            if (since := min((chunk.request.since for chunk in self._first(priority)), default=now))
        )
        return min(ranks, default=None)

    def _first(self, priority: Priority) -> Iterator[Chunk]:
        return (levels[priority][0] for levels in self._buckets.values() if levels[priority])

    def _aged(self, now: float, urgent: Priority) -> Chunk | None:
        """The longest waiting of the first chunks of less urgent priorities, if long enough."""
        found = (chunk for level in Priority if level > urgent for chunk in self._first(level))
        oldest = min(found, key=lambda chunk: chunk.request.arrived, default=None)
        return oldest if oldest and oldest.request.arrived + AGED_S <= now else None

    def pick(
        self,
        head: Chunk,
        max_items: int,
        max_elements: int,
        fits: Callable[[Sequence[Chunk], Chunk], bool] | None = None,
    ) -> list[Chunk]:
        """The chunks of `head`'s bucket that go together: `head`, then all that still fit, best
        first.

        They stay in the queue. `head` goes however large it is. `fits` may refuse one more chunk
        beside those that are picked.
        """
        picked = [head]
        items, elements = head.items, head.elements
        for chunk in itertools.chain.from_iterable(self._buckets[head.bucket]):
            if items >= max_items:
                break
            if (
                chunk is head
                or items + chunk.items > max_items
                or elements + chunk.elements > max_elements
                or (fits is not None and not fits(picked, chunk))
            ):
                continue
            picked.append(chunk)
            items += chunk.items
            elements += chunk.elements
        return picked

    def waiting_in(self, bucket: Hashable) -> int:
        """Items of one bucket."""
        return self._bucket_items[bucket]

    def batches(self, max_items: int) -> int:
        """How many runs the queue is at least worth."""
        return sum(math.ceil(items / max_items) for items in self._bucket_items.values())

    def work_ahead(self, flow: Flow, work: float) -> float:
        """Work that goes to the device before the last of `work` units of one more request."""
        if len(self._flows) == 1 and flow in self._flows:
            return self.work
        share = self._flows.get(flow)
        last = max(self._virtual, share.finish if share else 0.0) + work
        return sum(
            chunk.work
            for chunk in self._waiting.values()
            if (level := chunk.request.flow[0]) < flow[0] or (level == flow[0] and chunk.tag < last)
        )

    def items_of(self, flow: Flow) -> int:
        """Items that wait for one caller in one priority."""
        share = self._flows.get(flow)
        return share.items if share else 0

    def displaceable(self, request: Request) -> Request | None:
        """What the caller with the most items has sent last, where `request`, not queued yet, has
        more right to the place: it is more urgent, or its caller has fewer items here even with it.
        """
        flows = self._flows
        greedy = max(flows, key=lambda flow: (flow[0], flows[flow].items), default=None)
        if greedy is None or greedy[0] < request.flow[0]:
            return None
        mine = (chunk.request for chunk in reversed(self._waiting.values()))
        victim = next(each for each in mine if each.flow == greedy)
        theirs = flows[greedy].items - victim.items
        fewer = theirs >= self.items_of(request.flow) + request.items
        return victim if greedy[0] > request.flow[0] or fewer else None


@dataclass(eq=False, slots=True)
class _Share:
    """What one flow has queued, and the virtual time at which the last of it would end."""

    finish: float
    chunks: int = 0
    items: int = 0


def _order(chunk: Chunk) -> tuple[float, int]:
    return chunk.order
