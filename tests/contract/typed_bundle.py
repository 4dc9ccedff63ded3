"""A bundle of one network that takes and gives the element types that no embedded network has."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import onnx
from onnx import TensorProto, helper

# Input, its element type, the operator that makes its output, and onnx's name for the type.
TENSORS = [
    ("half", "float16", "Neg", TensorProto.FLOAT16),
    ("pixels", "uint8", "Identity", TensorProto.UINT8),
    ("places", "int64", "Neg", TensorProto.INT64),
    ("narrow", "int8", "Neg", TensorProto.INT8),
    ("flags", "bool", "Not", TensorProto.BOOL),
]


def write_typed_bundle(root: Path) -> Path:
    """Write it; the network "types" gives `X_out` [N, *] for every `X` [N, *] of `TENSORS`."""
    nodes = [helper.make_node(op, [name], [f"{name}_out"]) for name, _, op, _ in TENSORS]
    values = {
        suffix: [
            helper.make_tensor_value_info(f"{name}{suffix}", kind, ["N", f"{name}_length"])
            for name, _, _, kind in TENSORS
        ]
        for suffix in ("", "_out")
    }
    graph = helper.make_graph(nodes, "types", values[""], values["_out"])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    file = root / "types.onnx"
    onnx.save(model, file)
    specs = {
        suffix: [
            {"name": f"{name}{suffix}", "dtype": dtype, "shape": [-1, -1]}
            for name, dtype, _, _ in TENSORS
        ]
        for suffix in ("", "_out")
    }
    entry = {
        "name": "types",
        "version": "3",
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "inputs": specs[""],
        "outputs": specs["_out"],
    }
    manifest = {"schema_version": 1, "name": "types", "models": [entry]}
    (root / "manifest.json").write_text(json.dumps(manifest))
    return root
