"""Tables, and the file that keeps the last of each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import SECTIONS, parsed
from benchmarks.report import Report, figures, keep, spread
from benchmarks.sections.pipelines import per_request
from benchmarks.server_process import batches_of

FACTS = {"CPU": "one"}


def report(title: str, value: float) -> Report:
    return Report(title, "What was done.", ["", "rate", "note"], [["ours", value, None]])


def test_a_report_is_a_markdown_table() -> None:
    lines = report("Raw", 12.345).markdown().splitlines()
    assert lines[0] == "## Raw"
    assert lines[-3:] == ["|  | rate | note |", "|---|---:|---:|", "| ours | 12.3 |  |"]


def test_ratios_show_median_and_range() -> None:
    assert spread([0.9, 0.95, 0.7]) == "0.90 (0.70–0.95)"
    assert spread([0.9]) == "0.90"


def test_results_keep_what_this_run_did_not_measure(tmp_path: Path) -> None:
    file = tmp_path / "results.md"
    keep(file, [report("Raw", 1.5), report("Rates", 2.5)], {"CPU": "old"}, "make bench")
    keep(file, [report("Raw", 3.5)], {"CPU": "new"}, "make bench")
    text = file.read_text()
    assert text.count("# Results\n") == 1
    assert text.count("## Raw") == text.count("## Rates") == 1
    raw, _, rates = text.partition("## Rates")
    assert "| ours | 3.50 |" in raw
    assert "CPU: new" in raw
    assert "1.50" not in text
    assert "| ours | 2.50 |" in rates
    assert "CPU: old" in rates


def test_figures_are_json() -> None:
    found = json.loads(figures([report("Raw", 1.5)], FACTS))
    assert found["machine"] == FACTS
    assert found["sections"][0]["rows"] == [["ours", 1.5, None]]


def test_batches_are_read_off_the_metrics_whatever_other_labels_there_are() -> None:
    values = {
        'velatura_batch_size_sum{model="a",lane="wide"}': 4.0,
        'velatura_batch_size_sum{model="a",lane="narrow"}': 8.0,
        'velatura_batch_size_count{model="a",lane="wide"}': 4.0,
        'velatura_batch_size_count{model="a",lane="narrow"}': 1.0,
        'velatura_batch_size_bucket{model="a",le="1"}': 7.0,
        'velatura_queue_depth{model="a"}': 3.0,
    }
    assert batches_of(values) == {"a": (12.0, 5.0)}


def test_items_a_request_leave_out_networks_that_did_not_run() -> None:
    before = {"a": (10.0, 5.0), "b": (1.0, 1.0)}
    after = {"a": (30.0, 9.0), "b": (1.0, 1.0), "c": (5.0, 5.0)}
    assert per_request(before, after, 10) == {"a": 2.0, "c": 0.5}


def test_sections_are_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "oip", "rates", "--rounds", "1"])
    assert parsed().sections == ["oip", "rates"]
    assert {"oip", "pipelines", "rates", "overload", "retries", "footprint"} <= set(SECTIONS)
    monkeypatch.setattr("sys.argv", ["benchmarks", "speed"])
    with pytest.raises(SystemExit):
        parsed()
