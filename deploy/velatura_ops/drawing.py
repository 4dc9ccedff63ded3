"""Draws one panel of a dashboard with matplotlib: lines, areas, a large value, a table."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, Locator, MaxNLocator, MultipleLocator
from numpy.typing import NDArray

from velatura_ops.units import written

INK, FAINT, GRID = "#24292E", "#6E7781", "#E4E7EB"
# Apart in hue and in lightness; dealt out by name, so that a name keeps its colour in every panel.
PALETTE = (
    "#3274D9", "#56A64B", "#FA6400", "#8F3BB8", "#E0B400", "#C4162A", "#37A2A2", "#A352CC",
    "#7A5C3E", "#FF7FB0", "#6E7F1A", "#1F3A93", "#B0BEC5", "#00897B",
)  # fmt: skip
MOST_IN_LEGEND = 8


@dataclass(frozen=True)
class Series:
    """One series: Unix seconds [n] and values [n], NaN where there is none."""

    name: str
    times: NDArray[np.float64]
    values: NDArray[np.float64]

    @property
    def last(self) -> float:
        """The newest value that there is."""
        there = self.values[~np.isnan(self.values)]
        return float(there[-1]) if there.size else math.nan


def name_of(legend: str, labels: Mapping[str, str]) -> str:
    """A series' name from its panel's legend, `{{label}}` being a label's value."""
    if legend in {"", "__auto"}:
        return ", ".join(value for key, value in labels.items() if key != "__name__") or "value"
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: labels.get(match[1], ""), legend)


def overrides(panel: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a panel's JSON says of series by their names: {name: {property: value}}."""
    return {
        each["matcher"]["options"]: {one["id"]: one.get("value") for one in each["properties"]}
        for each in panel["fieldConfig"].get("overrides", ())
        if each["matcher"]["id"] == "byName"
    }


class Palette:
    """Gives a name the same colour wherever it comes."""

    def __init__(self) -> None:
        self._given: dict[str, str] = {}

    def colour(self, name: str, panel: Mapping[str, Any]) -> str:
        """The panel's own colour for the name, else the next one of the palette."""
        own = overrides(panel).get(name, {}).get("color")
        if own:
            return str(own["fixedColor"])
        return self._given.setdefault(name, PALETTE[len(self._given) % len(PALETTE)])


def lines(
    axes: Axes,
    panel: Mapping[str, Any],
    series: Sequence[Series],
    palette: Palette,
    line_inches: float,
) -> None:
    """A time series panel: lines, or areas on each other where the panel stacks; the legend below,
    in lines of that height."""
    defaults = panel["fieldConfig"]["defaults"]
    unit, custom = defaults["unit"], defaults["custom"]
    stacked = custom["stacking"]["mode"] == "normal"
    colours = [palette.colour(each.name, panel) for each in series]
    if stacked:
        grid = np.unique(np.concatenate([each.times for each in series]))
        rows = [_on(grid, each) for each in series]
        axes.stackplot(grid, rows, colors=colours, alpha=0.75, linewidth=0)
    else:
        special = overrides(panel)
        for each, colour in zip(series, colours, strict=True):
            dashed = "custom.lineStyle" in special.get(each.name, {})
            axes.plot(
                each.times, each.values, color=colour, linewidth=1.4, ls="--" if dashed else "-"
            )
    if custom.get("scaleDistribution", {}).get("type") == "log":
        axes.set_yscale("log")
    else:
        _limits(axes, defaults)
        axes.yaxis.set_major_locator(_ticks(axes.get_ylim()[1], unit))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value, unit)))
    axes.set_xlim(series[0].times[0], series[0].times[-1])
    axes.xaxis.set_major_locator(MaxNLocator(4, prune="both"))
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{_clock(value)}"))
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7, colors=FAINT, length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    _legend(axes, series, colours, unit, line_inches)


def _on(grid: NDArray[np.float64], series: Series) -> NDArray[np.float64]:
    """A series' values at other times; 0 where it has none."""
    known = dict(zip(series.times, np.nan_to_num(series.values), strict=True))
    return np.array([known.get(time, 0.0) for time in grid])


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%H:%M:%S")


def _ticks(high: float, unit: str) -> Locator:
    """About four ticks, at round numbers of the unit."""
    if unit != "bytes":
        return MaxNLocator(4)
    return MultipleLocator(2.0 ** math.ceil(math.log2(max(high, 4.0) / 4)))


def _limits(axes: Axes, defaults: Mapping[str, Any]) -> None:
    low, high = axes.get_ylim()
    if defaults.get("min") is not None:
        low = float(defaults["min"])
    if defaults.get("max") is not None:
        high = max(high, float(defaults["max"]))
    if defaults["unit"] == "percentunit" and high < 0.02:
        high = 0.02  # else noise near nothing looks like trouble
    axes.set_ylim(low, high if high > low else low + 1.0)


def _legend(
    axes: Axes, series: Sequence[Series], colours: Sequence[str], unit: str, line_inches: float
) -> None:
    """Names and newest values in two columns below the axes."""
    figure = axes.get_figure(root=True)
    assert figure is not None  # noqa: S101 - they stand in one
    inch_x = 1 / (axes.get_position().width * figure.get_figwidth())  # as a share of the axes
    inch_y = 1 / (axes.get_position().height * figure.get_figheight())
    ranked = sorted(
        zip(series, colours, strict=True),
        key=lambda pair: -float(np.nanmax(pair[0].values, initial=-math.inf)),
    )
    shown, rest = ranked[:MOST_IN_LEGEND], len(ranked) - MOST_IN_LEGEND
    columns = 2 if len(shown) > 1 else 1
    for place, (each, colour) in enumerate(shown):
        x = (place % columns) / columns
        y = -(0.24 + line_inches * (place // columns)) * inch_y
        more = f"  (+{rest} more)" if rest > 0 and place == len(shown) - 1 else ""
        axes.text(
            x - 0.08 * inch_x, y, "■", color=colour, fontsize=7, transform=axes.transAxes, va="top"
        )
        text = f"{_cut(each.name, 26)}  {written(each.last, unit)}{more}"
        axes.text(
            x + 0.06 * inch_x, y, text, color=INK, fontsize=7, transform=axes.transAxes, va="top"
        )


def legend_lines(series: int) -> int:
    """How many lines `lines` writes below the axes."""
    return math.ceil(min(series, MOST_IN_LEGEND) / 2) if series > 1 else 1


def stat(axes: Axes, panel: Mapping[str, Any], series: Sequence[Series]) -> None:
    """The newest value, large, in its threshold's colour; its course behind."""
    defaults = panel["fieldConfig"]["defaults"]
    value = series[0].last
    steps = defaults["thresholds"]["steps"]
    colour = [
        step["color"] for step in steps if step.get("value") is None or value >= step["value"]
    ][-1]
    text = written(value, defaults["unit"])
    for mapping in defaults.get("mappings", ()):
        text = mapping["options"].get(f"{value:g}", {}).get("text", text)
    axes.axis("off")
    if panel["options"]["graphMode"] == "area" and len(series[0].times) > 1:
        values = np.nan_to_num(series[0].values)
        axes.fill_between(series[0].times, values, color=colour, alpha=0.15, linewidth=0)
        axes.margins(x=0)
        axes.set_ylim(min(0.0, float(values.min())), max(float(values.max()) * 1.8, 1e-9))
    axes.text(
        0.5, 0.5, text, color=colour, fontsize=19, weight="bold", ha="center", va="center",
        transform=axes.transAxes,
    )  # fmt: skip


def table(axes: Axes, panel: Mapping[str, Any], samples: Sequence[Mapping[str, str]]) -> None:
    """The chosen labels of each sample, one line each."""
    (organised,) = (each for each in panel["transformations"] if each["id"] == "organize")
    order = organised["options"]["indexByName"]
    columns = sorted(order, key=lambda name: order[name])
    rows = sorted({tuple(each.get(column, "") for column in columns) for each in samples})
    longest = [
        max(len(_cut(text, 24)) for text in (column, *(row[index] for row in rows))) + 2
        for index, column in enumerate(columns)
    ]
    starts = [sum(longest[:index]) / sum(longest) for index in range(len(columns))]
    axes.axis("off")
    step = min(0.16, 1.0 / (len(rows) + 1.5))
    for line, cells in enumerate((tuple(columns), *rows)):
        for x, cell in zip(starts, cells, strict=True):
            axes.text(
                x, 1.0 - line * step, _cut(cell, 24), fontsize=7.5, va="top",
                color=FAINT if line == 0 else INK, weight="bold" if line == 0 else "normal",
                transform=axes.transAxes,
            )  # fmt: skip


def nothing(axes: Axes, text: str) -> None:
    """Why there is nothing to see."""
    axes.axis("off")
    axes.text(
        0.5, 0.5, text, color=FAINT, fontsize=8, ha="center", va="center", wrap=True,
        transform=axes.transAxes,
    )  # fmt: skip


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
