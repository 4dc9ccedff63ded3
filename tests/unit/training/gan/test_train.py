"""The run: the same curve after a kill, what it leaves behind, what it refuses."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from velatura.export.checkpoints.native import load_generator
from velatura.training.cli import app
from velatura.training.gan.images import ImageSet
from velatura.training.gan.losses import OBJECTIVES, Objective
from velatura.training.gan.phases import discriminator_step, mixed_latents, step_generator
from velatura.training.gan.settings import GanSettings, RunLength
from velatura.training.gan.state import GanState
from velatura.training.gan.train import train_gan
from velatura.training.runs.logbook import read_csv_log

TINY = GanSettings(resolution=32, batch=4, width=0.0625, ada_kimg=0.2, r1_interval=4)


def length(steps: int, save_every: int = 6) -> RunLength:
    return RunLength(steps, save_every=save_every, log_every=1)


@pytest.mark.parametrize(
    "settings",
    [
        dataclasses.replace(TINY, path_length=2.0, augment_p=0.4),
        dataclasses.replace(TINY, spectral_norm=True, bf16=True, objective="hinge", augment_p=0.4),
    ],
    ids=["path_length", "spectral_norm_bf16"],
)
def test_a_resumed_run_logs_the_same_to_the_bit(
    tmp_path: Path, discs: ImageSet, settings: GanSettings
) -> None:
    whole = train_gan(settings, length(10), discs, tmp_path / "whole")
    train_gan(settings, length(6), discs, tmp_path / "parts")
    resumed = train_gan(settings, length(10), discs, tmp_path / "parts")
    logs = [(tmp_path / name / "log.csv").read_bytes() for name in ("whole", "parts")]
    assert logs[0] == logs[1]
    for name, tensor in whole.average.state_dict().items():
        assert torch.equal(tensor, resumed.average.state_dict()[name]), name
    rows = read_csv_log(tmp_path / "parts" / "log.csv")
    assert [row["step"] for row in rows] == list(range(1, 11))
    assert rows[-1]["p"] != rows[4]["p"]  # the controller's state is part of it


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_trains(tmp_path: Path, discs: ImageSet, objective: Objective) -> None:
    settings = dataclasses.replace(TINY, objective=objective)
    state = train_gan(settings, length(3), discs, tmp_path)
    (row,) = read_csv_log(tmp_path / "log.csv")[-1:]
    assert (row["gradient_penalty"] > 0) == (objective == "wasserstein")
    assert (row["r1"] > 0) == (objective != "wasserstein")
    assert state.step == 3


def test_a_run_leaves_a_generator_that_export_reads(tmp_path: Path, discs: ImageSet) -> None:
    state = train_gan(TINY, length(4), discs, tmp_path)
    generator = load_generator(tmp_path / "generator.safetensors")
    z = torch.randn(2, 128)
    torch.testing.assert_close(
        generator(z, torch.full((2,), 0.7)), state.average(z, torch.full((2,), 0.7))
    )
    assert generator.mapping.w_avg.abs().sum().item() > 0
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-00000004.safetensors"]
    with Image.open(tmp_path / "samples" / "step-000004.png") as grid:
        assert grid.size == (8 * 34 + 2, 4 * 34 + 2)
    assert (tmp_path / "samples" / "real.png").is_file()


def test_classes_condition_both_networks(tmp_path: Path, discs: ImageSet) -> None:
    labelled = ImageSet(discs.images, torch.arange(24) % 3, ("a", "b", "c"))
    train_gan(TINY, length(2), labelled, tmp_path)
    assert (tmp_path / "classes.txt").read_text() == "a\nb\nc\n"
    generator = load_generator(tmp_path / "generator.safetensors")
    z, psi = torch.randn(1, 128).repeat(2, 1), torch.ones(2)
    one, other = generator(z, psi, torch.eye(3)[:2])
    assert not torch.allclose(one, other)


def test_training_goes_on_from_given_weights(tmp_path: Path, discs: ImageSet) -> None:
    first = train_gan(TINY, length(2), discs, tmp_path / "first")
    weights = tmp_path / "first" / "generator.safetensors"
    state = GanState(TINY, 0, tmp_path / "second", weights)
    z, psi = torch.randn(2, 128), torch.ones(2)
    torch.testing.assert_close(state.generator(z, psi), first.average(z, psi))
    larger = dataclasses.replace(TINY, resolution=64)
    with pytest.raises(ValueError, match=r"start_from: .* is of 32 px .* this run is of 64 px"):
        GanState(larger, 0, tmp_path / "third", weights)


def test_a_run_is_resumed_only_with_its_own_settings(tmp_path: Path, discs: ImageSet) -> None:
    train_gan(TINY, length(1), discs, tmp_path)
    other = dataclasses.replace(TINY, r1_gamma=3.0)
    with pytest.raises(ValueError, match=r"r1_gamma: 3\.0, but .* was trained with None"):
        train_gan(other, length(2), discs, tmp_path)


def test_the_discriminator_learns_to_tell_discs_from_an_untrained_generator(
    tmp_path: Path, discs: ImageSet
) -> None:
    state = GanState(dataclasses.replace(TINY, ada=False, learning_rate=0.01), 0, tmp_path)
    losses = []
    for step in range(20):
        rng = step_generator(1, step)
        real, _ = discs.draw(4, rng)
        losses.append(discriminator_step(state, real, None, rng)["loss_d"])
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_the_average_trails_the_generator(tmp_path: Path, discs: ImageSet) -> None:
    settings = dataclasses.replace(TINY, kimg_ema=0.004)  # a half-life of one step of four images
    state = GanState(settings, 0, tmp_path)
    state.step = 10_000
    before = state.average.synthesis.b4.const.clone()
    state.generator.synthesis.b4.const.data += 1
    state.update_average()
    torch.testing.assert_close(state.average.synthesis.b4.const, before + 0.5)
    state.step = 40  # at the start the half-life is a twentieth of what was seen: two steps
    state.update_average()
    moved = state.average.synthesis.b4.const - before
    assert moved.mean().item() == pytest.approx(0.75, abs=1e-4)


def test_mixing_takes_the_later_layers_from_another_latent(tmp_path: Path) -> None:
    generator = GanState(TINY, 0, tmp_path).generator
    count, num_ws = 400, generator.config.num_ws
    rng = torch.Generator().manual_seed(0)
    w_plus = mixed_latents(generator, count, None, 0.9, rng)
    changes = (w_plus[:, 1:] != w_plus[:, :-1]).any(dim=2)  # [N, L - 1]
    assert changes.sum(dim=1).max().item() == 1
    assert changes.any(dim=1).float().mean().item() == pytest.approx(0.9, abs=0.04)
    assert changes.any(dim=0).all()  # every crossover occurs
    assert w_plus.shape == (count, num_ws, 128)
    plain = mixed_latents(generator, count, None, 0.0, rng)
    assert (plain == plain[:, :1]).all()


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, discs: ImageSet) -> None:
    state = GanState(TINY, 0, tmp_path)
    state.discriminator.out.bias.data.fill_(float("nan"))
    rng = step_generator(1, 0)
    with pytest.raises(FloatingPointError, match="lower learning rate"):
        discriminator_step(state, discs.draw(4, rng)[0], None, rng)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "lsgan"}, "objective: 'lsgan'"),
        ({"resolution": 48}, "resolution: 48"),
        ({"batch": 1}, "batch: 1"),
        ({"mixing": 1.5}, "mixing: 1.5"),
        ({"augment": "everything"}, "augment: 'everything'"),
        ({"ada_target": 2.0}, "target: 2.0"),
        ({"r1_gamma": -1.0}, "r1_gamma: -1.0"),
        ({"path_interval": 0}, "path_interval: 0"),
        ({"objective": "wasserstein", "gradient_penalty": 0.0}, "gradient_penalty: 0 with"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GanSettings(**settings)  # type: ignore[arg-type]


def test_the_time_budget_ends_a_run() -> None:
    assert RunLength(10, minutes=1).over(3, 60)
    assert not RunLength(10, minutes=1).over(3, 59)
    assert not RunLength(10).over(9, 1e9)
    assert RunLength(10).over(10, 0)
    with pytest.raises(ValueError, match="save_every: 0"):
        RunLength(10, save_every=0)


def test_the_command_resumes_after_a_kill(tmp_path: Path, discs: ImageSet) -> None:
    """SIGKILL in the middle of a run; the second sitting must write the unbroken run's log."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index, image in enumerate(discs.images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{index}.png")
    options = ["gan", "--data", str(folder), "--resolution", "32", "--batch", "4"]
    options += ["--width", "0.0625", "--threads", "1", "--save-every", "5", "--augment-p", "0.3"]
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    program = "from velatura.training.cli import app; app()"
    with subprocess.Popen(
        [sys.executable, "-c", program, *options, "--out", str(broken), "--steps", "100000"],
        stdout=subprocess.DEVNULL,
    ) as victim:
        deadline = time.monotonic() + 200
        while not list(broken.glob("checkpoint-*.safetensors")):
            assert victim.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(victim.pid, signal.SIGKILL)
    (checkpoint,) = broken.glob("checkpoint-*.safetensors")
    steps = int(checkpoint.stem.removeprefix("checkpoint-")) + 10
    for out in (broken, whole):
        result = CliRunner().invoke(app, [*options, "--out", str(out), "--steps", str(steps)])
        assert result.exit_code == 0, result.output
    assert (broken / "log.csv").read_text() == (whole / "log.csv").read_text()
    assert len(read_csv_log(broken / "log.csv")) == steps // 10


def test_the_command_names_what_is_wrong(tmp_path: Path) -> None:
    options = ["gan", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, [*options, "--threads", "1"])
    assert result.exit_code == 2
    # The box that Typer draws breaks the sentence anywhere.
    assert "no such folder" in " ".join(result.output.replace("│", " ").split())
