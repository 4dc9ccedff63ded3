"""StyleGAN2-ADA-PyTorch snapshots load strictly, and compute what the papers say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from velatura.export.bundle import export_network
from velatura.export.checkpoints import native
from velatura.export.checkpoints.stylegan2_ada import load_generator
from velatura.export.cli import app
from velatura.export.errors import CheckpointError
from velatura.export.specification import NetworkSpec, Port
from velatura.v1 import bundle_pb2

from . import ada_snapshots
from . import stylegan2_reference as reference
from .conftest import ABOUT


def _conv(layer: Any) -> reference.Conv:
    noisy = hasattr(layer, "noise_const")
    return reference.Conv(
        layer.weight,
        layer.affine.weight,
        layer.affine.bias,
        layer.bias,
        layer.noise_const if noisy else None,
        float(layer.noise_strength) if noisy else 0.0,
    )


def _expected(source: Any, z: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """w [N, w_dim] and the images of the snapshot's own tensors, in float64."""
    layers = [getattr(source.mapping, f"fc{i}") for i in range(source.mapping.num_layers)]
    embedding = None
    if classes is not None:
        embed = source.mapping.embed
        embedding = (embed.weight, embed.bias, classes)
    w = reference.mapping(z, [(fc.weight, fc.bias) for fc in layers], 0.01, embedding)
    blocks = {}
    for r in source.synthesis.block_resolutions:
        block = getattr(source.synthesis, f"b{r}")
        conv0 = _conv(block.conv0) if r > 4 else None
        blocks[r] = reference.Block(conv0, _conv(block.conv1), _conv(block.torgb))
    clamp = source.synthesis.b4.conv1.conv_clamp or 0
    const = source.synthesis.b4.const
    images = [
        reference.synthesis(row.expand(source.num_ws, -1), const, blocks, clamp=clamp, scaled=False)
        for row in w
    ]
    return w, torch.stack(images)


@pytest.mark.parametrize("protocol", [3, 4])  # of Python 3.7, as the published files, and later
@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 2},
        {"num_layers": 8, "clamp": 256, "num_fp16_res": 2},
        {"num_layers": 2, "c_dim": 5, "resolution": 64},
        {"num_layers": 2, "clamp": 0.5},  # low enough to cut
    ],
    ids=["shallow", "deep, fp16", "conditional", "clamped"],
)
def test_a_snapshot_computes_what_its_tensors_say(
    tmp_path: Path, protocol: int, options: dict[str, Any]
) -> None:
    source = ada_snapshots.build(**options)
    path = ada_snapshots.write(tmp_path / "network.pkl", protocol, G=source, G_ema=source)
    generator = load_generator(path)
    z = torch.randn(2, 6)
    classes = torch.eye(5)[[1, 4]] if "c_dim" in options else None
    w, images = _expected(source, z, classes)
    actual_w = generator.mapping(z, torch.ones(2), classes)
    torch.testing.assert_close(actual_w.double(), w, atol=1e-5, rtol=1e-5)
    actual = generator(z, torch.ones(2), classes)
    torch.testing.assert_close(actual.double(), images, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        generator.mapping(z, torch.zeros(2), classes), source.mapping.w_avg.expand(2, -1)
    )


def test_the_configuration_is_read_off_the_snapshot(tmp_path: Path) -> None:
    source = ada_snapshots.build(num_layers=8, clamp=256, num_fp16_res=2, c_dim=3)
    config = load_generator(ada_snapshots.write(tmp_path / "network.pkl", G_ema=source)).config
    assert (config.resolution, config.num_ws, config.z_dim, config.w_dim) == (32, 8, 6, 8)
    assert (config.mapping_layers, config.mapping_width, config.classes) == (8, 0, 3)
    assert config.channels == {4: 8, 8: 8, 16: 4, 32: 2}
    assert config.conv_clamp == 256
    assert config.fp16_resolutions == (16, 32)
    assert config.resample_filter == config.rgb_filter == (1, 3, 3, 1)


def test_the_largest_resolution_loads(tmp_path: Path) -> None:
    source = ada_snapshots.build(resolution=1024, channels=1)
    generator = load_generator(ada_snapshots.write(tmp_path / "network.pkl", G_ema=source))
    assert generator.config.num_ws == 18
    assert set(generator.state_dict()) == {
        name for name in source.state_dict() if not name.endswith("resample_filter")
    }


def test_the_network_as_trained_can_be_chosen(tmp_path: Path) -> None:
    averaged, trained = ada_snapshots.build(0), ada_snapshots.build(1)
    path = ada_snapshots.write(tmp_path / "network.pkl", G=trained, G_ema=averaged)
    torch.testing.assert_close(load_generator(path).mapping.fc0.weight, averaged.mapping.fc0.weight)
    chosen = load_generator(path, "G")
    torch.testing.assert_close(chosen.mapping.fc0.weight, trained.mapping.fc0.weight)


def test_networks_without_noise_or_average_load(tmp_path: Path) -> None:
    source: Any = ada_snapshots.build()
    for r in source.synthesis.block_resolutions:
        for layer in getattr(source.synthesis, f"b{r}").children():
            if hasattr(layer, "noise_const"):
                del layer.noise_const, layer.noise_strength
    del source.mapping.w_avg
    generator = load_generator(ada_snapshots.write(tmp_path / "network.pkl", G_ema=source))
    z = torch.randn(4000, 6)
    images = generator(z[:1], torch.ones(1)).double()
    torch.testing.assert_close(images, _expected(source, z[:1])[1], atol=1e-4, rtol=1e-4)
    average = generator.mapping(z, torch.ones(4000)).mean(dim=0)
    assert (generator.mapping.w_avg - average).abs().max() < 0.2


def test_another_learning_rate_of_the_mapping_is_folded_in(tmp_path: Path) -> None:
    source: Any = ada_snapshots.build()
    expected = _expected(source, torch.ones(1, 6))[0]
    for i in range(2):
        layer = getattr(source.mapping, f"fc{i}")
        layer.weight.mul_(0.5)
        layer.bias.mul_(0.5)
        layer.weight_gain, layer.bias_gain = layer.weight_gain * 2, 0.02
    generator = load_generator(ada_snapshots.write(tmp_path / "network.pkl", G_ema=source))
    actual = generator.mapping(torch.ones(1, 6), torch.ones(1))
    torch.testing.assert_close(actual.double(), expected, atol=1e-5, rtol=1e-5)


def _resnet(source: Any) -> None:
    source.synthesis.b8.architecture = "resnet"


def _missing_tensor(source: Any) -> None:
    del source.synthesis.b8.conv0.bias


def _additional_tensor(source: Any) -> None:
    source.synthesis.b8.register_buffer("extra", torch.zeros(1))


def _missing_block(source: Any) -> None:
    del source.synthesis.b8


def _other_filter(source: Any) -> None:
    source.synthesis.b8.conv0.resample_filter.fill_(1 / 16)


def _different_clamps(source: Any) -> None:
    source.synthesis.b8.conv0.conv_clamp = 3


def _infinite(source: Any) -> None:
    source.synthesis.b8.conv0.weight[0, 0, 0, 0] = torch.inf


def _wrong_shape(source: Any) -> None:
    source.synthesis.b8.torgb.bias = torch.nn.Parameter(torch.zeros(4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_resnet, "synthesis.b8 has architecture 'resnet'"),
        (_missing_tensor, r"Missing key.*synthesis\.b8\.conv0\.bias"),
        (_additional_tensor, r"Unexpected key.*synthesis\.b8\.extra"),
        (_missing_block, r"blocks for \[4, 16, 32\] px, expected \[4, 8, 16, 32\]"),
        (_other_filter, r"b8\.conv0\.resample_filter differs|differs from synthesis"),
        (_different_clamps, "different conv_clamp"),
        (_infinite, r"synthesis\.b8\.conv0\.weight holds numbers that are not finite"),
        (_wrong_shape, r"size mismatch for synthesis\.b8\.torgb\.bias"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, change: Any, message: str) -> None:
    source = ada_snapshots.build()
    change(source)
    path = ada_snapshots.write(tmp_path / "network.pkl", G_ema=source)
    with pytest.raises(CheckpointError, match=r"network\.pkl: G_ema: (.|\n)*" + f"({message})"):
        load_generator(path)


def test_a_snapshot_without_the_network_is_refused(tmp_path: Path) -> None:
    path = ada_snapshots.write(tmp_path / "network.pkl", G=ada_snapshots.build())
    with pytest.raises(CheckpointError, match=r"holds no network 'G_ema'.*found \['G'\]"):
        load_generator(path)


def test_a_conditional_snapshot_exports(tmp_path: Path) -> None:
    """Class weights are an input of the mapping; the clamps are in the graph."""
    source = ada_snapshots.build(c_dim=3, clamp=0.5)
    generator = load_generator(ada_snapshots.write(tmp_path / "network.pkl", G_ema=source))
    mapping = NetworkSpec(
        name="mapping",
        role=bundle_pb2.ROLE_MAPPING,
        module=generator.mapping,
        inputs=(
            Port("z", (-1, 6)),
            Port("truncation_psi", (-1,), 0, 1),
            Port("class_weights", (-1, 3), 0, 1, sums_to_one=True),
        ),
        outputs=(Port("w", (-1, 8)),),
        background=ABOUT,
    )
    synthesis = NetworkSpec(
        name="synthesis",
        role=bundle_pb2.ROLE_SYNTHESIS,
        module=generator.synthesis,
        inputs=(Port("w_plus", (-1, 8, 8)),),
        outputs=(Port("image", (-1, 3, 32, 32), -1, 1, "NCHW"),),
        background=ABOUT,
    )
    (tmp_path / "cards").mkdir()
    for spec in (mapping, synthesis):  # the export itself compares each with torch
        checks = export_network(spec, tmp_path).verifications
        assert {check.batch_size for check in checks} >= {1, 3}
        assert all(check.max_abs_error <= check.tolerance for check in checks)


def test_convert_writes_weights_for_the_native_loader(tmp_path: Path) -> None:
    source = ada_snapshots.build(c_dim=3, clamp=256, num_fp16_res=1)
    path = ada_snapshots.write(tmp_path / "network.pkl", G_ema=source)
    out = tmp_path / "weights.safetensors"
    result = CliRunner().invoke(app, ["convert", str(path), "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "32 px, W+ of 8 × 8, 2 mapping layers, 3 classes" in result.output
    loaded, direct = native.load_generator(out), load_generator(path)
    assert loaded.config == direct.config
    z, psi, classes = torch.randn(2, 6), torch.tensor([0.5, 1]), torch.eye(3)[:2]
    torch.testing.assert_close(loaded(z, psi, classes), direct(z, psi, classes), atol=0, rtol=0)


def test_convert_refuses_by_name_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bad.pkl"
    path.write_bytes(b"\x80\x03cos\nsystem\n(X\x02\x00\x00\x00idtR.")
    out = tmp_path / "weights.safetensors"
    result = CliRunner().invoke(app, ["convert", str(path), "-o", str(out)])
    assert result.exit_code == 2
    assert "os.system" in result.output
    assert list(tmp_path.iterdir()) == [path]
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    result = CliRunner().invoke(app, ["convert", str(text), "-o", str(out)])
    assert result.exit_code == 2
    assert "neither a pickle nor an archive" in result.output
