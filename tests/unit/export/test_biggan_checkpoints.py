"""Published BigGANs: exact layouts load strictly and make what their formulas say."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from velatura.export.audit import audit
from velatura.export.bundle import export_network, read_manifest
from velatura.export.class_networks import class_generator_spec, read_class_generator
from velatura.export.cli import app
from velatura.export.errors import CheckpointError
from velatura.export.networks.biggan_deep import BigGanDeep
from velatura.export.networks.biggan_pytorch import BigGan
from velatura.export.own_bundle import origin_of
from velatura.v1 import bundle_pb2

from . import biggan_files as files

ORIGIN = origin_of("", "")
PARITY = 1e-4  # of images of magnitude one


def latents(z_dim: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(9)
    return torch.randn(3, z_dim), torch.eye(files.CLASSES)[[0, 3, 4]]


def loaded(state: files.State, folder: Path, truncation: float = 1.0) -> BigGan | BigGanDeep:
    deep = "embeddings.weight" in state
    path = files.save_deep(state, folder) if deep else files.save(state, folder / "G_ema.pth")
    network = read_class_generator(path, truncation)
    assert isinstance(network, BigGanDeep if deep else BigGan)
    assert not network.training
    return network


@pytest.mark.parametrize(
    ("kind", "z_dim"),
    [
        ({}, 16),
        ({"hierarchical": False}, 4),
        ({"spectral": False}, 16),
        ({"hierarchical": False, "shared": False}, 4),
    ],
    ids=["hierarchical", "one z", "no spectral norm", "no shared embedding"],
)
def test_biggan_pytorch_makes_what_its_formulas_say(
    kind: dict[str, bool], z_dim: int, tmp_path: Path
) -> None:
    state = files.build(3, **kind)
    z, classes = latents(z_dim)
    expected = files.image_of(state, z, classes)
    network = loaded(state, tmp_path)
    assert network.config.z_dim == z_dim
    assert network.config.resolution == 32
    assert network.config.classes == ("0", "1", "2", "3", "4")
    assert expected.std() > 0.1
    assert torch.allclose(network(z, classes).double(), expected, atol=PARITY)


def test_deep_biggan_makes_what_its_formulas_say(tmp_path: Path) -> None:
    state = files.build_deep(4)
    z, classes = latents(files.DEEP_Z)
    for truncation, row in ((1.0, 50), (0.4, 20), (0.0, 0), (0.7, 35)):
        expected = files.deep_image_of(state, z, classes, row)
        network = loaded(state, tmp_path, truncation)
        assert network.config.resolution == 16
        assert expected.std() > 0.1
        assert torch.allclose(network(z, classes).double(), expected, atol=PARITY)


def test_between_two_rows_statistics_are_mixed_in_proportion(tmp_path: Path) -> None:
    state = files.build_deep(4)
    network = loaded(state, tmp_path, 0.405)  # a quarter of the way from row 20 to 21
    assert isinstance(network, BigGanDeep)
    rows = state["generator.bn.running_means"]
    assert torch.allclose(network.generator.bn.stored_mean, rows[20] * 0.75 + rows[21] * 0.25)


def test_without_its_configuration_blocks_alternate(tmp_path: Path) -> None:
    path = files.save_deep(files.build_deep(), tmp_path)
    (tmp_path / "config.json").unlink()
    network = read_class_generator(path, 1.0)
    assert isinstance(network, BigGanDeep)
    assert [block.up for block in network.config.blocks] == [False, True, False, True]
    layers = [[True, 4, 4], [True, 4, 2], [False, 2, 2], [True, 2, 1]]
    (tmp_path / "config.json").write_text(json.dumps({"layers": layers}))
    assert read_class_generator(path, 1.0).config.resolution == 32


def test_every_kind_of_batch_norm_keeps_the_same_statistics(tmp_path: Path) -> None:
    plain = files.build(5)
    z, classes = latents(16)
    expected = loaded(plain.copy(), tmp_path)(z, classes)
    synchronised: files.State = OrderedDict()
    standing: files.State = OrderedDict()
    for name, value in plain.items():
        norm, _, leaf = name.rpartition(".")
        if leaf not in ("stored_mean", "stored_var"):
            synchronised[name] = standing[name] = value
            continue
        synchronised[f"{norm}.bn.{leaf.replace('stored', 'running')}"] = value
        synchronised[f"{norm}.bn.num_batches_tracked"] = torch.tensor(7)
        standing[f"{norm}.bn.{leaf}"] = value * 16
        standing[f"{norm}.bn.accumulation_counter"] = torch.tensor([16.0])
    for other in (synchronised, standing):
        assert torch.allclose(loaded(other, tmp_path)(z, classes), expected, atol=1e-6)


def test_data_parallel_and_wrapped_files_are_the_same(tmp_path: Path) -> None:
    state = files.build(6)
    z, classes = latents(16)
    expected = loaded(state, tmp_path)(z, classes)
    wrapped = {"state_dict": {f"module.{n}": t for n, t in state.items()}, "epoch": 3}
    torch.save(wrapped, tmp_path / "wrapped.pt")
    network = read_class_generator(tmp_path / "wrapped.pt", 1.0)
    assert torch.equal(network(z, classes), expected)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s.pop("blocks.1.0.conv2.bias"), "blocks.1.0.conv2.bias"),
        (lambda s: s.update({"blocks.9.0.extra": torch.ones(1)}), "blocks.9.0.extra"),
        (lambda s: s.pop("blocks.1.0.conv2.u0"), "has no tensor blocks.1.0.conv2.u0"),
        (lambda s: s.pop("blocks.1.0.conv1.weight"), "no matrix blocks.1.0.conv1.weight"),
        (lambda s: s["linear.weight"].fill_(torch.nan), "linear.weight holds numbers"),
        (lambda s: s["linear.weight"].zero_(), "linear.weight: its spectral norm is 0"),
        (lambda s: s.update({"blocks.0.0.conv3.weight": torch.ones(1)}), "is BigGANdeep"),
    ],
)
def test_what_does_not_fit_is_named(damage, message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    state = files.build()
    damage(state)
    with pytest.raises(CheckpointError, match=message) as refused:
        read_class_generator(files.save(state, tmp_path / "G.pth"), 1.0)
    assert "G.pth" in str(refused.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s.pop("generator.layers.0.conv_2.weight_v"), "conv_2.weight_v"),
        (lambda s: s.pop("generator.layers.1.bn_3.running_vars"), "bn_3.stored_var"),
        (lambda s: s.update(other=torch.ones(1)), "other"),
    ],
)
def test_what_does_not_fit_the_deep_one_is_named(damage, message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    state = files.build_deep()
    damage(state)
    with pytest.raises(CheckpointError, match=message):
        read_class_generator(files.save_deep(state, tmp_path), 1.0)


def test_a_truncation_outside_of_its_range_is_refused(tmp_path: Path) -> None:
    path = files.save_deep(files.build_deep(), tmp_path)
    with pytest.raises(CheckpointError, match=r"truncation is 1\.2"):
        read_class_generator(path, 1.2)


def test_other_files_are_refused_with_what_is_known(tmp_path: Path) -> None:
    path = files.save(OrderedDict(weight=torch.ones(2)), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"neither NAME.safetensors .* nor of BigGAN-PyTorch"):
        read_class_generator(path, 1.0)


def test_the_deep_ones_graph_equals_it(tmp_path: Path) -> None:
    (tmp_path / "cards").mkdir()
    network = loaded(files.build_deep(7), tmp_path / "given", 0.5)
    entry = export_network(class_generator_spec("deep", network, ORIGIN, "class"), tmp_path)
    assert {v.batch_size for v in entry.verifications} == {1, 3, 8}
    assert entry.labels == ["0", "1", "2", "3", "4"]


def test_a_bundle_of_one_class_generator(tmp_path: Path) -> None:
    path = files.save(files.build(8), tmp_path / "G_ema.pth")
    names, out = tmp_path / "names.txt", tmp_path / "bundle"
    names.write_text("cat\ndog\nfox\nowl\nbee\n")
    options = ["--class-generator", path, "--class-names", names, "--name", "zoo", "--out", out]
    done = CliRunner().invoke(app, ["bundle", *map(str, options)])
    assert done.exit_code == 0, done.output
    manifest = read_manifest(out)
    (model,) = manifest.models
    assert (model.name, model.role) == ("zoo-classes", bundle_pb2.ROLE_CLASS_GENERATOR)
    assert model.labels == ["cat", "dog", "fox", "owl", "bee"]
    assert [tuple(t.shape) for t in model.inputs] == [(-1, 16), (-1, 5)]
    assert list(audit(out)) == [("zoo-classes", "")]
