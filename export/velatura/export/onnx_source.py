"""Opens a foreign ONNX file and refuses what could not be served: before anything is run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, external_data_helper, inliner

from velatura.export.errors import ExportError

_LEAST_OPSET = 9  # of the operators that are put around the graph
_FILE_LIMIT = 1_900_000_000  # bytes; a protobuf message must stay below 2 GiB
_DOMAINS = ("", "ai.onnx")
ELEMENT_TYPES = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.DOUBLE,
    TensorProto.UINT8,
    TensorProto.INT8,
    TensorProto.INT32,
    TensorProto.INT64,
)


@dataclass(frozen=True)
class GraphTensor:
    """An input or output as the file declares it; extents are -1 where any is allowed."""

    name: str
    dtype: int
    """Of onnx.TensorProto."""
    shape: tuple[int, ...]

    @property
    def described(self) -> str:
        extents = " × ".join("any" if extent == -1 else str(extent) for extent in self.shape)
        return f"{self.name!r} [{extents}]"


def open_source(path: Path) -> onnx.ModelProto:
    """The network with its weights inside. Raises ExportError naming the file and what is wrong:
    damaged, too large, too old, custom operators, or weights outside of its folder."""
    try:
        model = onnx.load(path, load_external_data=False)
        _require_near(path, model)
        external_data_helper.load_external_data_for_model(model, str(path.parent))
        if model.functions:
            model = inliner.inline_local_functions(model)
        onnx.checker.check_model(model)
    except ExportError:
        raise
    except FileNotFoundError as error:
        raise ExportError(f"{error.filename or path}: no such file") from error
    except Exception as error:  # protobuf's, onnx's and the system's have no base in common
        raise ExportError(f"{path}: not a valid ONNX file: {error}") from error
    if model.ByteSize() > _FILE_LIMIT:
        raise ExportError(
            f"{path}: has {model.ByteSize():,} bytes with its weights, the limit is {_FILE_LIMIT:,}"
        )
    _require_opset(path, model)
    _require_standard(path, model)
    return model


def tensors_of(model: onnx.ModelProto, kind: str) -> list[GraphTensor]:
    """The graph's "input"s (without weights that have a default) or "output"s."""
    weights = {tensor.name for tensor in model.graph.initializer}
    values = model.graph.input if kind == "input" else model.graph.output
    found = []
    for value in values:
        if value.name in weights:
            continue
        kinds = value.type.tensor_type
        if not value.type.HasField("tensor_type") or kinds.elem_type not in ELEMENT_TYPES:
            raise ExportError(f"{kind} {value.name!r} is no tensor of numbers")
        shape = tuple(d.dim_value if d.dim_value > 0 else -1 for d in kinds.shape.dim)
        found.append(GraphTensor(value.name, kinds.elem_type, shape))
    return found


def free_batches(model: onnx.ModelProto, tensors: Sequence[GraphTensor]) -> list[str]:
    """Declare the batch axis free where it is fixed to one, and return the inputs that had it so.

    Whether the graph then computes larger batches is for the comparison to find out. Raises
    ExportError for any other fixed batch.
    """
    freed = []
    for tensor in tensors:
        if not tensor.shape:
            raise ExportError(f"input {tensor.name!r} is a single number and has no batch axis")
        if tensor.shape[0] > 1:
            raise ExportError(
                f"input {tensor.described} has a fixed batch of {tensor.shape[0]}; export the "
                "network with a free first axis"
            )
        if tensor.shape[0] == 1:
            freed.append(tensor.name)
    fixed = [value for value in model.graph.input if value.name in freed]
    for value in (*fixed, *model.graph.output):
        axes = value.type.tensor_type.shape.dim
        if axes:
            axes[0].Clear()
            axes[0].dim_param = "batch"
    if freed:
        del model.graph.value_info[:]  # shapes of the one batch
    return freed


def _require_near(path: Path, model: onnx.ModelProto) -> None:
    """Weights in files of their own must lie in the network's folder."""
    folder = path.parent.resolve()
    for tensor in external_data_helper._get_all_tensors(model):
        if not external_data_helper.uses_external_data(tensor):
            continue
        where = external_data_helper.ExternalDataInfo(tensor).location
        if not (folder / where).resolve().is_relative_to(folder):
            raise ExportError(f"{path}: weights of {tensor.name!r} lie outside its folder: {where}")


def _require_opset(path: Path, model: onnx.ModelProto) -> None:
    opset = next((o.version for o in model.opset_import if o.domain in _DOMAINS), 0)
    newest = onnx.defs.onnx_opset_version()
    if not _LEAST_OPSET <= opset <= newest:
        raise ExportError(
            f"{path}: is of opset {opset}; opsets {_LEAST_OPSET} to {newest} are read, so export "
            "it again, with opset 17 for example"
        )


def _require_standard(path: Path, model: onnx.ModelProto) -> None:
    foreign = sorted(
        {f"{n.domain}.{n.op_type}" for n in _nodes(model.graph) if n.domain not in _DOMAINS}
    )
    if foreign:
        raise ExportError(
            f"{path}: operators outside standard ONNX: {', '.join(foreign)}; export the network "
            "without them"
        )


def _stored_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Weights and constants, of subgraphs and functions as well."""
    graphs = [model.graph]
    for graph in graphs:
        yield from graph.initializer
        for node in _own_nodes(graph, model):
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)
                graphs += [inner for inner in (attribute.g, *attribute.graphs) if inner.node]


def _own_nodes(graph: onnx.GraphProto, model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """A graph's nodes; with the main graph those of the file's functions."""
    yield from graph.node
    if graph is model.graph:
        for function in model.functions:
            yield from function.node


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)
