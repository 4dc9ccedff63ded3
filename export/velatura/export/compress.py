"""Stores the weights of a graph in half the bytes; it still computes in float32.

Each large float32 constant becomes a float16 one behind a Cast, which every runtime folds when it
loads the graph: no difference in speed, and none in results where the weights were rounded to
float16 before. The file is what gets smaller, not the memory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from velatura.export.errors import ExportError

_LEAST = 1024  # elements; below, a Cast costs more than it saves
_LARGEST = float(np.finfo(np.float16).max)


def halve_weights(path: Path, name: str) -> None:
    """Rewrite the ONNX file in place.

    Raises ExportError when a weight lies outside float16's range (±65,504).
    """
    model = onnx.load(path)
    kept, casts = [], []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != onnx.TensorProto.FLOAT or values.size < _LEAST:
            kept.append(tensor)
            continue
        if np.abs(values).max() > _LARGEST:
            raise ExportError(
                f"{name}: a weight of {tensor.name!r} is beyond float16's ±65504; "
                "store this network in float32"
            )
        stored = f"{tensor.name}.half"
        kept.append(numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(
            onnx.helper.make_node(
                "Cast",
                [stored],
                [tensor.name],
                name=f"{tensor.name}.widen",
                to=onnx.TensorProto.FLOAT,
            )
        )
    nodes = [*casts, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def widen_weights(path: Path, out: Path) -> None:
    """Write the graph to `out` with the weights that `halve_weights` stored in float32 again."""
    model = onnx.load(path)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes, narrow = [], set()
    for node in model.graph.node:
        if node.op_type != "Cast" or node.input[0] not in stored:
            nodes.append(node)
            continue
        values = numpy_helper.to_array(stored[node.input[0]]).astype(np.float32)
        stored[node.output[0]] = numpy_helper.from_array(values, node.output[0])
        narrow.add(node.input[0])
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(t for name, t in stored.items() if name not in narrow)
    model.graph.node.extend(nodes)
    out.write_bytes(model.SerializeToString(deterministic=True))
