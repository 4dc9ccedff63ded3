"""Compares the tensors of an ONNX graph with what the manifest says of them, and looks for nodes
that may run for ever."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from velatura.server.engine.errors import BundleError, listing
from velatura.server.engine.providers import load_onnxruntime
from velatura.v1.bundle_pb2 import ModelEntry, TensorSpec

_EXPORT_AGAIN = "Write the bundle again with velatura-export."

# onnxruntime's names of element types, by numpy's.
ORT_TYPES = {
    "float16": "tensor(float16)",
    "float32": "tensor(float)",
    "float64": "tensor(double)",
    "bool": "tensor(bool)",
} | {
    name: f"tensor({name})"
    for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
}


# `NodeProto.op_type` (field 4, a string) of the operators that repeat a part of the graph.
_REPEATING = tuple(bytes((4 << 3 | 2, len(name))) + name for name in (b"Loop", b"Scan"))


def ends(file: Path) -> bool:
    """Whether every run of the graph in `file` is known to end: none of its nodes repeats anything.

    The file is searched, not parsed: weights that happen to hold the same bytes make it say no, and
    so does a file that is not there.
    """
    if not file.is_file():
        return False
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return all(data.find(node) < 0 for node in _REPEATING)


def check_graph(file: Path, entry: ModelEntry) -> None:
    """Raise BundleError where the graph in `file` has other inputs or outputs than `entry`
    declares.
    """
    ort = load_onnxruntime()
    options = ort.SessionOptions()
    options.graph_optimization_level = (
        ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    )  # only its tensors are asked
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(
            str(file), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise BundleError(
            str(file),
            "graph",
            expected="an ONNX graph that onnxruntime can load",
            found=str(error),
            remedy=_EXPORT_AGAIN,
        ) from error
    _compare(str(file), "inputs", session.get_inputs(), entry.inputs)
    _compare(str(file), "outputs", session.get_outputs(), entry.outputs)


def _compare(file: str, kind: str, nodes: Sequence[Any], specs: Sequence[TensorSpec]) -> None:
    names = [node.name for node in nodes]
    declared = [spec.name for spec in specs]
    if sorted(names) != sorted(declared):
        raise _mismatch(file, kind, listing(declared), listing(names))
    by_name = {node.name: node for node in nodes}
    for spec in specs:
        node = by_name[spec.name]
        at = f"{kind} {spec.name!r}"
        if node.type != ORT_TYPES[spec.dtype]:
            raise _mismatch(file, f"{at} dtype", ORT_TYPES[spec.dtype], str(node.type))
        if not _shapes_agree(list(spec.shape), list(node.shape)):
            raise _mismatch(file, f"{at} shape", str(list(spec.shape)), str(list(node.shape)))


def _shapes_agree(declared: list[int], found: list[int | str | None]) -> bool:
    """Whether ranks are equal, and extents where the graph fixes one.

    A graph may leave free what the manifest fixes (exporters often lose an extent of an output),
    but a free batch axis of the manifest must be free in the graph too, or every batch but one
    would fail.
    """
    if len(declared) != len(found):
        return False
    return all(
        not isinstance(there, int) or here == there
        for here, there in zip(declared, found, strict=True)
    )


def _mismatch(file: str, field: str, expected: str, found: str) -> BundleError:
    return BundleError(
        file,
        field,
        expected=f"{expected} (the manifest)",
        found=f"{found} (the graph)",
        remedy=_EXPORT_AGAIN,
    )
