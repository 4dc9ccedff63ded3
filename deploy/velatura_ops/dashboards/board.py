"""What a Velatura dashboard is made of, and its colours.

A dashboard is data: rows of panels, each with a question or a plain name as its title, a unit, a
description that says what to do, and the queries that answer. `grafana.py` writes it for Grafana.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

GREEN, BLUE, LIGHT_BLUE, PURPLE = "#56A64B", "#3274D9", "#8AB8FF", "#8F3BB8"
YELLOW, ORANGE, RED, GREY = "#E0B400", "#FA6400", "#C4162A", "#8E8E8E"
# From good to slow to bad; the same in every panel that shows quantiles.
QUANTILES = {"p50": LIGHT_BLUE, "p90": BLUE, "p99": PURPLE}
# Green is well, orange is overload, red is ours to mend, blue is the caller's to mend.
CODES = {
    "OK": GREEN,
    "RESOURCE_EXHAUSTED": ORANGE,
    "DEADLINE_EXCEEDED": YELLOW,
    "CANCELLED": GREY,
    "UNAVAILABLE": PURPLE,
    "INTERNAL": RED,
    "UNKNOWN": "#7A1020",
    "INVALID_ARGUMENT": BLUE,
    "NOT_FOUND": LIGHT_BLUE,
    "FAILED_PRECONDITION": "#1F60C4",
    "UNAUTHENTICATED": "#5794F2",
}
STAGES = {"waiting": ORANGE, "networks": PURPLE, "decoding": LIGHT_BLUE, "encoding": GREEN}
COLUMNS = 24  # of Grafana's grid


class Kind(StrEnum):
    """How a panel shows its series."""

    LINES = "lines"
    STACK = "stack"  # areas on top of each other: parts of a whole
    STAT = "stat"  # the newest value, large, with its course behind
    TABLE = "table"  # the labels of the newest samples


@dataclass(frozen=True)
class Query:
    """PromQL and how its series are called: `{{label}}` in `legend` is a label's value."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel. `thresholds` colours a STAT: (from this value on, colour), the first from None."""

    title: str
    description: str
    unit: str  # of Grafana's: s, bytes, reqps, percentunit, short, …
    queries: tuple[Query, ...]
    width: int = 8
    height: int = 8
    kind: Kind = Kind.LINES
    colours: Mapping[str, str] = field(default_factory=dict)  # by the series' name
    thresholds: tuple[tuple[float | None, str], ...] = ()
    words: Mapping[str, str] = field(default_factory=dict)  # shown instead of a value
    columns: tuple[str, ...] = ()  # the labels a TABLE shows
    least: float | None = 0.0
    most: float | None = None
    log: bool = False  # a logarithmic axis
    optional: str = ""  # why this panel may be empty where all is well; "" where it may not


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """A choice at the dashboard's head: the values of a label of a metric."""

    name: str
    label: str
    metric: str
    of: str = ""  # the label, where it is not `name`


@dataclass(frozen=True)
class Board:
    """One dashboard; its file is `name`.json."""

    name: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]
    span: str = "now-1h"

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels in reading order."""
        return tuple(panel for row in self.rows for panel in row.panels)
