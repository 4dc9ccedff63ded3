"""Files of rosinality's stylegan2-pytorch load strictly, and compute what the papers say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from velatura.export.checkpoints import native
from velatura.export.checkpoints.rosinality import load_generator
from velatura.export.cli import app
from velatura.export.errors import CheckpointError

from . import rosinality_files as files


@pytest.mark.parametrize("modern", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("noises", [True, False], ids=["noise", "no noise"])
def test_a_file_computes_what_its_tensors_say(tmp_path: Path, modern: bool, noises: bool) -> None:
    state = files.build(noises=noises)
    average = torch.randn(files.W_DIM)
    path = files.write(tmp_path / "file.pt", state, modern=modern, latent_avg=average)
    generator = load_generator(path)
    z = torch.randn(3, files.W_DIM)
    w, images = files.expected(state, z)
    torch.testing.assert_close(
        generator.mapping(z, torch.ones(3)).double(), w, atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(generator(z, torch.ones(3)).double(), images, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(generator.mapping(z[:1], torch.zeros(1))[0], average)
    assert generator.config.channels == files.CHANNELS
    assert generator.config.resample_filter == (1, 3, 3, 1)
    assert (generator.config.num_ws, generator.config.mapping_layers) == (8, files.DEPTH)


def test_without_an_average_it_is_taken_of_samples(tmp_path: Path) -> None:
    generator = load_generator(files.write(tmp_path / "file.pt", files.build()))
    w = generator.mapping(torch.randn(20_000, files.W_DIM), torch.ones(20_000))
    spread = w.std(dim=0)
    assert spread.min() > 0.1
    assert ((generator.mapping.w_avg - w.mean(dim=0)).abs() < 0.06 * spread).all()
    again = load_generator(tmp_path / "file.pt")
    torch.testing.assert_close(again.mapping.w_avg, generator.mapping.w_avg, atol=0, rtol=0)


def test_a_training_checkpoint_loads_with_all_that_is_beside_it(tmp_path: Path) -> None:
    averaged, trained = files.build(0), files.build(1)
    path = files.write(tmp_path / "file.pt", averaged, **files.training_entries(trained))
    torch.testing.assert_close(load_generator(path).mapping.fc0.weight, averaged["style.1.weight"])
    torch.testing.assert_close(
        load_generator(path, "g").mapping.fc0.weight, trained["style.1.weight"]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("convs.1.activate.bias"), r"has no tensor convs\.1\.activate\.bias"),
        (lambda s: s.pop("conv1.conv.weight"), r"has no conv1\.conv\.weight"),
        (lambda s: s.pop("noises.noise_3"), r"has no tensor noises\.noise_3"),
        (lambda s: s.update({"extra.weight": torch.zeros(1)}), "left over: extra.weight"),
        (lambda s: s.update({"to_rgbs.1.bias": torch.zeros(1, 4, 1, 1)}), "size mismatch"),
        (lambda s: s.update({"input.input": torch.zeros(6, 4, 4)}), "input.input has shape"),
        (lambda s: s.update({"convs.0.conv.blur.kernel": torch.ones(4, 4) / 4}), "differs"),
        (lambda s: s["style.2.weight"].fill_(torch.nan), "fc1.weight holds numbers"),
        (lambda s: s.update({"style.1.weight": "text"}), r"style\.1\.weight is no tensor"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, change: Any, message: str) -> None:
    state = files.build()
    change(state)
    path = files.write(tmp_path / "file.pt", state)
    with pytest.raises(CheckpointError, match=r"file\.pt: g_ema: (.|\n)*" + f"({message})"):
        load_generator(path)


@pytest.mark.parametrize(
    ("average", "message"),
    [
        (torch.zeros(7), r"latent_avg has shape \[7\]"),
        (torch.arange(16.0).reshape(2, 8), "differs from layer to layer"),
        ("text", "latent_avg is no tensor"),
    ],
)
def test_an_average_that_does_not_fit_is_named(tmp_path: Path, average: Any, message: str) -> None:
    path = files.write(tmp_path / "file.pt", files.build(), latent_avg=average)
    with pytest.raises(CheckpointError, match=message):
        load_generator(path)


def test_a_file_without_the_network_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "file.pt")
    with pytest.raises(CheckpointError, match=r"holds no 'g_ema'; found \['state_dict'\]"):
        load_generator(tmp_path / "file.pt")


@pytest.mark.parametrize("modern", [True, False], ids=["zip", "legacy"])
def test_convert_knows_the_format_by_content(tmp_path: Path, modern: bool) -> None:
    path = files.write(tmp_path / "misnamed.pkl", files.build(), modern=modern)
    out = tmp_path / "folder" / "weights.safetensors"
    result = CliRunner().invoke(app, ["convert", str(path), "-o", str(out)])
    assert result.exit_code == 0, result.output
    loaded, direct = native.load_generator(out), load_generator(path)
    z, psi = torch.randn(2, files.W_DIM), torch.ones(2)
    torch.testing.assert_close(loaded(z, psi), direct(z, psi), atol=0, rtol=0)


def test_convert_obeys_the_format_that_is_forced(tmp_path: Path) -> None:
    path = files.write(tmp_path / "file.pt", files.build())
    out = tmp_path / "weights.safetensors"
    arguments = ["convert", str(path), "-o", str(out), "--format", "stylegan2-ada"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert not out.exists()
    result = CliRunner().invoke(app, ["convert", str(path), "-o", str(tmp_path / "weights.pt")])
    assert result.exit_code == 2
    assert "must end in .safetensors" in result.output
