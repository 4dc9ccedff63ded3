"""What an ONNX file needs: tensors, operators, parameters, operations and memory, from the graph.

Nothing is run. Operations count products and sums of convolutions and matrix products, as torch's
counter does; memory is the weights and, for each batch, the most that intermediate tensors hold at
once when each is freed after its last use. onnxruntime's scratch space comes on top.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxslim
from onnx import TensorProto, helper, shape_inference

from velatura.export.errors import ExportError
from velatura.export.specification import Size

FREE_SIZE: Size = (256, 256)
BATCHES = (1, 4, 8, 16)
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Tensor:
    """An input or output; -1 where an extent is free."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Inspection:
    """What a graph needs."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    opset: int
    operators: Mapping[str, int]
    """Nodes by kind, most frequent first."""
    parameters: int
    weight_bytes: int
    """In memory once loaded, where weights stored in float16 for float32 are wide again."""
    flops: int
    """For one item, of height and width `size` where they are free."""
    activation_bytes: Mapping[int, int]
    """The most that intermediate tensors hold at once, by batch."""
    size: Size | None

    def memory_bytes(self, batch: int) -> int:
        """Weights and intermediate tensors."""
        return self.weight_bytes + self.activation_bytes[batch]


def inspect_graph(
    path: Path, batches: Sequence[int] = BATCHES, size: Size = FREE_SIZE
) -> Inspection:
    """Read the file and follow its shapes, with `size` for free heights and widths.

    Raises ExportError when it is not an ONNX file or its shapes cannot be followed.
    """
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # a parser's, a checker's or the system's
        raise ExportError(f"{path}: not an ONNX file that can be read: {error}") from error
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    inputs = tuple(_tensor(value) for value in graph.input if value.name not in weights)
    free = any(-1 in tensor.shape[1:] for tensor in inputs)
    activations, flops = {}, 0
    for batch in sorted({1, *batches}):
        flat, shapes, types = _followed(path, _fixed(model, inputs, batch, size))
        constant = {tensor.name for tensor in flat.initializer}
        activations[batch] = _peak(flat, shapes, types, constant)
        if batch == 1:
            flops = sum(_flops(node, shapes) for node in flat.node)
    widened = {n.input[0] for n in graph.node if n.op_type == "Cast" and n.input[0] in weights}
    return Inspection(
        inputs=inputs,
        outputs=tuple(_tensor(value) for value in graph.output),
        opset=next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0),
        operators=dict(Counter(node.op_type for node in graph.node).most_common()),
        parameters=sum(math.prod(tensor.dims) for tensor in weights.values()),
        weight_bytes=sum(
            math.prod(t.dims) * (4 if t.name in widened else _width(t.data_type))
            for t in weights.values()
        ),
        flops=flops,
        activation_bytes={batch: activations[batch] for batch in batches},
        size=size if free else None,
    )


def _tensor(value: Any) -> Tensor:
    kind = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
    return Tensor(value.name, helper.tensor_dtype_to_np_dtype(kind.elem_type).name, shape)


def _width(data_type: int) -> int:
    """Bytes of an element."""
    if data_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        return 0
    return int(helper.tensor_dtype_to_np_dtype(data_type).itemsize)


def _fixed(model: Any, inputs: Sequence[Tensor], batch: int, size: Size) -> Any:
    """A copy whose inputs have all their extents."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    free = {tensor.name: tensor.shape for tensor in inputs}
    for value in fixed.graph.input:
        if value.name not in free:
            continue
        spatial = iter(size)
        dims = value.type.tensor_type.shape.dim
        for axis, extent in enumerate(free[value.name]):
            if extent == -1:
                dims[axis].dim_value = batch if axis == 0 else next(spatial)
    # What was declared for a free batch would otherwise stand beside what is found for this one.
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    return fixed


def _followed(path: Path, fixed: Any) -> tuple[Any, dict[str, tuple[int, ...]], dict[str, int]]:
    """The graph, and shape and element type of every tensor by name."""
    graph, shapes, types = _infer(path, fixed)
    if _unknown(graph, shapes):
        # Shapes that the graph itself computes are constants now, and folding finds them.
        graph, shapes, types = _infer(path, onnxslim.slim(fixed))
    if unknown := _unknown(graph, shapes):
        raise ExportError(f"{path}: shapes cannot be followed past {', '.join(unknown[:3])}")
    return graph, shapes, types


def _infer(path: Path, fixed: Any) -> tuple[Any, dict[str, tuple[int, ...]], dict[str, int]]:
    try:
        graph = shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True).graph
    except Exception as error:  # onnx raises its own kinds, all about the graph
        raise ExportError(f"{path}: its shapes do not fit together: {error}") from error
    shapes, types = {}, {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        types[value.name] = kind.elem_type
        if all(d.HasField("dim_value") for d in kind.shape.dim):
            shapes[value.name] = tuple(d.dim_value for d in kind.shape.dim)
    for tensor in graph.initializer:
        shapes[tensor.name], types[tensor.name] = tuple(tensor.dims), tensor.data_type
    return graph, shapes, types


def _unknown(graph: Any, shapes: Shapes) -> list[str]:
    return [
        f"{node.op_type} {node.name!r}"
        for node in graph.node
        if any(name and name not in shapes for name in node.output)
    ]


def _peak(graph: Any, shapes: Shapes, types: Mapping[str, int], constant: set[str]) -> int:
    """Bytes of intermediate tensors at the fullest moment, nodes in the graph's order."""
    last = {name: i for i, node in enumerate(graph.node) for name in node.input}
    last |= {value.name: len(graph.node) for value in graph.output}
    held = {
        value.name: _bytes(value.name, shapes, types)
        for value in graph.input
        if value.name not in constant
    }
    peak = sum(held.values())
    for i, node in enumerate(graph.node):
        if node.op_type == "Constant" or all(name in constant for name in node.input if name):
            constant = constant | set(node.output)  # computed once, when the graph is loaded
            continue
        held |= {name: _bytes(name, shapes, types) for name in node.output if name}
        peak = max(peak, sum(held.values()))
        held = {name: size for name, size in held.items() if last.get(name, -1) > i}
    return peak


def _bytes(name: str, shapes: Shapes, types: Mapping[str, int]) -> int:
    return math.prod(shapes[name]) * _width(types[name])


def _flops(node: Any, shapes: Shapes) -> int:
    """Two for each product that is summed; nothing for element-wise work."""
    if node.op_type in ("Conv", "ConvTranspose"):
        kernel = shapes[node.input[1]]
        # A convolution's kernel is laid over each output, a transposed one's over each input.
        over = node.output[0] if node.op_type == "Conv" else node.input[0]
        places = math.prod(shapes[over][2:]) * shapes[over][0]
        return 2 * math.prod(kernel) * places
    if node.op_type in ("MatMul", "Gemm"):
        left = shapes[node.input[0]]
        turned = any(a.name == "transA" and a.i for a in node.attribute)
        depth = left[-2] if turned else left[-1]
        return 2 * math.prod(shapes[node.output[0]]) * depth
    return 0
