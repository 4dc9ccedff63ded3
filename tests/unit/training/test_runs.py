"""Runs: schedule, checkpoints, resuming."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from velatura.training.runs.checkpoint import latest_checkpoint, load_checkpoint
from velatura.training.runs.logbook import read_csv_log
from velatura.training.runs.loop import AveragedRun, Schedule, train
from velatura.training.runs.schedule import decayed_rate


def new_run(out: Path) -> AveragedRun:
    torch.manual_seed(0)
    network = nn.Linear(4, 1)
    learned: list[Tensor] = list(network.parameters())
    return AveragedRun(out, network, [(learned, 0.05)])


def go_on(run: AveragedRun, steps: int) -> float:
    """Fit y = sum of x; the batch depends on the step alone, as a resumable run's must."""

    def next_loss() -> Tensor:
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(run.step))
        loss: Tensor = (run.network(x) - x.sum(dim=1, keepdim=True)).square().mean()
        return loss

    def measure() -> float:
        return float(run.average.get_parameter("weight").detach().sum())

    return train(run, Schedule(steps, save_every=10, final_rate=1.0), next_loss, measure, "fit")


def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    whole = new_run(tmp_path / "whole")
    figure = go_on(whole, 40)
    go_on(new_run(tmp_path / "parts"), 20)
    resumed = new_run(tmp_path / "parts")
    assert resumed.step == 20
    assert go_on(resumed, 40) == pytest.approx(figure, abs=1e-6)
    torch.testing.assert_close(resumed.network.state_dict(), whole.network.state_dict())
    steps = [row["step"] for row in read_csv_log(tmp_path / "parts" / "log.csv")]
    assert steps == [10, 20, 30, 40]


def test_a_run_learns_and_its_average_follows(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    figure = go_on(run, 600)
    assert figure == pytest.approx(4.0, abs=0.3)


def test_only_the_newest_checkpoint_stays(tmp_path: Path) -> None:
    go_on(new_run(tmp_path), 30)
    assert [p.name for p in tmp_path.glob("*.safetensors")] == ["checkpoint-00000030.safetensors"]


def test_bare_weights_are_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "checkpoint-00000001.safetensors")
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    with pytest.raises(ValueError, match="weights only, no training state"):
        load_checkpoint(newest)


def test_the_schedule_ends_by_steps_or_minutes() -> None:
    assert Schedule(100).progress(50, 1e9) == 0.5
    assert Schedule(100, minutes=1).progress(50, 60) == 1.0


def test_rates_warm_up_and_decay() -> None:
    assert decayed_rate(0.0, 0, 0.1) < 0.05
    assert decayed_rate(0.5, 1000, 0.1) == pytest.approx(0.55)
    assert decayed_rate(1.0, 1000, 0.1) == pytest.approx(0.1)
