"""A bundle of one class-conditional generator, whose images say what went in."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NAME, CLASSES, Z_DIM, SIZE = "shapes", ("circle", "square", "star"), 4, 8


def write_class_bundle(root: Path) -> Path:
    """Red is the class (-1, 0 or 1), green the mean of z / 4, blue black; all at 8 × 8 px."""
    to_class = np.array([[-1.0, 0, -1], [0, 0, -1], [1, 0, -1]], np.float32)  # [C, RGB]
    to_mean = np.array([[0, 1 / (4 * Z_DIM), 0]] * Z_DIM, np.float32)  # [Z, RGB]
    nodes = [
        helper.make_node("MatMul", ["class_weights", "to_class"], ["by_class"]),
        helper.make_node("MatMul", ["z", "to_mean"], ["by_z"]),
        helper.make_node("Add", ["by_class", "by_z"], ["rgb"]),
        helper.make_node("Unsqueeze", ["rgb", "places"], ["pixels"]),
        helper.make_node("Tile", ["pixels", "repeats"], ["image"]),
    ]
    constants = [
        numpy_helper.from_array(value, name)
        for name, value in (
            ("to_class", to_class),
            ("to_mean", to_mean),
            ("places", np.array([2, 3])),
            ("repeats", np.array([1, 1, SIZE, SIZE])),
        )
    ]
    shapes = {"z": [-1, Z_DIM], "class_weights": [-1, len(CLASSES)], "image": [-1, 3, SIZE, SIZE]}

    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shapes[name][1:]])

    graph = helper.make_graph(
        nodes, NAME, [value("z"), value("class_weights")], [value("image")], constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    file = root / f"{NAME}.onnx"
    onnx.save(model, file)

    def specs(*names: str) -> list[dict[str, object]]:
        return [{"name": name, "dtype": "float32", "shape": shapes[name]} for name in names]

    entry = {
        "name": NAME,
        "version": "1",
        "role": "ROLE_CLASS_GENERATOR",
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "inputs": specs("z", "class_weights"),
        "outputs": specs("image"),
        "labels": CLASSES,
    }
    manifest = {"schema_version": 1, "name": "classes", "models": [entry]}
    (root / "manifest.json").write_text(json.dumps(manifest))
    return root
