"""Draws p and r_t of adversarial runs over their steps, one panel a run.

python -m velatura.training.gan.ada_plot PICTURE RUN [RUN …]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from velatura.training.runs.logbook import read_csv_log

_TARGET = 0.6
_SMOOTHED = 5  # logged steps that r_t is averaged over; each is of a few dozen signs


def plot_runs(picture: Path, runs: Sequence[Path]) -> None:
    """Write `picture` (PNG) from each run's log.csv. Raises ValueError when one is too short."""
    figure, panels = plt.subplots(1, len(runs), figsize=(5 * len(runs), 3.2), squeeze=False)
    for panel, run in zip(panels[0], runs, strict=True):
        rows = read_csv_log(run / "log.csv")
        if len(rows) < 2:
            raise ValueError(f"{run / 'log.csv'}: {len(rows)} rows; nothing to draw yet")
        steps = [row["step"] for row in rows]
        measured = [row["r_t"] for row in rows]
        panel.plot(steps, _averaged(measured), label="r_t = E sign D(real)", color="tab:orange")
        panel.plot(steps, [row["p"] for row in rows], label="p", color="tab:blue", linewidth=2)
        panel.axhline(_TARGET, color="grey", linestyle=":", label="target of r_t")
        panel.set(title=run.name, xlabel="step", ylim=(-0.6, 1.05))
        panel.legend(loc="lower right", fontsize="small")
    figure.tight_layout()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=100)
    plt.close(figure)


def _averaged(values: Sequence[float]) -> list[float]:
    """Each value's mean with those just before it."""
    windows = (values[max(0, i + 1 - _SMOOTHED) : i + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


if __name__ == "__main__":
    plot_runs(Path(sys.argv[1]), [Path(run) for run in sys.argv[2:]])
