"""Pictures of the dashboards, for a person's eye: the panels of the committed JSON, in its grid,
with the answers of a Prometheus that is running.

These are not Grafana's own pixels: queries, titles, units, colours and places are the dashboards',
the drawing is matplotlib's.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import yaml
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from velatura_ops import drawing
from velatura_ops.capacity import capacity, report
from velatura_ops.compose import ROOT
from velatura_ops.dashboards.catalog import BOARDS
from velatura_ops.drawing import INK, Palette, Series
from velatura_ops.load import drive
from velatura_ops.local_prometheus import Prometheus
from velatura_ops.queries import load, substituted
from velatura_ops.stack import Addresses, stack

OUT = ROOT / "docs/images/dashboards"
WIDTH, UNIT = 15.0, 0.36  # inches: of the picture, and of one row of Grafana's grid
POINTS = 150  # of a series
COLOURS = 96  # of the file: the pictures are flat, and small files stay small in the repository


class Drawer:
    """Draws dashboards from one Prometheus over one span of time (Unix seconds)."""

    def __init__(self, prometheus: Prometheus, start: float, end: float) -> None:
        self._prometheus = prometheus
        self._start, self._end = start, end
        scrape = _seconds(yaml.safe_load(prometheus.get("status/config")["yaml"])["global"])
        self._rate_interval = f"{max(int(4 * scrape), 10)}s"
        self._step = max(scrape, (end - start) / POINTS)
        self._palette = Palette()

    def draw(self, name: str) -> Figure:
        """One dashboard as a figure."""
        dashboard = load(name)
        panels = dashboard["panels"]
        height = max(each["gridPos"]["y"] + each["gridPos"]["h"] for each in panels) + 1.6
        figure = Figure(figsize=(WIDTH, height * UNIT), facecolor="#F4F5F7")
        figure.text(
            0.012, 1 - 0.9 / height, dashboard["title"], fontsize=15, weight="bold", color=INK,
            va="center",
        )  # fmt: skip
        for panel in panels:
            place = panel["gridPos"]
            top = 1 - (place["y"] + 1.6) / height
            if panel["type"] == "row":
                figure.text(
                    0.012, top - 0.55 / height, panel["title"], fontsize=11, weight="bold",
                    color=INK, va="center",
                )  # fmt: skip
                continue
            box = (place["x"] / 24, top - place["h"] / height, place["w"] / 24, place["h"] / height)
            self._panel(figure, panel, box, name)
        return figure

    def _panel(
        self,
        figure: Figure,
        panel: Mapping[str, Any],
        box: tuple[float, float, float, float],
        board: str,
    ) -> None:
        """One panel into `box`: left, bottom, width, height, as shares of the figure."""
        inch_x, inch_y = 1 / figure.get_figwidth(), 1 / figure.get_figheight()
        left, bottom, width, height = box
        left, bottom = left + 0.05 * inch_x, bottom + 0.05 * inch_y
        width, height = width - 0.1 * inch_x, height - 0.1 * inch_y
        figure.add_artist(
            FancyBboxPatch(
                (left, bottom), width, height, transform=figure.transFigure, zorder=-1,
                boxstyle="square,pad=0", facecolor="white", edgecolor="#D8DCE0", linewidth=0.8,
            )
        )  # fmt: skip
        figure.text(
            left + 0.1 * inch_x, bottom + height - 0.17 * inch_y, panel["title"], fontsize=9.5,
            weight="bold", color=INK, va="center",
        )  # fmt: skip

        def axes(west: float, south: float, east: float = 0.12, north: float = 0.36) -> Any:
            return figure.add_axes(
                (
                    left + west * inch_x,
                    bottom + south * inch_y,
                    width - (west + east) * inch_x,
                    height - (south + north) * inch_y,
                )
            )

        if panel["type"] == "table":
            samples = self._samples(panel)
            if samples:
                drawing.table(axes(0.12, 0.1), panel, samples)
            else:
                drawing.nothing(axes(0.12, 0.1), _absence(board, panel["title"]))
            return
        series = self._series(panel)
        if not series:
            drawing.nothing(axes(0.12, 0.1), _absence(board, panel["title"]))
        elif panel["type"] == "stat":
            drawing.stat(axes(0.05, 0.05, 0.05), panel, series)
        else:
            south = 0.36 + 0.135 * drawing.legend_lines(len(series))
            drawing.lines(axes(0.62, south), panel, series, self._palette, 0.135)

    def _series(self, panel: Mapping[str, Any]) -> list[Series]:
        """The answers to a panel's queries; series without a single value are left out."""
        found = []
        for target in panel["targets"]:
            expr = substituted(target["expr"], self._rate_interval)
            for answer in self._prometheus.query_range(expr, self._start, self._end, self._step):
                samples = np.array(answer["values"], dtype=np.float64)  # [n, 2]
                series = Series(
                    drawing.name_of(target.get("legendFormat", ""), answer["metric"]),
                    samples[:, 0],
                    np.where(np.isfinite(samples[:, 1]), samples[:, 1], np.nan),
                )
                if not np.isnan(series.values).all():
                    found.append(self._with_gaps(series))
        return found

    def _with_gaps(self, series: Series) -> Series:
        """The series on every step of the span, NaN where Prometheus says nothing."""
        grid = np.arange(self._start, self._end + self._step / 2, self._step)
        values = np.full(grid.shape, np.nan)
        places = np.rint((series.times - self._start) / self._step).astype(int)
        values[np.clip(places, 0, len(grid) - 1)] = series.values
        return Series(series.name, grid, values)

    def _samples(self, panel: Mapping[str, Any]) -> list[dict[str, str]]:
        """The labels of an instant query's samples."""
        return [
            answer["metric"]
            for target in panel["targets"]
            for answer in self._prometheus.query(
                substituted(target["expr"], self._rate_interval), self._end
            )
        ]


def _seconds(settings: Mapping[str, Any]) -> float:
    text = str(settings["scrape_interval"])
    return float(text[:-1]) * {"s": 1, "m": 60}[text[-1]]


def _absence(board: str, title: str) -> str:
    """Why a panel is empty, in the dashboards' own words where they have some."""
    reasons = [
        panel.optional
        for each in BOARDS
        if each.name == board
        for panel in each.panels
        if panel.title == title
    ]
    return (reasons and reasons[0]) or "Prometheus has no data for this."


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG of few colours."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, facecolor=figure.get_facecolor())
    picture = Image.open(buffer).convert("RGB")
    picture = picture.quantize(COLOURS, dither=Image.Dither.NONE)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, "PNG", optimize=True)


def draw_all(prometheus: Prometheus, seconds: float, folder: Path) -> None:
    """Draw every dashboard over the newest `seconds`."""
    now = time.time()
    drawer = Drawer(prometheus, now - seconds, now)
    for board in BOARDS:
        path = folder / f"{board.name}.png"
        save(drawer.draw(board.name), path)
        print(path, flush=True)


def draw_own(seconds: float, folder: Path) -> None:
    """Run a stack, load it for `seconds`, and draw it shortly before the load ends."""
    addresses = Addresses.free()
    with (
        tempfile.TemporaryDirectory(prefix="velatura-draw-") as scratch,
        stack(Path(scratch), addresses) as prometheus,
        ThreadPoolExecutor(1) as pool,
    ):
        loading = pool.submit(lambda: asyncio.run(drive(addresses.grpc, seconds)))
        time.sleep(0.9 * seconds)
        draw_all(prometheus, 0.85 * seconds, folder)
        tally = loading.result()
        print("load: " + ", ".join(f"{code} {n}" for code, n in sorted(tally.codes.items())))
        with urllib.request.urlopen(f"http://{addresses.metrics}/metrics", timeout=10) as page:
            report(capacity(page.read().decode()))


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="scripts/draw-dashboards", description=__doc__)
    parser.add_argument(
        "--prometheus", default="http://127.0.0.1:9091", metavar="URL", help="(%(default)s)"
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="span to draw (%(default)s)")
    parser.add_argument(
        "--load", type=float, metavar="SECONDS", help="run and load a stack instead, and draw that"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="folder (%(default)s)")
    options = parser.parse_args()
    mpl.rcParams["font.family"] = "DejaVu Sans"
    if options.load:
        draw_own(options.load, options.out)
        return 0
    try:
        draw_all(Prometheus(options.prometheus), options.minutes * 60, options.out)
    except OSError as error:
        advice = "Start one with `make stack`, or say --load 300."
        print(f"--prometheus {options.prometheus}: {error}. {advice}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
