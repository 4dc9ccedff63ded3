"""Pictures of panels: names, units and what is drawn, without a Prometheus."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from velatura_ops import draw, drawing
from velatura_ops.drawing import Palette, Series
from velatura_ops.local_prometheus import Prometheus
from velatura_ops.queries import load
from velatura_ops.units import written


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0123, "s", "12.3 ms"),
        (90.0, "s", "1.5 min"),
        (0.0, "s", "0 s"),
        (5e-7, "s", "0.5 µs"),
        (0.034, "percentunit", "3.4 %"),
        (1536.0, "bytes", "1.5 KiB"),
        (1500.0, "Bps", "1.5 kB/s"),
        (12.0, "reqps", "12 /s"),
        (0.0, "reqps", "0 /s"),
        (1_234_567.0, "short", "1.23 M"),
        (3.0, "short", "3"),
        (math.nan, "short", "–"),
    ],
)
def test_values_are_written_with_their_unit(value: float, unit: str, text: str) -> None:
    assert written(value, unit) == text


def test_every_unit_of_the_dashboards_is_known() -> None:
    for name in ("service", "models", "resources", "load"):
        for panel in load(name)["panels"]:
            if panel["type"] != "row":
                assert written(1.0, panel["fieldConfig"]["defaults"]["unit"])


def test_series_are_named_by_their_legend() -> None:
    assert drawing.name_of("{{model}} {{ reason }}", {"model": "m", "reason": "r"}) == "m r"
    assert drawing.name_of("__auto", {"__name__": "up", "instance": "i"}) == "i"


def test_a_name_has_one_colour_and_the_panels_own_comes_first() -> None:
    palette = Palette()
    codes = {
        "fieldConfig": {
            "overrides": [
                {
                    "matcher": {"id": "byName", "options": "OK"},
                    "properties": [{"id": "color", "value": {"fixedColor": "#123456"}}],
                }
            ]
        }
    }
    plain: dict[str, Any] = {"fieldConfig": {}}
    assert palette.colour("OK", codes) == "#123456"
    first, second = palette.colour("a", plain), palette.colour("b", plain)
    assert first != second
    assert palette.colour("a", plain) == first


def test_newest_value_is_the_last_that_there_is() -> None:
    times = np.arange(3.0)
    assert Series("s", times, np.array([1.0, 2.0, math.nan])).last == 2.0
    assert math.isnan(Series("s", times, np.full(3, math.nan)).last)


class Answering(Prometheus):
    """Answers every question with two series that climb."""

    def get(self, path: str, **parameters: str) -> Any:
        if path == "status/config":
            return {"yaml": "global: {scrape_interval: 5s}"}
        start = float(parameters.get("start", 0))
        labels = [{"model": name, "grpc_method": name, "instance": name} for name in ("a", "b")]
        if path == "query":
            return {"result": [{"metric": each, "value": [0, "1"]} for each in labels]}
        values = [[start + 5 * step, str(step)] for step in range(12)]
        return {"result": [{"metric": each, "values": values} for each in labels]}


def test_a_dashboard_becomes_a_small_picture_with_every_panel(tmp_path: Path) -> None:
    figure = draw.Drawer(Answering("http://nobody"), 0.0, 55.0).draw("load")
    texts = {text.get_text() for text in figure.texts}
    assert {panel["title"] for panel in load("load")["panels"]} <= texts
    path = tmp_path / "pictures/load.png"
    draw.save(figure, path)
    assert path.stat().st_size < 250_000
    with Image.open(path) as picture:
        assert picture.width == 1500
        colours = picture.convert("RGB").getcolors(1 << 20)
    assert colours is not None
    assert len(colours) > 20


def test_an_empty_panel_says_why(tmp_path: Path) -> None:
    class Silent(Answering):
        def get(self, path: str, **parameters: str) -> Any:
            return super().get(path, **parameters) if path == "status/config" else {"result": []}

    figure = draw.Drawer(Silent("http://nobody"), 0.0, 55.0).draw("resources")
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert sum("NVML" in text for text in texts) == 2
    assert "Prometheus has no data for this." in texts
