"""Cost and memory counted from a graph, and two graphs beside each other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from velatura.export.cli import app
from velatura.export.comparison import compare
from velatura.export.cost import count_flops
from velatura.export.errors import ExportError
from velatura.export.inspection import inspect_graph
from velatura.export.specification import NetworkSpec


def _write(path: Path, *, scale: float = 1.0, width: int = 4) -> Path:
    """x [n, 2, h, w] → conv 3×3 → a → relu → b → conv 1×1 with b kept for a sum → y."""
    rng = np.random.default_rng(0)
    first = (rng.standard_normal((width, 2, 3, 3)) * scale).astype(np.float32)
    second = rng.standard_normal((width, width, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second"], ["c"]),
        helper.make_node("Add", ["b", "c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width, "h", "w"])],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path


def test_operations_parameters_and_memory_are_those_of_the_graph(tmp_path: Path) -> None:
    seen = inspect_graph(_write(tmp_path / "net.onnx"), (1, 3), (8, 10))
    assert seen.flops == 2 * 80 * (4 * 2 * 9 + 4 * 4)
    assert seen.parameters == 4 * 2 * 9 + 4 * 4
    assert seen.weight_bytes == 4 * seen.parameters
    # Fullest where b, c and y of four channels each are held at once.
    assert seen.activation_bytes == {1: 4 * 80 * 12, 3: 3 * 4 * 80 * 12}
    assert seen.memory_bytes(3) == seen.weight_bytes + 3 * 4 * 80 * 12
    assert (seen.opset, seen.size) == (18, (8, 10))
    assert seen.operators == {"Conv": 2, "Relu": 1, "Add": 1}
    assert [(t.name, t.dtype, t.shape) for t in seen.inputs] == [("x", "float32", (-1, 2, -1, -1))]


def test_a_generators_operations_are_those_that_torch_counts(
    tiny_bundle: Path, tiny_synthesis: NetworkSpec
) -> None:
    seen = inspect_graph(tiny_bundle / "tiny-synthesis.onnx", (2,))
    # torch counts also the two foldings of the filter, which are constants in the graph.
    assert seen.flops <= count_flops(tiny_synthesis) < 1.5 * seen.flops
    assert seen.size is None


def test_shapes_that_the_graph_computes_are_followed(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], start=0, end=1),
        helper.make_node("Concat", ["shape", "rest"], ["whole"], axis=0),
        helper.make_node("Mul", ["whole", "two"], ["unused"]),
        helper.make_node("Reshape", ["x", "whole"], ["y"]),
    ]
    constants = {"rest": np.array([-1]), "two": np.array([2])}
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "m"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    path = tmp_path / "shapes.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path
    )
    assert inspect_graph(path, (5,)).activation_bytes[5] >= 2 * 5 * 6 * 4


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(ExportError, match=r"broken\.onnx: not an ONNX file"):
        inspect_graph(path)


def test_equal_files_are_the_same_and_others_differ_by_what_they_do(tmp_path: Path) -> None:
    first = _write(tmp_path / "first.onnx")
    (same,) = compare(first, _write(tmp_path / "same.onnx"), seconds=0)
    assert same.same
    assert same.faster > 0
    (other,) = compare(first, _write(tmp_path / "other.onnx", scale=1.5), seconds=0)
    assert not other.same
    (difference,) = other.differences
    assert difference.output == "y"
    assert 0.2 < difference.relative < 0.6  # 1.5 times as much, before and after
    (wide,) = compare(first, _write(tmp_path / "wide.onnx", width=5), seconds=0)
    assert "outputs are y float32 [-1, 4, -1, -1] and y float32 [-1, 5, -1, -1]" in wide.problem


def test_bundles_are_compared_network_by_network(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["models"][1]["name"] = "renamed"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    pairs = {pair.name: pair for pair in compare(tiny_bundle, copy, seconds=0)}
    assert pairs["tiny-synthesis"].same
    assert pairs["tiny-encoder"].problem == f"only in {tiny_bundle}"
    assert pairs["renamed"].problem == f"only in {copy}"


def test_a_bundle_beside_a_file_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(ExportError, match="two bundles or two ONNX files"):
        compare(tiny_bundle, tiny_bundle / "tiny-encoder.onnx")


def test_the_commands_print_it(tiny_bundle: Path) -> None:
    runner = CliRunner()
    shown = runner.invoke(app, ["inspect", str(tiny_bundle), "--batch", "3", "--json"])
    assert shown.exit_code == 0
    seen = json.loads(shown.output)["tiny-encoder"]
    assert seen["memory_bytes"]["3"] == seen["weight_bytes"] + seen["activation_bytes"]["3"]
    file = str(tiny_bundle / "tiny-encoder.onnx")
    assert "GFLOP" in runner.invoke(app, ["inspect", file]).output
    beside = runner.invoke(app, ["compare", file, file, "--seconds", "0"], env={"COLUMNS": "140"})
    assert beside.exit_code == 0
    assert "none" in beside.output
    assert runner.invoke(app, ["compare", file, str(tiny_bundle)]).exit_code == 2
