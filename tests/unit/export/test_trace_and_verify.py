"""Tracing keeps the batch free, folding leaves no constant work, and verification can say no."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from velatura.export.errors import ExportError
from velatura.export.optimize import require_folded, require_portable
from velatura.export.specification import Background, NetworkSpec, Port, Reference
from velatura.export.trace import trace
from velatura.export.verify import open_graph, run_graph, verify
from velatura.v1 import bundle_pb2


@pytest.fixture
def graph(tiny_bundle: Path) -> Path:
    """The tiny synthesis network (`tiny_synthesis` builds the same one), traced and optimised."""
    return tiny_bundle / "tiny-synthesis.onnx"


@pytest.mark.parametrize("batch", [1, 2, 5, 8])
def test_every_batch_size_runs(graph: Path, tiny_synthesis: NetworkSpec, batch: int) -> None:
    inputs = tiny_synthesis.sample(batch, None)
    image = run_graph(open_graph(graph), inputs)["image"]
    np.testing.assert_allclose(image, tiny_synthesis.run_torch(inputs)["image"], atol=1e-4)


def test_a_right_graph_passes_and_states_its_errors(
    graph: Path, tiny_synthesis: NetworkSpec
) -> None:
    done = verify(tiny_synthesis, graph)
    assert [v.batch_size for v in done] == [1, 3, 8]
    assert all(0 <= v.max_abs_error <= v.tolerance for v in done)
    assert all(v.reference == "torch float32" for v in done)


def test_upsampling_kernels_are_constants(graph: Path) -> None:
    model = onnx.load(graph)
    constants = {t.name: tuple(t.dims) for t in model.graph.initializer}
    kernels = [constants[n.input[1]] for n in model.graph.node if n.op_type == "ConvTranspose"]
    assert sorted(kernels) == [(3, 1, 4, 4), (8, 4, 4, 4)]  # 3×3 folded with two taps; RGB's filter


def test_nothing_in_the_graph_tells_of_the_machine(graph: Path) -> None:
    data = graph.read_bytes()
    assert b".py" not in data
    assert str(Path(torch.__file__).parent).encode() not in data


def test_a_wrong_weight_is_refused(
    graph: Path, tiny_synthesis: NetworkSpec, tmp_path: Path
) -> None:
    model = onnx.load(graph)
    kernel = next(t for t in model.graph.initializer if tuple(t.dims) == (8, 4, 4, 4))
    changed = numpy_helper.to_array(kernel).copy()
    changed[0, 0, 0, 0] += 0.1
    kernel.CopyFrom(numpy_helper.from_array(changed, kernel.name))
    wrong = tmp_path / "wrong.onnx"
    onnx.save(model, wrong)
    with pytest.raises(ExportError, match="'image' at batch 1 differs from torch float32 by"):
        verify(tiny_synthesis, wrong)


def test_a_reference_that_disagrees_is_refused(graph: Path, tiny_synthesis: NetworkSpec) -> None:
    def half(inputs: object) -> dict[str, np.ndarray]:
        return {"image": np.zeros((1, 3, 8, 8), np.float32)}

    spec = replace(tiny_synthesis, references=(Reference("another port", half, 1e-3),))
    with pytest.raises(ExportError, match="differs from another port"):
        verify(spec, graph)


class _FixedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(3, 2, 2).flatten(1) * 2


def _spec(module: nn.Module, outputs: tuple[Port, ...]) -> NetworkSpec:
    return NetworkSpec(
        name="probe",
        role=bundle_pb2.ROLE_UNSPECIFIED,
        module=module.eval(),
        inputs=(Port("x", (-1, 4)),),
        outputs=outputs,
        background=Background("", "", "", ""),
    )


def test_a_network_that_fixes_its_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="probe: "):
        trace(_spec(_FixedBatch(), (Port("y", (-1, 4)),)), tmp_path / "x.onnx")


def test_an_output_of_another_shape_than_promised_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"output 'y' was traced as \[-1, 3\], expected \[-1, 5\]"
    ):
        trace(_spec(nn.Linear(4, 3), (Port("y", (-1, 5)),)), tmp_path / "x.onnx")


def test_outputs_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    class Infinite(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.exp(x * 1e6 + 1e6)

    spec = _spec(Infinite(), (Port("y", (-1, 4)),))
    path = tmp_path / "x.onnx"
    trace(spec, path)
    with pytest.raises(ExportError, match="is not finite"):
        verify(spec, path)


def test_work_on_constants_is_refused() -> None:
    two = numpy_helper.from_array(np.ones(4, np.float32), "two")
    nodes = [helper.make_node("Mul", ["two", "two"], ["four"], name="late")]
    nodes.append(helper.make_node("Add", ["x", "four"], ["y"]))
    model = _model(nodes, [two])
    with pytest.raises(ExportError, match="Mul 'late'"):
        require_folded(model, "probe")


def test_operators_of_one_runtime_are_refused() -> None:
    model = _model([helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")], [])
    with pytest.raises(ExportError, match=r"com\.microsoft\.Gelu"):
        require_portable(model, "probe")


def _model(nodes: list[onnx.NodeProto], initialisers: list[onnx.TensorProto]) -> onnx.ModelProto:
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4]) for n in ("x", "y")]
    return helper.make_model(
        helper.make_graph(nodes, "probe", value[:1], value[1:], initialisers),
        opset_imports=[helper.make_opsetid("", 18)],
    )


def test_a_file_that_is_no_graph_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(ExportError, match=r"broken\.onnx: onnxruntime does not load it"):
        open_graph(path)


def test_too_few_batches_or_sizes_prove_nothing(graph: Path, tiny_synthesis: NetworkSpec) -> None:
    with pytest.raises(ExportError, match=r"batches \(1, 3, 3\); compare three different"):
        verify(replace(tiny_synthesis, batch_sizes=(1, 3, 3)), graph)
    free = (Port("x", (-1, 3, -1, -1)),)
    with pytest.raises(ExportError, match=r"compare two where they are free"):
        verify(replace(tiny_synthesis, inputs=free, sizes=((64, 64),)), graph)
