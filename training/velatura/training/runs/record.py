"""What a run was: its command with the settings it really used, its steps and its time.

Runs build on each other (a generator at 128 px starts from one at 64), so a record tells all of
them, first to last.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from velatura.training.command_settings import SETTINGS_FILE
from velatura.training.runs.checkpoint import latest_checkpoint, read_state
from velatura.training.runs.logbook import read_csv_log

# Settings that say where files lie or how many may work, not what is learned.
_PLACES = ("out", "threads")
# Settings that name a run which this one starts from.
_EARLIER = ("start_from", "generator_run", "encoder_run", "joint_run")


@dataclass(frozen=True)
class RunRecord:
    """One command; `steps` and `minutes` are 0 where the run keeps no log of them."""

    command: str
    steps: int
    minutes: float


def read_records(run: Path) -> list[RunRecord]:
    """The records of `run` and, before it, of the runs that it started from.

    Runs without a settings.toml leave no record.
    """
    return list(_records(run, set()))


def _records(run: Path, seen: set[Path]) -> Iterator[RunRecord]:
    folder = run if run.is_dir() else run.parent
    if folder in seen or not (folder / SETTINGS_FILE).is_file():
        return
    seen.add(folder)
    text = (folder / SETTINGS_FILE).read_text()
    settings = tomllib.loads(text)
    for key in _EARLIER:
        if key in settings:
            yield from _records(Path(settings[key]), seen)
    name = re.search(r"(velatura-train \S+)", text.partition("\n")[0])
    steps, minutes = _length(folder)
    command = " ".join([name[1] if name else "velatura-train", *_options(settings)])
    yield RunRecord(command, steps, minutes)


def _options(settings: Mapping[str, Any]) -> Iterator[str]:
    """Settings as a command line gives them."""
    for key, value in settings.items():
        option = f"--{key.replace('_', '-')}"
        if key in _PLACES:
            continue
        if value is True:
            yield option
        elif value is False:
            yield f"--no-{option.removeprefix('--')}"
        else:
            yield f"{option} {value:g}" if isinstance(value, float) else f"{option} {value}"


def _length(folder: Path) -> tuple[int, float]:
    """Steps and minutes, of the last checkpoint or else of the log's last row."""
    checkpoint = latest_checkpoint(folder)
    if checkpoint is not None:
        state = read_state(checkpoint)
        return int(state["step"]), float(state.get("seconds", 0.0)) / 60
    log = folder / "log.csv"
    rows = read_csv_log(log) if log.is_file() else []
    if not rows:
        return 0, 0.0
    return int(rows[-1]["step"]), rows[-1].get("seconds", 0.0) / 60
