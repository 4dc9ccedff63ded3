"""One copy of weights that a graph uses several times.

Folding makes a constant of its own wherever weights are used, so that a network which runs several
times within a graph (ReStyle's passes) would be stored as often.
"""

from __future__ import annotations

import hashlib

import onnx

_LEAST = 1024  # bytes; below, a copy costs nothing


def share_duplicates(model: onnx.ModelProto) -> None:
    """Let all nodes read the first of initialisers that are equal in type, shape and bytes."""
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    replaced: dict[str, str] = {}
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) < _LEAST:
            continue
        content = hashlib.sha256(tensor.raw_data).digest()
        known = first.setdefault((tensor.data_type, tuple(tensor.dims), content), tensor.name)
        if known != tensor.name:
            replaced[tensor.name] = known
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = replaced.get(name, name)
    for index in reversed(range(len(model.graph.initializer))):
        if model.graph.initializer[index].name in replaced:
            del model.graph.initializer[index]
