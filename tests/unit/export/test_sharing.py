"""Weights that a graph uses several times are stored once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from velatura.export.sharing import share_duplicates
from velatura.export.verify import open_graph, run_graph


@pytest.fixture
def model() -> onnx.ModelProto:
    """y = ((x · a) · b) · c + small + again, where a and c are equal, b is of another shape of the
    same bytes, and two small vectors are equal."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((16, 32)).astype(np.float32)
    weights = {"a": a, "b": a.reshape(32, 16), "c": a, "d": a.reshape(32, 16) * 2}
    vectors = {"small": np.ones(16, np.float32), "again": np.ones(16, np.float32)}
    chain = ["a", "b", "c", "d"]
    names = ["x", *(f"after_{name}" for name in chain)]
    nodes = [
        helper.make_node("MatMul", [before, name], [after])
        for before, name, after in zip(names, chain, names[1:], strict=False)
    ]
    nodes.append(helper.make_node("Sum", [names[-1], "small", "again"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16])],
        [numpy_helper.from_array(value, name) for name, value in (weights | vectors).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_equal_weights_are_kept_once_and_compute_the_same(
    tmp_path: Path, model: onnx.ModelProto
) -> None:
    x = {"x": np.random.default_rng(1).standard_normal((2, 16)).astype(np.float32)}
    onnx.save(model, tmp_path / "before.onnx")
    share_duplicates(model)
    onnx.save(model, tmp_path / "after.onnx")
    kept = [tensor.name for tensor in model.graph.initializer]
    assert kept == ["a", "b", "d", "small", "again"]  # what is small stays as it is
    assert [node.input[1] for node in model.graph.node[:4]] == ["a", "b", "a", "d"]
    onnx.checker.check_model(model, full_check=True)
    before, after = (
        run_graph(open_graph(tmp_path / f"{name}.onnx"), x)["y"] for name in ("before", "after")
    )
    np.testing.assert_array_equal(before, after)
