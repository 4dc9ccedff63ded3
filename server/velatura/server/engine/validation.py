"""Checks a request's tensors against the manifest before they queue, so that no batch-mate pays for
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velatura.server.engine.errors import InvalidTensor, listing
from velatura.server.engine.finite import is_finite
from velatura.v1.bundle_pb2 import ModelEntry, TensorSpec


def check_inputs(entry: ModelEntry, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """`inputs` as C-contiguous arrays (the same ones where they already are), in the graph's order.

    Checks names, element types, ranks, extents and the common batch axis; raises InvalidTensor.
    Values are `check_finite`'s part.
    """
    declared = [spec.name for spec in entry.inputs]
    for name in inputs:
        if name not in declared:
            raise InvalidTensor(entry.name, name, f"one of {listing(declared)}", "an unknown name")
    arrays = {}
    for spec in entry.inputs:
        if spec.name not in inputs:
            raise InvalidTensor(entry.name, spec.name, describe(spec), "nothing")
        array = inputs[spec.name]
        problem = _problem(spec, array)
        if problem:
            raise InvalidTensor(entry.name, spec.name, describe(spec), problem)
        arrays[spec.name] = np.ascontiguousarray(array)
    _check_batch(entry, arrays)
    return arrays


def check_finite(entry: ModelEntry, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise InvalidTensor where a floating-point input has NaN or infinity: one pass over the
    memory.
    """
    for name, array in arrays.items():
        if not is_finite(array):
            raise InvalidTensor(entry.name, name, "finite numbers", "NaN or infinity")


def describe(spec: TensorSpec) -> str:
    """What the manifest asks of a tensor, such as `float32 [N, 3, *, *] (free extents in multiples
    of 4)`.
    """
    extents = ["N", *("*" if extent == -1 else str(extent) for extent in list(spec.shape)[1:])]
    multiple = f" (free extents in multiples of {spec.multiple_of})" if spec.multiple_of > 1 else ""
    return f"{spec.dtype} [{', '.join(extents)}]{multiple}"


def _problem(spec: TensorSpec, array: NDArray[Any]) -> str:
    """What is wrong with `array`, empty where nothing is."""
    if not isinstance(array, np.ndarray):
        return type(array).__name__
    if array.dtype != np.dtype(spec.dtype) or array.ndim != len(spec.shape) or 0 in array.shape:
        return _found(array)
    step = max(1, spec.multiple_of)
    for extent, wanted in zip(array.shape[1:], list(spec.shape)[1:], strict=True):
        if wanted not in (-1, extent) or (wanted == -1 and extent % step):
            return _found(array)
    return ""


def _found(array: NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _check_batch(entry: ModelEntry, arrays: Mapping[str, NDArray[Any]]) -> None:
    first, *others = arrays
    items = len(arrays[first])
    for name in others:
        if len(arrays[name]) != items:
            raise InvalidTensor(
                entry.name, name, f"{items} items, as in {first!r}", f"{len(arrays[name])} items"
            )
