"""One batch on a worker thread: put the requests together, run, check, take padding off again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from velatura.server.engine.errors import DeviceFailed, FailureKind
from velatura.server.engine.lanes import Run
from velatura.server.engine.shape_queue import Chunk, Tensors


@dataclass(frozen=True, slots=True)
class Ran:
    """What a batch came to: outputs [items, ...] of `chunks`, the seconds of the run alone, and how
    many items were run besides, for the sake of the size.
    """

    chunks: Sequence[Chunk]
    outputs: Tensors
    seconds: float
    padding: int


def outcome_of(run: Callable[[], Ran]) -> Ran | BaseException:
    """What `run` gives or raises."""
    try:
        return run()
    except BaseException as error:
        return error


def execute(model: str, run: Run, chunks: Sequence[Chunk], sizes: Sequence[int]) -> Ran:
    """Run those of `chunks` that somebody still waits for as one batch, filled up to the next of
    the allowed `sizes` (any size where there are none). Raises DeviceFailed.
    """
    now = time.monotonic()
    chunks = [c for c in chunks if not c.request.settled and not c.request.expired(now)]
    if not chunks:
        return Ran((), {}, 0.0, 0)
    items = sum(chunk.items for chunk in chunks)
    padding = padded(items, sizes) - items
    inputs = _joined(chunks, padding)  # [items + padding, ...] each
    started = time.monotonic()
    outputs = guarded_run(model, run, inputs)
    seconds = time.monotonic() - started
    if padding:
        outputs = {name: array[:items] for name, array in outputs.items()}
    return Ran(chunks, outputs, seconds, padding)


def padded(items: int, sizes: Sequence[int]) -> int:
    """The smallest of the ascending `sizes` that holds `items`; `items` where none does."""
    return next((size for size in sizes if size >= items), items)


def _joined(chunks: Sequence[Chunk], padding: int) -> Tensors:
    """The chunks' inputs one after the other; a single chunk without padding is not copied.

    The last item is repeated for padding: unlike zeros it is certain to be a possible input.
    """
    first = chunks[0].inputs
    if len(chunks) == 1 and not padding:
        return first
    joined = {}
    for name in first:
        parts = [chunk.inputs[name] for chunk in chunks]
        if padding:
            parts.append(np.repeat(parts[-1][-1:], padding, axis=0))
        joined[name] = np.concatenate(parts)
    return joined


def guarded_run(model: str, run: Run, inputs: Tensors) -> Tensors:
    """`run(inputs)`, with every failure as DeviceFailed; outputs have the batch's length."""
    items = len(next(iter(inputs.values())))
    try:
        outputs = run(inputs)
    except DeviceFailed:
        raise
    except Exception as error:  # whatever it is, only this batch may suffer
        detail = f"{type(error).__name__}: {error}"
        raise DeviceFailed(model, FailureKind.EXECUTION, detail) from error
    for name, array in outputs.items():
        if array.shape[:1] != (items,):
            detail = f"output {name!r} has shape {list(array.shape)} for a batch of {items}"
            raise DeviceFailed(model, FailureKind.OUTPUT_SHAPE, detail)
    return outputs
