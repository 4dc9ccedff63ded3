"""Gives a foreign ONNX graph the tensors that a role promises: names, layout, ranges, float32.

Everything happens inside the graph, so that whoever serves it need not know how the file was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from velatura.export.onnx_manifest import TensorNote
from velatura.export.specification import FloatArray, Port

_PREFIX = "own/"  # keeps the file's names apart from the role's
_LAST_CHANNELS = (0, 2, 3, 1)  # NCHW → NHWC
_FIRST_CHANNELS = (0, 3, 1, 2)
_IR_VERSION = 8


@dataclass(frozen=True)
class Adapter:
    """One tensor of the role (`port`), the file's name and element type for it, and how its values
    differ."""

    port: Port
    theirs: str
    dtype: int
    """Of onnx.TensorProto."""
    note: TensorNote

    @property
    def picture(self) -> bool:
        return len(self.port.shape) == 4 and self.port.high > self.port.low

    @property
    def integer(self) -> bool:
        return self.dtype in (TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32)

    def scale_and_shift(self) -> tuple[FloatArray, FloatArray]:
        """theirs = ours · scale + shift, by channel of the file [1, 3 or 1, 1, 1]."""
        low, high = self.port.low, self.port.high
        note = self.note
        own_low, own_high = (note.low, note.high) if note.high > note.low else (low, high)
        mean = np.array(note.mean or (0.0,))
        deviation = np.array(note.std or (1.0,))
        gain = (own_high - own_low) / (high - low)
        scale = gain / deviation
        shift = (own_low - low * gain - mean) / deviation
        shape = (1, -1, 1, 1)
        return scale.reshape(shape).astype(np.float32), shift.reshape(shape).astype(np.float32)


def wrap(model: onnx.ModelProto, inputs: Sequence[Adapter], outputs: Sequence[Adapter]) -> bytes:
    """The whole file as bytes, with exactly these inputs and outputs; takes `model` apart."""
    _rename(model.graph)
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    for adapter in inputs:
        before = _Chain(adapter.port.name, f"{adapter.port.name}/in", nodes, constants)
        _to_theirs(before, adapter)
        before.end(_PREFIX + adapter.theirs)
    nodes += model.graph.node
    for adapter in outputs:
        after = _Chain(_PREFIX + adapter.theirs, f"{adapter.port.name}/out", nodes, constants)
        _to_ours(after, adapter)
        after.end(adapter.port.name)
    graph = helper.make_graph(
        nodes,
        "network",
        [_value(adapter.port) for adapter in inputs],
        [_value(adapter.port) for adapter in outputs],
        [*model.graph.initializer, *constants],
        sparse_initializer=model.graph.sparse_initializer,
    )
    wrapped = helper.make_model(
        graph,
        producer_name="velatura-export",
        ir_version=max(model.ir_version, _IR_VERSION),
        opset_imports=[o for o in model.opset_import if o.domain in ("", "ai.onnx")],
    )
    onnx.checker.check_model(wrapped)
    return wrapped.SerializeToString(deterministic=True)


def _rename(graph: onnx.GraphProto) -> None:
    """Put the prefix before every value's name. Names of subgraphs get it too, since they may mean
    values of the graph around them (onnx.compose leaves those as they were)."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = _PREFIX + value.name
    for tensor in graph.initializer:
        tensor.name = _PREFIX + tensor.name
    for sparse in graph.sparse_initializer:
        sparse.values.name = _PREFIX + sparse.values.name
    for node in graph.node:
        for names in (node.input, node.output):
            renamed = [name and _PREFIX + name for name in names]  # "" is an input left out
            del names[:]
            names.extend(renamed)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _rename(inner)


class _Chain:
    """Nodes one after the other, each working on the result of the one before."""

    def __init__(
        self,
        start: str,
        scope: str,
        nodes: list[onnx.NodeProto],
        constants: list[onnx.TensorProto],
    ) -> None:
        self._value = start
        self._scope = scope
        self._nodes = nodes
        self._constants = constants

    def add(self, operator: str, *constants: npt.NDArray[Any], **attributes: Any) -> None:
        place = len(self._nodes)
        names = [f"{self._scope}/{place}/{i}" for i in range(len(constants))]
        self._constants += map(numpy_helper.from_array, constants, names)
        result = f"{self._scope}/{place}"
        self._nodes.append(
            helper.make_node(operator, [self._value, *names], [result], result, **attributes)
        )
        self._value = result

    def end(self, name: str) -> None:
        self._nodes.append(helper.make_node("Identity", [self._value], [name], f"{self._scope}/="))


def _to_theirs(chain: _Chain, adapter: Adapter) -> None:
    if adapter.picture:
        if adapter.note.bgr:
            chain.add("Gather", np.array([2, 1, 0]), axis=1)
        scale, shift = adapter.scale_and_shift()
        if np.any(scale != 1):
            chain.add("Mul", scale)
        if np.any(shift != 0):
            chain.add("Add", shift)
    if adapter.integer:  # to the nearest; conversion alone would round towards zero
        chain.add("Add", np.array(0.5, np.float32))
        chain.add("Floor")
    if adapter.dtype != TensorProto.FLOAT:
        chain.add("Cast", to=adapter.dtype)
    if adapter.note.layout == "NHWC":
        chain.add("Transpose", perm=_LAST_CHANNELS)


def _to_ours(chain: _Chain, adapter: Adapter) -> None:
    if adapter.note.layout == "NHWC":
        chain.add("Transpose", perm=_FIRST_CHANNELS)
    if adapter.dtype != TensorProto.FLOAT:
        chain.add("Cast", to=TensorProto.FLOAT)
    if not adapter.picture:
        return
    scale, shift = adapter.scale_and_shift()
    if np.any(shift != 0):
        chain.add("Sub", shift)
    if np.any(scale != 1):
        chain.add("Div", scale)
    if adapter.note.bgr:
        chain.add("Gather", np.array([2, 1, 0]), axis=1)
    # A network may overshoot a little; the role promises its range.
    chain.add("Max", np.array(adapter.port.low, np.float32))
    chain.add("Min", np.array(adapter.port.high, np.float32))


def _value(port: Port) -> onnx.ValueInfoProto:
    axes = iter(("height", "width"))
    shape: list[str | int] = ["batch"]
    shape += [next(axes, f"axis{i}") if e == -1 else e for i, e in enumerate(port.shape[1:], 1)]
    return helper.make_tensor_value_info(port.name, TensorProto.FLOAT, shape)


def feed(adapter: Adapter, value: FloatArray) -> npt.NDArray[Any]:
    """The same by numpy, for one item or several: what the file as it is takes for `value`."""
    if adapter.picture:
        scale, shift = adapter.scale_and_shift()
        turned = value[:, ::-1] if adapter.note.bgr else value
        value = turned * scale + shift
    if adapter.integer:
        value = np.floor(value + np.float32(0.5))
    cast = value.astype(helper.tensor_dtype_to_np_dtype(adapter.dtype))
    return cast.transpose(_LAST_CHANNELS) if adapter.note.layout == "NHWC" else cast


def result(adapter: Adapter, value: npt.NDArray[Any]) -> FloatArray:
    """The role's tensor for what the file as it is gives."""
    first = value.transpose(_FIRST_CHANNELS) if adapter.note.layout == "NHWC" else value
    floats = first.astype(np.float32)
    if not adapter.picture:
        return floats
    scale, shift = adapter.scale_and_shift()
    back = (floats - shift) / scale
    turned = back[:, ::-1] if adapter.note.bgr else back
    clipped: FloatArray = np.clip(turned, adapter.port.low, adapter.port.high)
    return clipped
