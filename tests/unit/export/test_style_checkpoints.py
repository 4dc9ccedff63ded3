"""AdaIN's and Ghiasi's networks from files: strict loading, parity, and a bundle of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typer.testing import CliRunner

from velatura.export.audit import audit
from velatura.export.bundle import read_manifest
from velatura.export.checkpoints.adain import load_adain
from velatura.export.checkpoints.ghiasi_torch import load_ghiasi
from velatura.export.cli import app
from velatura.export.errors import CheckpointError
from velatura.export.networks.ghiasi import StylePredictor, StyleTransformer
from velatura.v1 import bundle_pb2

from .adain_files import DECODER, VGG, write

PARITY = 1e-4
POOLED = {5, 12, 25}  # convolutions after which the encoder halves, rounding up
DOUBLED = {1, 14, 21}  # and after which the decoder doubles


@pytest.fixture
def adain(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path)


def convolve(state: dict[str, Tensor], place: int, x: Tensor) -> Tensor:
    weight, bias = state[f"{place}.weight"].double(), state[f"{place}.bias"].double()
    pad = weight.shape[2] // 2
    return F.conv2d(F.pad(x, (pad, pad, pad, pad), mode="reflect"), weight, bias)


def features(state: dict[str, Tensor], image: Tensor) -> Tensor:
    """relu4_1 by the description of pytorch-AdaIN's network, float64."""
    x = convolve(state, 0, image.double())
    for place, *_ in VGG[1:10]:
        x = F.relu(convolve(state, place, x))
        if place in POOLED:
            x = F.max_pool2d(x, 2, 2, ceil_mode=True)
    return x


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean((2, 3), keepdim=True), (x.var((2, 3), keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize("size", [(32, 32), (37, 50)])
def test_adain_makes_what_its_formulas_say(adain: tuple[Path, Path], size: tuple[int, int]) -> None:
    encoder, decoder = (torch.load(path) for path in adain)
    predictor, transformer = load_adain(*adain)
    content, style = torch.rand(2, 3, *size), torch.rand(2, 3, 40, 40)
    mean, deviation = statistics(features(encoder, style))
    code = torch.cat([mean, deviation], 1).flatten(1)
    assert torch.allclose(predictor(style).double(), code, atol=PARITY)
    seen = features(encoder, content)
    own_mean, own_deviation = statistics(seen)
    x = (seen - own_mean) / own_deviation * deviation + mean
    for place, *_ in DECODER:
        x = convolve(decoder, place, x)
        x = F.relu(x) if place != 28 else x
        if place in DOUBLED:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
    expected = x[:, :, : size[0], : size[1]].clamp(0, 1)
    assert expected.std() > 0.01
    made = transformer(content, code.float())
    assert made.shape == content.shape
    assert torch.allclose(made.double(), expected, atol=PARITY)


def test_the_contents_own_code_keeps_its_features(adain: tuple[Path, Path]) -> None:
    """What strength 0 would paint with."""
    predictor, transformer = load_adain(*adain)
    content = torch.rand(1, 3, 48, 48)
    painted = transformer(content, predictor(content))
    decoded = transformer.decoder(transformer.encoder(content)).clamp(0, 1)
    assert torch.allclose(painted, decoded, atol=1e-4)


@pytest.mark.parametrize(
    ("part", "damage", "message"),
    [
        (0, lambda s: s.pop("29.weight"), r"--style-encoder .*has no convolution 29\.weight"),
        (0, lambda s: s.pop("12.bias"), r"(?s)--style-encoder .*12\.bias"),
        (1, lambda s: s.update({"31.bias": torch.ones(3)}), r"(?s)--style-decoder .*31\.bias"),
        (1, lambda s: s.update({"1.weight": torch.ones(32, 5, 3, 3)}), "for this encoder"),
        (1, lambda s: s.update({"28.weight": torch.ones(4, 8, 3, 3)}), "4 outputs, expected 3"),
    ],
)
def test_what_does_not_fit_adain_is_named(adain, part: int, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    state = torch.load(adain[part])
    damage(state)
    torch.save(state, adain[part])
    with pytest.raises(CheckpointError, match=message):
        load_adain(*adain)


def test_a_bundle_of_adain_alone(adain: tuple[Path, Path], tmp_path: Path) -> None:
    encoder, decoder = map(str, adain)
    out = tmp_path / "bundle"
    options = ["--style-encoder", encoder, "--style-decoder", decoder, "--name", "adain"]
    done = CliRunner().invoke(app, ["bundle", *options, "--out", str(out)])
    assert done.exit_code == 0, done.output
    predictor, transformer = read_manifest(out).models
    assert (predictor.name, predictor.role) == (
        "adain-style-predictor",
        bundle_pb2.ROLE_STYLE_PREDICTOR,
    )
    assert transformer.role == bundle_pb2.ROLE_STYLE_TRANSFORMER
    assert {t.name: tuple(t.shape) for t in (*transformer.inputs, *transformer.outputs)} == {
        "image": (-1, 3, -1, -1),
        "style_code": (-1, 128),
        "image_out": (-1, 3, -1, -1),
    }
    assert {(v.batch_size, v.size) for v in transformer.verifications} == {
        (batch, size) for batch in (1, 3, 8) for size in (64, 131)
    }
    assert list(audit(out)) == [("adain-style-predictor", ""), ("adain-style-transformer", "")]


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_ghiasis_networks_load_by_their_names(suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    parts: dict[str, nn.Module] = {
        "predictor": StylePredictor(code_dim=12, last_channels=40),
        "transformer": StyleTransformer((4, 6, 8), residuals=2, code_dim=12),
    }
    state = {f"{p}.{n}": t for p, m in parts.items() for n, t in m.state_dict().items()}
    path = tmp_path / f"style{suffix}"
    if suffix == ".pt":
        torch.save(state, path)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    predictor, transformer = load_ghiasi(path)
    image = torch.rand(2, 3, 40, 44)
    code = parts["predictor"].eval()(image)
    assert torch.equal(predictor(image), code)
    assert torch.equal(transformer(image, code), parts["transformer"].eval()(image, code))
    state.pop("transformer.expand1.scale.bias")
    torch.save(state, tmp_path / "less.pt")
    with pytest.raises(CheckpointError, match=r"(?s)less\.pt: .*expand1\.scale\.bias"):
        load_ghiasi(tmp_path / "less.pt")
    torch.save({**state, "loss.weight": image}, tmp_path / "more.pt")
    with pytest.raises(CheckpointError, match=r"left over: loss\.weight"):
        load_ghiasi(tmp_path / "more.pt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--style-encoder", "{e}"], "AdaIN takes both files"),
        (["--style-decoder", "{e}"], "--style-decoder: only with"),
        (["--style-encoder", "{e}", "--style-decoder", "{d}", "--style-networks", "{e}"], "has a"),
        (["--style-encoder", "{e}", "--style-decoder", "{d}", "--class-names", "{e}"], "--class-g"),
        (["--style-encoder", "{e}", "--style-decoder", "{d}", "--encoder", "{e}"], "--encoder: on"),
        (["--style-encoder", "{d}", "--style-decoder", "{d}"], "--style-encoder"),
    ],
)
def test_mistaken_options_are_named(
    adain: tuple[Path, Path], options: list[str], message: str, tmp_path: Path
) -> None:
    values = [text.format(e=adain[0], d=adain[1]) for text in options]
    command = ["bundle", *values, "--out", str(tmp_path / "bundle")]
    done = CliRunner().invoke(app, command, env={"COLUMNS": "400"})
    assert done.exit_code == 2
    assert message in done.output
    assert not (tmp_path / "bundle").exists()
