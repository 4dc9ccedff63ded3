"""What a load test leaves behind: Locust's HTML report, CSV tables, a summary as JSON and text."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from locust.html import get_html_report
from locust.stats import PERCENTILES_TO_REPORT, StatsCSV
from rich.console import Console
from rich.table import Table

from velatura.client.loadtest.gate import Verdict
from velatura.client.loadtest.ledger import Figures, quantile
from velatura.client.loadtest.plan import Plan

# Later than this, arrivals were not by the clock any more, and the figures flatter the server.
LATE_S = 0.1


@dataclass(frozen=True)
class Summary:
    """Everything that a run measured; `lateness` is in seconds, one for each arrival."""

    plan: Plan
    elapsed_s: float
    figures: Mapping[str, Figures]
    failures: Mapping[str, Mapping[str, int]]
    verdicts: Sequence[Verdict]
    lateness: Sequence[float]
    interrupted: bool

    @property
    def passed(self) -> bool:
        """Whether every limit was kept."""
        return all(verdict.passed for verdict in self.verdicts)

    @property
    def late_p99_s(self) -> float:
        """How late the latest hundredth of the arrivals began; 0 in a closed loop."""
        return quantile(sorted(self.lateness), 0.99) or 0.0


def write(summary: Summary, environment: Any, out: Path) -> None:
    """Write all files into the folder `out`."""
    page: str = get_html_report(environment, show_download_link=False)  # type: ignore[no-untyped-call]
    (out / "report.html").write_text(page)
    tables = StatsCSV(environment, PERCENTILES_TO_REPORT)
    for name, rows in (("stats", tables.requests_csv), ("failures", tables.failures_csv)):
        with (out / f"load_{name}.csv").open("w", newline="") as file:
            rows(csv.writer(file))
    with (out / "load_history.csv").open("w", newline="") as file:
        _history(environment.stats.history, csv.writer(file))
    (out / "summary.json").write_text(json.dumps(_json(summary), indent=2) + "\n")


def show(summary: Summary, out: Path) -> None:
    """Print the table, what failed, and the verdict."""
    console = Console()
    if not console.is_terminal:
        console.width = 120  # a file or a pipe has no width: the table is kept whole
    console.print(_table(summary))
    for name, failures in summary.failures.items():
        for failure, count in failures.items():
            console.print(f"{count:7d} × {name}: {failure}", highlight=False)
    if summary.late_p99_s > LATE_S:
        console.print(
            f"The load generator fell behind: 1% of the arrivals began {summary.late_p99_s:.2f} s "
            "or more after they were due. Use a machine of its own, or a lower rate.",
            highlight=False,
        )
    if summary.interrupted:
        console.print(f"Interrupted after {summary.elapsed_s:.0f} s; this is what was measured.")
    for verdict in summary.verdicts:
        word = "passed" if verdict.passed else "FAILED"
        console.print(f"{word}  {verdict.text}", highlight=False)
    console.print(f"Report: {out / 'report.html'}", highlight=False, soft_wrap=True)


def _table(summary: Summary) -> Table:
    table = Table(title=f"{summary.plan.load}, {summary.elapsed_s:.0f} s, {summary.plan.target}")
    table.add_column("call")
    for heading in ("calls", "failed", "ok/s", "p50 ms", "p95 ms", "p99 ms", "max ms", "MiB/s"):
        table.add_column(heading, justify="right")
    for name, row in summary.figures.items():
        times = (row.p50_ms, row.p95_ms, row.p99_ms, row.max_ms)
        table.add_row(
            name, str(row.calls), str(row.failed), f"{row.rate:.1f}",
            *("-" if value is None else f"{value:.0f}" for value in times),
            f"{row.response_mib_per_s:.1f}",
        )  # fmt: skip
    return table


def _history(points: Sequence[Mapping[str, Any]], writer: Any) -> None:
    """The charts' points, one row each."""
    columns = [key for key in points[0] if key != "time"] if points else []
    writer.writerow(["time", *columns])
    for point in points:
        writer.writerow([point["time"], *(point[key][1] for key in columns)])


def _json(summary: Summary) -> dict[str, Any]:
    plan = asdict(summary.plan) | {"ca": None, "api_key": None}  # a secret stays one
    plan["images"] = summary.plan.images and str(summary.plan.images)
    return {
        "plan": plan,
        "elapsed_s": summary.elapsed_s,
        "interrupted": summary.interrupted,
        "calls": {
            name: asdict(row) | {"error_ratio": row.error_ratio}
            for name, row in summary.figures.items()
        },
        "failures": summary.failures,
        "arrivals_late_p99_s": summary.late_p99_s,
        "gate": [
            {"limit": asdict(v.limit), "passed": v.passed, "text": v.text} for v in summary.verdicts
        ],
        "passed": summary.passed,
    }
