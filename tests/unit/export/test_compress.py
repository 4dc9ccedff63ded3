"""Weights stored in half the bytes: the same results where they were rounded before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from velatura.export.bundle import export_network
from velatura.export.compress import halve_weights
from velatura.export.errors import ExportError
from velatura.export.specification import Background, NetworkSpec, Port
from velatura.export.verify import open_graph, run_graph
from velatura.v1 import bundle_pb2


def spec(weight: torch.Tensor, *, half_weights: bool) -> NetworkSpec:
    torch.manual_seed(1)  # the same bias each time
    layer = nn.Linear(64, 64)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return NetworkSpec(
        name="probe",
        role=bundle_pb2.ROLE_UNSPECIFIED,
        module=layer.eval(),
        inputs=(Port("x", (-1, 64)),),
        outputs=(Port("y", (-1, 64)),),
        background=Background("", "", "", ""),
        half_weights=half_weights,
    )


def write(folder: Path, weight: torch.Tensor, *, half_weights: bool) -> Path:
    (folder / "cards").mkdir(parents=True)
    export_network(spec(weight, half_weights=half_weights), folder)
    return folder / "probe.onnx"


def test_rounded_weights_give_the_same_results_from_half_the_bytes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 64).half().float()
    whole = write(tmp_path / "whole", weight, half_weights=False)
    half = write(tmp_path / "half", weight, half_weights=True)
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    results = [run_graph(open_graph(path), {"x": x})["y"] for path in (whole, half)]
    np.testing.assert_array_equal(*results)
    assert results[0].dtype == np.float32


def test_small_constants_stay_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "half", torch.randn(64, 64).half().float(), half_weights=True)
    types = {t.name: t.data_type for t in onnx.load(path).graph.initializer}
    assert sorted(types.values()) == [onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16]


def test_weights_that_rounding_would_change_too_much_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="probe: 'y' at batch 1 differs from torch"):
        write(tmp_path, torch.randn(64, 64) * 100, half_weights=True)


def test_weights_beyond_half_precision_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, torch.full((64, 64), 1e5), half_weights=False)
    with pytest.raises(ExportError, match=r"beyond float16's ±65504"):
        halve_weights(path, "probe")
