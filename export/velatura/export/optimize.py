"""Makes a traced graph lean and portable: folded, without trace debris, in standard operators.

The result depends on the graph alone, so that the same weights give the same bytes (on the same
versions and kind of processor: folding rounds as the machine does).
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime as ort
import onnxslim

from velatura.export.errors import ExportError
from velatura.export.sharing import share_duplicates


def optimize(path: Path, name: str, *, half: bool = False) -> None:
    """Rewrite the ONNX file in place.

    onnxruntime's basic level folds constants (up-sampling kernels, scaled weights, batch norms) and
    stays within standard operators; onnxslim then merges equal nodes and drops dead ones, and what
    is left twice of the weights is shared. Of a
    graph in float16 (`half`) onnxruntime would save what its CPU can run, casts around every
    operator, so onnxslim folds alone.
    Raises ExportError when work on constants or an operator of one runtime only is left.
    """
    traced = onnx.load(path)
    ir_version, opsets = traced.ir_version, list(traced.opset_import)
    _strip(traced)
    model = traced if half else _fold_constants(traced, path)
    model = onnxslim.slim(model)
    share_duplicates(model)
    _strip(model)
    model.ir_version = ir_version
    del model.opset_import[:]
    model.opset_import.extend(o for o in opsets if o.domain in ("", "ai.onnx"))
    require_portable(model, name)
    require_folded(model, name)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _fold_constants(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    folded = path.with_suffix(".folded.onnx")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result = onnx.load(folded)
    folded.unlink()
    return result


def _strip(model: onnx.ModelProto) -> None:
    """Take out what describes the machine that traced it: stack traces, file names, versions."""
    model.producer_name = "velatura-export"
    model.producer_version = ""
    model.doc_string = ""
    del model.metadata_props[:]
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    model.graph.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        value.doc_string = ""
        del value.metadata_props[:]
    for tensor in model.graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]


def require_portable(model: onnx.ModelProto, name: str) -> None:
    """Raise ExportError when a node comes from a domain other than standard ONNX."""
    foreign = sorted({f"{n.domain}.{n.op_type}" for n in model.graph.node if n.domain})
    if foreign:
        raise ExportError(f"{name}: operators outside standard ONNX: {', '.join(foreign)}")


def require_folded(model: onnx.ModelProto, name: str) -> None:
    """Raise ExportError when a node computes, at every run, what depends on constants alone."""
    constant = {t.name for t in model.graph.initializer}
    constant |= {n.output[0] for n in model.graph.node if n.op_type == "Constant"}
    left = [
        f"{node.op_type} {node.name!r}"
        for node in model.graph.node
        if node.op_type != "Constant" and all(i in constant for i in node.input if i)
    ]
    if left:
        raise ExportError(f"{name}: {len(left)} nodes work on constants alone: {left[:5]}")
