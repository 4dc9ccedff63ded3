"""From a batch's outputs to what each request gets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from velatura.server.engine.shape_queue import Chunk, Tensors

# Larger results than this are joined on a thread, so that the event loop keeps answering.
JOIN_ON_THREAD_BYTES = 1 << 20


def deliver(chunks: Sequence[Chunk], outputs: Tensors) -> None:
    """Give every request its rows of a batch's outputs [items, ...]."""
    start = 0
    for chunk in chunks:
        stop = start + chunk.items
        request = chunk.request
        if not request.settled:
            request.parts[chunk.index] = (
                outputs
                if len(chunks) == 1
                else {name: array[start:stop] for name, array in outputs.items()}
            )  # [items, ...] each
            request.missing -= 1
            if not request.missing:
                request.future.set_result(request.parts)
        start = stop


async def joined(parts: Sequence[Tensors]) -> Tensors:
    """The chunks' outputs as one; what is a single chunk is not copied."""
    if len(parts) == 1:
        return parts[0]

    def join() -> Tensors:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    size = sum(array.nbytes for part in parts for array in part.values())
    return await asyncio.to_thread(join) if size > JOIN_ON_THREAD_BYTES else join()
