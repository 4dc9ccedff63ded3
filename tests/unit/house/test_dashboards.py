"""The dashboards are what the code writes, complete, and about metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from velatura.server.observability.metrics import Metrics
from velatura_ops.dashboards import __main__ as writer
from velatura_ops.dashboards.board import Board, Kind, Panel, Query, Row
from velatura_ops.dashboards.catalog import BOARDS
from velatura_ops.dashboards.grafana import to_json
from velatura_ops.queries import FOLDER, load, names, panels, queries, substituted

from .repository import ROOT, run

PROVISIONING = ROOT / "deploy/grafana/provisioning"
PANELS = [(board, panel) for board in BOARDS for panel in board.panels]
IDS = [f"{board.name}: {panel.title}" for board, panel in PANELS]
METRIC = re.compile(r"\b([a-zA-Z_:]+)\{")


def metrics_of(registry: CollectorRegistry) -> set[str]:
    """Every name that queries may use, with histograms' and counters' suffixes."""
    found = set()
    for family in registry.collect():
        ends = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
        found |= {family.name + end for end in ends.get(family.type, [""])}
    return found


def test_what_is_committed_is_what_the_code_writes() -> None:
    assert run(ROOT / "scripts/dashboards", "--check").returncode == 0


def test_a_change_by_hand_is_found(tmp_path: Path) -> None:
    folder = shutil.copytree(FOLDER, tmp_path / "dashboards")
    file = folder / "models.json"
    file.write_text(file.read_text().replace('"unit": "s"', '"unit": "ms"', 1))
    (folder / "left-over.json").write_text("{}")
    (folder / "load.json").unlink()
    assert writer.stale(folder) == ["left-over.json", "load.json", "models.json"]
    writer.write(folder)
    assert writer.stale(folder) == []


def test_the_four_dashboards_are_there() -> None:
    assert names() == ["load", "models", "resources", "service"]
    assert len({load(name)["uid"] for name in names()}) == 4


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=IDS)
def test_panel_says_what_it_shows_and_what_to_do(board: Board, panel: Panel) -> None:
    assert panel.title
    assert panel.description.endswith(".")
    assert len(panel.description) > 25
    assert panel.unit
    assert panel.queries
    assert all(query.legend or panel.kind is Kind.TABLE for query in panel.queries)
    titles = [each.title for each in board.panels]
    assert titles.count(panel.title) == 1


@pytest.mark.parametrize("name", names())
def test_panels_fill_the_grid_without_overlap(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    identifiers = []
    for panel in load(name)["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        identifiers.append(panel["id"])
    assert len(set(identifiers)) == len(identifiers)


def test_queries_ask_for_metrics_of_the_server_and_the_chosen_instances() -> None:
    # What describes the build has its labels, and so its name, only when the server is up.
    there = metrics_of(Metrics().registry) | {"velatura_build_info", "velatura_bundle_info"}
    there.add("ALERTS")  # Prometheus' own
    asked: set[str] = set()
    for name in names():
        for panel in panels(load(name)):
            for target in panel["targets"]:
                found = METRIC.findall(target["expr"])
                assert found, target["expr"]
                assert target["expr"].count('job="velatura",instance=~"$instance"') == len(found)
                asked |= set(found)
    assert {each for each in asked if not each.startswith("velatura_gpu_")} <= there


def test_variables_offer_labels_that_the_queries_filter_by() -> None:
    for name in names():
        dashboard = load(name)
        variables = {each["name"] for each in dashboard["templating"]["list"]}
        used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(dashboard["panels"])))
        assert used == variables


def test_a_code_has_one_colour_everywhere() -> None:
    colours: dict[str, set[str]] = {}
    for _, panel in PANELS:
        for series, colour in panel.colours.items():
            if series.isupper() or series.startswith("p"):
                colours.setdefault(series, set()).add(colour)
    assert {"OK", "RESOURCE_EXHAUSTED", "p99"} <= colours.keys()
    assert all(len(each) == 1 for each in colours.values())


def test_variables_are_filled_in() -> None:
    assert substituted('a{i=~"$instance"}[$__rate_interval]', "20s") == 'a{i=~".*"}[20s]'
    assert "$" not in "".join(query.expr for name in names() for query in queries(name))
    with pytest.raises(ValueError, match=r"no value for \$__interval_ms"):
        substituted("a[$__interval_ms]")


def test_a_row_that_leaves_a_hole_is_refused() -> None:
    panel = Panel("a", "b", "s", (Query("c", "d"),), width=7)
    with pytest.raises(ValueError, match="row 'r': the widths must fill lines of 24"):
        to_json(Board("n", "t", "d", (), (Row("r", (panel,)),)))


def compose(service: str) -> dict[str, Any]:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    found: dict[str, Any] = services[service]
    return found


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    (source,) = yaml.safe_load((PROVISIONING / "datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    # Grafana derives $__rate_interval from it.
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards/velatura.yml").read_text())[
        "providers"
    ]
    mounts = dict(each.split(":")[:2] for each in compose("grafana")["volumes"])
    assert mounts["./deploy/grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    home = compose("grafana")["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.startswith(provider["options"]["path"])
    assert Path(home).stem in names()
