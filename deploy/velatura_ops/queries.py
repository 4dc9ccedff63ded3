"""The questions that the dashboards ask, read from the JSON that Grafana reads, with the variables
filled in as Grafana does for "All".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from velatura_ops.compose import ROOT

FOLDER = ROOT / "deploy/grafana/dashboards"
VARIABLE = re.compile(r"\$\{?(\w+)\}?")


@dataclass(frozen=True)
class PanelQuery:
    """One query of one panel, ready for Prometheus."""

    dashboard: str
    panel: str
    expr: str
    legend: str
    unit: str


def substituted(expr: str, rate_interval: str = "1m", span: str = "1h") -> str:
    """`expr` with every variable set to all values. Raises ValueError for one of Grafana's own that
    is not known here."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if not name.startswith("__"):
            return ".*"
        known = {"__rate_interval": rate_interval, "__range": span}
        if name not in known:
            raise ValueError(f"no value for ${name} in {expr}")
        return known[name]

    return VARIABLE.sub(value, expr)


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The panels of a dashboard's JSON, without the rows' headings."""
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            yield panel
        yield from panel.get("panels", ())


def load(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """A committed dashboard."""
    loaded: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return loaded


def names(folder: Path = FOLDER) -> list[str]:
    """The committed dashboards' names."""
    return sorted(path.stem for path in folder.glob("*.json"))


def queries(name: str, rate_interval: str = "1m", folder: Path = FOLDER) -> Iterator[PanelQuery]:
    """Every query of a dashboard."""
    for panel in panels(load(name, folder)):
        for target in panel["targets"]:
            yield PanelQuery(
                dashboard=name,
                panel=panel["title"],
                expr=substituted(target["expr"], rate_interval),
                legend=target.get("legendFormat", ""),
                unit=panel["fieldConfig"]["defaults"]["unit"],
            )
