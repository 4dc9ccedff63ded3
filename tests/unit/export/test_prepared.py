"""The network as traced gives the images of the network as trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from velatura.export.errors import ExportError
from velatura.export.formats import Provider
from velatura.export.generator_networks import Origin, synthesis_spec
from velatura.export.networks.stylegan2 import Generator, GeneratorConfig
from velatura.export.networks.upsampling import UpsamplingForm
from velatura.export.optimize import optimize
from velatura.export.prepared import prepared
from velatura.export.trace import trace
from velatura.export.verify import verify

CONFIG = GeneratorConfig(16, 8, 8, 2, channels={4: 8, 8: 6, 16: 4}, resample_filter=(1, 3, 3, 1))
ORIGIN = Origin("MIT", "random weights", "nothing", "none")


def generator(config: GeneratorConfig = CONFIG) -> Generator:
    torch.manual_seed(0)
    made = Generator(config)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith(("noise_strength", "bias")):
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return made.eval()


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
@pytest.mark.parametrize("clamp", [0.0, 1.5])
@pytest.mark.parametrize("form", [None, *UpsamplingForm])
@pytest.mark.parametrize("provider", list(Provider))
def test_images_are_the_same(
    taps: tuple[int, ...],
    clamp: float,
    form: UpsamplingForm | None,
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("velatura.export.prepared._WINOGRAD_CHANNELS", 4)
    monkeypatch.setattr("velatura.export.prepared._WINOGRAD_ROW", 48)
    # The largest of the three resolutions in the way of those over these limits.
    monkeypatch.setattr("velatura.export.prepared._SHIFT_NUMBERS", 512)
    monkeypatch.setattr("velatura.export.prepared._SKIP_RESOLUTION", 8)
    synthesis = generator(replace(CONFIG, resample_filter=taps, conv_clamp=clamp)).synthesis
    synthesis.write_upsampling_as(form)
    w_plus = torch.randn(3, CONFIG.num_ws, 8)
    with torch.inference_mode():
        expected = synthesis.double()(w_plus.double())
        actual = prepared(synthesis, provider)(w_plus.double())
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(
    ("provider", "written_for", "convolutions"),
    # Second layers, and filters; on the CPU four for each of two layers besides, and what Winograd
    # takes instead of one of the second layers. RGB is a product.
    [(Provider.CPU, "cpu", 3 + 2 + 2 * 4 + 16), (Provider.TENSORRT, "", 3 + 2)],
)
def test_the_graph_is_what_was_prepared_and_compared_with_what_was_trained(
    tmp_path: Path,
    provider: Provider,
    written_for: str,
    convolutions: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("velatura.export.prepared._WINOGRAD_CHANNELS", 4)
    monkeypatch.setattr("velatura.export.prepared._WINOGRAD_ROW", 64)  # 16 px alone
    spec = synthesis_spec("tiny", generator(), ORIGIN, provider)
    assert spec.written_for == written_for
    path = tmp_path / "tiny.onnx"
    trace(spec, path)
    optimize(path, spec.name)
    assert {"torch float32", "torch float64"} == {v.reference for v in verify(spec, path)}
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("Conv") == convolutions
    with pytest.raises(ExportError, match="differs from torch float32"):
        verify(replace(spec, module=nn.Sequential(spec.module, nn.Hardtanh(-0.1, 0.1))), path)


def test_what_one_form_suits_is_written_for_no_provider() -> None:
    short = generator(replace(CONFIG, resample_filter=(1, 1)))
    assert synthesis_spec("tiny", short, ORIGIN).written_for == ""
