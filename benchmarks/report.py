"""Figures as Markdown tables, as JSON, and as the file of the last results."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

Cell = str | int | float | None
RESULTS = Path(__file__).with_name("results.md")


@dataclass
class Report:
    """One section: a title, what was done in a few sentences, and a table. The first column is
    text, the others are figures."""

    title: str
    text: str
    columns: Sequence[str]
    rows: list[list[Cell]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """As a section of level two."""
        head = f"| {' | '.join(self.columns)} |"
        line = "|---|" + "---:|" * (len(self.columns) - 1)
        body = [f"| {' | '.join(_shown(cell) for cell in row)} |" for row in self.rows]
        text = [f"## {self.title}", "", self.text, "", head, line, *body]
        for remark in self.remarks:
            text += ["", remark]
        return "\n".join(text) + "\n"


def spread(values: Sequence[float]) -> str:
    """Median and range of a ratio over the rounds, such as "0.93 (0.91–0.95)"."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def figures(reports: Sequence[Report], facts: Mapping[str, str]) -> str:
    """The same as JSON."""
    sections = [asdict(report) for report in reports]
    return json.dumps({"machine": dict(facts), "sections": sections}, indent=2) + "\n"


def keep(file: Path, reports: Sequence[Report], facts: Mapping[str, str], command: str) -> None:
    """Write the sections into the file of results: those of this run replace their own, and others
    that were measured earlier on stay, each with what it was measured on."""
    kept = _sections(file.read_text()) if file.exists() else {}
    on = "; ".join(f"{name}: {value}" for name, value in facts.items())
    for report in reports:
        kept[report.title] = f"{report.markdown()}\n_Measured by `{command}`. {on}._\n"
    head = (
        "# Results\n\nWritten by `make bench` and `make bench-peers`, never by hand. Ratios "
        "compare what was measured in turns within one run, so that both sides met the same "
        "machine.\n\n"
    )
    file.write_text(head + "\n".join(kept[title] for title in kept))


def _sections(text: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return {
        title: f"## {title}{body.rstrip()}\n"
        for title, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def _shown(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.2f}"
    return str(cell)
