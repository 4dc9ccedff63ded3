"""What a run leaves behind about itself, and how the weights' runs.json is made of it."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from velatura.export.checkpoints.native import save_weights
from velatura.training.assemble import RUNS_FILE, Runs, assemble_weights
from velatura.training.classifier.network import AttributeClassifier, ClassifierConfig
from velatura.training.classifier.train import WEIGHTS_FILE
from velatura.training.command_settings import SETTINGS_FILE, write_settings
from velatura.training.runs.checkpoint import checkpoint_path, save_checkpoint
from velatura.training.runs.logbook import CsvLog
from velatura.training.runs.record import RunRecord, read_records


def leave(run: Path, command: str, steps: int, seconds: float, **settings: object) -> Path:
    write_settings(run / SETTINGS_FILE, command, {"out": str(run), "threads": 2, **settings})
    CsvLog(run / "log.csv", ["loss", "seconds"]).write(steps, {"loss": 1.0, "seconds": seconds})
    return run


def test_a_record_tells_the_runs_before_it_first(tmp_path: Path) -> None:
    small = leave(tmp_path / "small", "velatura-train generator", 500, 60, resolution=64)
    large = leave(
        tmp_path / "large",
        "velatura-train generator",
        700,
        1800,
        resolution=128,
        start_from=str(small),
        bf16=True,
        compile=False,
        learning_rate=2e-3,
    )
    first, second = read_records(large / "checkpoint-00000700.safetensors")
    assert first == RunRecord("velatura-train generator --resolution 64", 500, 1.0)
    assert second == RunRecord(
        f"velatura-train generator --resolution 128 --start-from {small} --bf16 --no-compile "
        "--learning-rate 0.002",
        700,
        30.0,
    )


def test_the_last_checkpoint_tells_more_than_the_log(tmp_path: Path) -> None:
    run = leave(tmp_path, "velatura-train mapping", 500, 60)
    save_checkpoint(
        checkpoint_path(run, 512), {"x": torch.zeros(1)}, {"step": 512, "seconds": 90.0}
    )
    assert read_records(run) == [RunRecord("velatura-train mapping", 512, 1.5)]


def test_runs_that_name_each_other_end(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    leave(here, "velatura-train encoder", 1, 60, encoder_run=str(there))
    leave(there, "velatura-train encoder", 2, 60, encoder_run=str(here))
    assert [record.steps for record in read_records(here)] == [2, 1]


def test_a_run_without_settings_leaves_no_record(tmp_path: Path) -> None:
    assert read_records(tmp_path) == []


def test_assembling_keeps_the_records_of_networks_left_alone(tmp_path: Path) -> None:
    weights, run = tmp_path / "weights", tmp_path / "run"
    weights.mkdir()
    kept = {"avatar-encoder": [{"command": "velatura-train encoder", "steps": 1, "minutes": 2.0}]}
    (weights / RUNS_FILE).write_text(json.dumps(kept))
    leave(run, "velatura-train classifier", 10, 120, batch=32)
    config = ClassifierConfig(resolution=16, channels=(4,), blocks=(1,), neck=2, features=4)
    save_weights(run / WEIGHTS_FILE, AttributeClassifier(config), config)
    assemble_weights(Runs(classifier=run), weights)
    assert json.loads((weights / RUNS_FILE).read_text()) == kept | {
        "avatar-classifier": [
            {"command": "velatura-train classifier --batch 32", "steps": 10, "minutes": 2.0}
        ]
    }
