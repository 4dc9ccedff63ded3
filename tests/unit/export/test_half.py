"""Synthesis in float16: the same images, no overflow where plain float16 has one, refusals."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch

from velatura.export.bundle import export_network
from velatura.export.errors import ExportError
from velatura.export.generator_networks import Origin, mapping_spec, synthesis_spec
from velatura.export.half import in_half
from velatura.export.half_checks import half_synthesis, measure_half, synthesis_in_float16
from velatura.export.networks.stylegan2 import Generator, GeneratorConfig
from velatura.export.verify import open_graph, run_graph
from velatura.v1 import bundle_pb2

CONFIG = GeneratorConfig(16, 8, 8, 2, channels={4: 8, 8: 8, 16: 4}, resample_filter=(1, 3, 3, 1))
ORIGIN = Origin("MIT", "random weights", "nothing", "none")


def generator(config: GeneratorConfig = CONFIG) -> Generator:
    torch.manual_seed(0)
    made = Generator(config)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith(("noise_strength", "bias")):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return made.eval()


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
@pytest.mark.parametrize("clamp", [0.0, 2.0])
def test_images_are_the_same_to_half_precision(taps: tuple[int, ...], clamp: float) -> None:
    made = generator(replace(CONFIG, resample_filter=taps, conv_clamp=clamp))
    w_plus = torch.randn(3, CONFIG.num_ws, 8)
    with torch.inference_mode():
        exact, half = made.synthesis(w_plus), in_half(made.synthesis)(w_plus)
    assert half.dtype == torch.float32
    assert 0 < float((half - exact).abs().max()) < 0.01 * float(exact.abs().max())


def test_weights_that_overflow_in_plain_float16_do_not_here() -> None:
    made = generator()
    with torch.no_grad():
        made.synthesis.b16.conv1.weight.mul_(1e6)  # demodulation cancels it
        made.synthesis.b16.conv0.affine.bias.mul_(1e5)
    w_plus = torch.randn(2, CONFIG.num_ws, 8)
    plain = copy.deepcopy(made.synthesis).half()
    with torch.inference_mode():
        assert not plain(w_plus.half()).isfinite().all()
        exact, half = made.synthesis(w_plus), in_half(made.synthesis)(w_plus)
    torch.testing.assert_close(half, exact, atol=0.02, rtol=0.02)
    figures = measure_half(made.synthesis, in_half(made.synthesis), made.mapping, 8)
    assert figures.psnr > 40
    assert 0 < figures.largest < 65504


def test_an_overflow_is_seen_wherever_it_happens() -> None:
    made = generator()
    half = in_half(made.synthesis)
    half.b16.conv1.weight.mul_(6e4)
    figures = measure_half(made.synthesis, half, made.mapping, 8)
    assert figures.largest == float("inf")
    assert figures.psnr == 0


def test_only_the_largest_resolutions_may_be_halved() -> None:
    made = generator(replace(CONFIG, fp16_resolutions=(8,)))
    with pytest.raises(ExportError, match=r"fp16_resolutions: \[8\].*largest"):
        in_half(made.synthesis)
    upper = in_half(generator(replace(CONFIG, fp16_resolutions=(16,))).synthesis)
    assert upper.b8.conv1.weight.dtype == torch.float32
    assert upper.b16.conv1.weight.dtype == torch.float16


def test_images_further_than_40_db_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = generator()
    monkeypatch.setattr("velatura.export.half_checks.LEAST_PSNR", 150.0)
    with pytest.raises(ExportError, match=r"tiny: float16 is \d+\.\d dB from float32, at least"):
        half_synthesis(synthesis_spec("tiny", made, ORIGIN), made.mapping, 4)


def test_the_bundles_graph_computes_in_float16_between_float32_tensors(tmp_path: Path) -> None:
    made = generator()
    entry = bundle_pb2.GeneratorEntry(name="tiny", synthesis="tiny", mapping="tiny-mapping")
    specs = [synthesis_spec("tiny", made, ORIGIN), mapping_spec("tiny-mapping", made, ORIGIN)]
    half, mapping = synthesis_in_float16(specs, [entry], 8)
    assert mapping is specs[1]
    (tmp_path / "cards").mkdir()
    written = export_network(half, tmp_path)
    assert [(t.name, t.dtype) for t in (*written.inputs, *written.outputs)] == [
        ("w_plus", "float32"),
        ("image", "float32"),
    ]
    assert {v.reference for v in written.verifications} >= {"torch float16", "torch float32"}
    figures = {figure.name: figure.value for figure in written.figures}
    assert figures["float16/PSNR"] >= 40
    assert figures["float16/largest"] < 65504
    graph = onnx.load(tmp_path / written.file).graph
    kernels = {n.input[1] for n in graph.node if n.op_type in ("Conv", "ConvTranspose")}
    types = [t.data_type for t in graph.initializer if t.name in kernels and t.dims[0] != 3]
    assert types.count(onnx.TensorProto.FLOAT16) >= 5
    inputs = specs[0].sample(2, None)
    exact = specs[0].run_torch(inputs)["image"]
    assert abs(run_graph(open_graph(tmp_path / written.file), inputs)["image"] - exact).max() < 0.05


def test_a_bundle_without_a_generator_has_nothing_to_halve() -> None:
    with pytest.raises(ExportError, match="no generator"):
        synthesis_in_float16([], [], 8)
