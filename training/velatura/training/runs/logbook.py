"""The CSV log of a training run and its progress bar.

One row a logged step. On resume the rows after the checkpoint's step are dropped, so that the
file reads as if the run had never been interrupted.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class CsvLog:
    """Appends rows with fixed columns; the first column is always `step`."""

    def __init__(self, path: Path, columns: Iterable[str], resume_step: int = 0) -> None:
        self.path = path
        self.columns = ["step", *columns]
        kept = _rows_until(path, resume_step) if resume_step else []
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Floats keep their full precision: two runs can be compared to the bit."""
        row = {"step": str(step)} | {name: repr(float(values[name])) for name in self.columns[1:]}
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)


def read_csv_log(path: Path) -> list[dict[str, float]]:
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def training_progress() -> Progress:
    """A bar with steps, a free text field `note`, elapsed and remaining time."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )


def _rows_until(path: Path, step: int) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if int(row["step"]) <= step]
