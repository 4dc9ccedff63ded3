"""Warming a network up: runs of every size that will come, which also tell what they cost."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from velatura.server.engine.shape_queue import Tensors
from velatura.v1.bundle_pb2 import ModelEntry, TensorSpec

# The extent of free axes (height and width of style networks) that work is counted in: an item of
# this size is 1.
UNIT_EXTENT = 128
# In-between batch sizes are warmed too where one item takes less than this.
CHEAP_SECONDS = 0.02
# A run that takes longer is not repeated for the sake of a better measurement.
DEAR_SECONDS = 0.25


class Runs(Protocol):
    """What can be warmed."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        """Outputs by name."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What to warm up: batches of `batches` items (every one of them), or where there are none of 1
    and `most` and, on networks that are cheap, of powers of two in between; each for every extent
    of `sides` where height and width are free. `brief` runs no size but the first a second time.
    """

    most: int
    batches: tuple[int, ...] = ()
    sides: tuple[int, ...] = (UNIT_EXTENT,)
    brief: bool = False


def warm_up(session: Runs, entry: ModelEntry, sizes: Sizes) -> list[tuple[float, float]]:
    """Run batches of all `sizes`; raises DeviceFailed.

    Returns (work, seconds) of each, without the first run's allocations: what the cost model starts
    from.
    """
    free = any(free_axes(spec) for spec in entry.inputs)
    timings = []
    for side in sizes.sides if free else sizes.sides[:1]:
        first = sizes.batches[0] if sizes.batches else 1
        seconds = _timed(session, inputs := sample_inputs(entry, first, side))
        timings.append((_work(entry, inputs), seconds))
        for batch in _others(sizes, first, seconds < CHEAP_SECONDS and not sizes.brief):
            inputs = sample_inputs(entry, batch, side)
            seconds = _timed(session, inputs, 1 if sizes.brief else 2)
            timings.append((_work(entry, inputs), seconds))
    return timings


def _others(sizes: Sizes, first: int, cheap: bool) -> Iterable[int]:
    if sizes.batches:
        return sizes.batches[1:]
    between = [1 << power for power in range(1, sizes.most.bit_length())] if cheap else []
    return sorted({*between, sizes.most} - {first})


def _timed(session: Runs, inputs: Tensors, times: int = 2) -> float:
    for _ in range(times):
        started = time.monotonic()
        session.run(inputs)
        seconds = time.monotonic() - started
        if seconds > DEAR_SECONDS:
            break
    return seconds


def _work(entry: ModelEntry, inputs: Tensors) -> float:
    shapes = {name: array.shape for name, array in inputs.items()}
    return len(next(iter(inputs.values()))) * item_work(entry, shapes)


def sample_inputs(entry: ModelEntry, batch: int, side: int = UNIT_EXTENT) -> Tensors:
    """Plausible inputs for `batch` items, the same at every call: for warm-up and for probes of
    health. Free axes have `side`, or the next extent that the network takes.
    """
    rng = np.random.default_rng(0)
    samples: Tensors = {}
    for spec in entry.inputs:
        shape = (batch, *item_shape(spec, side))
        dtype = np.dtype(spec.dtype)
        if dtype.kind != "f":
            samples[spec.name] = np.zeros(shape, dtype)
        elif spec.range_max > spec.range_min:
            samples[spec.name] = rng.uniform(spec.range_min, spec.range_max, shape).astype(dtype)
        else:
            samples[spec.name] = rng.standard_normal(shape).astype(dtype)
    return samples


def item_work(entry: ModelEntry, shapes: Mapping[str, Sequence[int]]) -> float:
    """What one item costs in units of an item of `UNIT_EXTENT`, by the elements of inputs with free
    extents; 1 without any.

    `shapes` holds the inputs' shapes, batch axis included.
    """
    free = [spec for spec in entry.inputs if free_axes(spec)]
    if not free:
        return 1.0
    elements = sum(math.prod(shapes[spec.name][1:]) for spec in free)
    return elements / sum(math.prod(item_shape(spec, UNIT_EXTENT)) for spec in free)


def free_axes(spec: TensorSpec) -> list[int]:
    """Axes besides the batch's whose extent a request may choose."""
    return [axis for axis, extent in enumerate(spec.shape) if axis and extent == -1]


def item_shape(spec: TensorSpec, side: int) -> tuple[int, ...]:
    """Shape of one item, without the batch axis, where free axes are `side` or a little more."""
    step = max(1, spec.multiple_of)
    free = math.ceil(side / step) * step
    return tuple(free if extent == -1 else int(extent) for extent in list(spec.shape)[1:])
