"""`velatura-export graph`: single files, fused and with noise or pixels at their border."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import json_format
from typer.testing import CliRunner

from velatura.export.bundle import sha256_of
from velatura.export.checkpoints import native
from velatura.export.cli import app
from velatura.export.networks.encoder import Encoder, EncoderConfig
from velatura.export.networks.fused import noise_maps, noise_size
from velatura.export.networks.stylegan2 import Generator
from velatura.export.verify import open_graph, run_graph
from velatura.v1 import bundle_pb2

from .conftest import CONFIG, random_generator


def run(*arguments: str | Path, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["graph", *map(str, arguments)], env={"COLUMNS": "400"})
    assert done.exit_code == code, done.output
    return done.output


def report_of(path: Path) -> bundle_pb2.ModelEntry:
    text = path.with_suffix(".json").read_text()
    return json_format.Parse(text, bundle_pb2.ModelEntry())


def test_samples_with_classes_and_noise_as_inputs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = replace(CONFIG, classes=3)
    generator = Generator(config).eval()
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.5)
    weights, out = tmp_path / "g.safetensors", tmp_path / "made" / "net.onnx"
    native.save_weights(weights, generator, config)
    said = run(weights, "-o", out, "--fuse", "mapping+generator", "--noise", "input")
    assert "noise: float32 any × 144" in said
    assert sorted(path.name for path in out.parent.iterdir()) == ["net.json", "net.md", "net.onnx"]
    report = report_of(out)
    assert report.sha256 == sha256_of(out)
    assert (report.file, report.card) == ("net.onnx", "net.md")
    names = ["z", "truncation_psi", "class_weights", "noise"]
    assert [tensor.name for tensor in report.inputs] == names
    checks = {(check.reference, check.batch_size) for check in report.verifications}
    assert checks == {("torch float32", n) for n in (1, 2, 3)} | {("torch float64", 1)}

    maps = noise_maps(generator.synthesis)
    assert list(maps.values()) == [4, 8, 8]
    assert noise_size(generator.synthesis) == 144
    stored = dict(generator.synthesis.named_buffers())
    noise = torch.cat([stored[name].flatten() for name in maps]).expand(2, -1).clone()
    z, psi, classes = torch.randn(2, 8), torch.tensor([0.7, 1.0]), torch.eye(3)[:2]
    graph = open_graph(out)

    def image(noise: torch.Tensor) -> torch.Tensor:
        values = dict(zip(names, (z, psi, classes, noise), strict=True))
        (made,) = run_graph(graph, {name: t.numpy() for name, t in values.items()}).values()
        return torch.from_numpy(made)

    with torch.inference_mode():
        wanted = generator(z, psi, classes)
    torch.testing.assert_close(image(noise), wanted, atol=1e-4, rtol=1e-4)
    noise[1] = torch.randn(144)  # of one item of the batch
    other = image(noise)
    torch.testing.assert_close(other[0], wanted[0], atol=1e-4, rtol=1e-4)
    assert (other[1] - wanted[1]).abs().max() > 0.01


def test_pixels_in_and_out_of_encoder_and_generator(tmp_path: Path) -> None:
    torch.manual_seed(1)
    generator, shape = (
        random_generator(),
        EncoderConfig(8, CONFIG.num_ws, CONFIG.w_dim, (4,), (1,), 4),
    )
    encoder = Encoder(shape).eval()
    torch.nn.init.normal_(encoder.deltas.weight)
    native.save_weights(tmp_path / "g.safetensors", generator, CONFIG)
    native.save_weights(tmp_path / "e.safetensors", encoder, shape)
    out = tmp_path / "net.onnx"
    run(
        tmp_path / "g.safetensors", "-o", out, "--uint8",
        "--fuse", "encoder+generator", "--encoder", tmp_path / "e.safetensors",
    )  # fmt: skip
    report = report_of(out)
    for tensor in (*report.inputs, *report.outputs):
        assert (tensor.dtype, list(tensor.shape)) == ("uint8", [-1, 8, 8, 3])
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    made = run_graph(open_graph(out), {"image": pixels})["reconstruction"]
    assert made.dtype == np.uint8
    seen = torch.from_numpy(pixels).permute(0, 3, 1, 2).double() / 127.5 - 1
    with torch.inference_mode():
        image = generator.double().synthesis(encoder.double()(seen))
    wanted = ((image + 1) * 127.5).clamp(0, 255).permute(0, 2, 3, 1).numpy()
    assert np.abs(made - wanted).max() < 0.51
    assert made.min() < made.max()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "net.bin"], "must end in .onnx"),
        (["-o", "net.onnx", "--encoder", "e.pt"], "goes with --fuse encoder+generator"),
        (["-o", "net.onnx", "--fuse", "encoder+generator"], "--encoder FILE goes with"),
        (["-o", "net.onnx"], "No such file"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in run("none.pkl", *arguments, code=2)
    assert not list(tmp_path.iterdir())
