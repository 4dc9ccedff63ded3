"""The report's charts, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from velatura.training.evaluation.directions import is_measured
from velatura.training.evaluation.figures import Measured
from velatura.training.evaluation.sweep import Curve
from velatura.v1 import bundle_pb2

_MAIN, _SECOND, _GATE = "#3b6ea5", "#d98c3f", "#b03030"
_DPI = 90


def plot_directions(
    path: Path, directions: bundle_pb2.DirectionSet, success: float, preservation: float
) -> None:
    """Success and preservation of each measured direction, with the wanted values as lines."""
    measured = [d for d in directions.directions if is_measured(d)]
    names = [d.name for d in measured]
    figure = Figure(figsize=(9, 1.2 + 0.2 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    left.set_title("success (background: approach)", fontsize=9)
    right.set_title("preservation of the rest", fontsize=9)
    effects, kept = ([d.figures[i].value for d in measured] for i in range(2))
    _dots(left, effects, success)
    _dots(right, kept, preservation)
    left.set_yticks(range(len(names)), names)
    left.set_ylim(len(names) - 0.5, -0.5)  # the first above
    _save(figure, path)


def plot_iou(path: Path, segmenters: Mapping[str, Sequence[Measured]], least: float) -> None:
    """IoU of each class, one colour for each segmenter, with the least wanted value as a line."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / max(1, len(segmenters))
    classes: list[str] = []
    for i, (name, figures) in enumerate(segmenters.items()):
        by_class = {f.name.removeprefix("IoU/"): f.value for f in figures if "IoU/" in f.name}
        classes = list(by_class)
        places = [c + (i + 0.5) * width - 0.4 for c in range(len(classes))]
        axes.bar(places, list(by_class.values()), width, label=name, color=(_MAIN, _SECOND)[i % 2])
    axes.axhline(least, color=_GATE, linewidth=1)
    axes.set_xticks(range(len(classes)), classes, rotation=20)
    axes.set_ylim(0, 1.0)
    axes.tick_params(labelsize=8)
    axes.set_ylabel("IoU", fontsize=8)
    axes.legend(loc="lower right", fontsize=8)
    _save(figure, path)


def plot_sweep(path: Path, curves: Mapping[str, Curve]) -> None:
    """Success and preservation over strength, one panel for each direction."""
    columns = 3
    rows = max(1, -(-len(curves) // columns))
    figure = Figure(figsize=(9, 2.3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    for axes, (name, curve) in zip(panels, curves.items(), strict=False):
        axes.plot(curve.strengths, curve.success, color=_MAIN, marker=".", label="success")
        axes.plot(
            curve.strengths, curve.preservation, color=_SECOND, marker=".", label="preservation"
        )
        axes.set_title(name, fontsize=9)
        axes.set_ylim(0, 1.03)
        axes.tick_params(labelsize=7)
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    if curves:
        panels[0].legend(fontsize=7, loc="lower right")
    figure.supxlabel("strength", fontsize=9)
    _save(figure, path)


def _dots(axes: Axes, values: Sequence[float], wanted: float) -> None:
    """One dot a row, in another colour where it falls short of the wanted value's line."""
    colours = [_MAIN if value >= wanted else _SECOND for value in values]
    axes.scatter(values, range(len(values)), color=colours, s=16, zorder=2)
    axes.axvline(wanted, color=_GATE, linewidth=1)
    axes.grid(axis="both", color="#e4e4e4", linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7)
    axes.set_xlim(right=1.01)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    # No date and no version in the file: the same figures give the same bytes.
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})
