"""Prometheus really scrapes a really loaded server: every panel and every recorded figure has data,
and promtool has nothing to say about the metrics."""

from __future__ import annotations

import asyncio
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from velatura_ops import load
from velatura_ops.compose import ROOT
from velatura_ops.dashboards.catalog import BOARDS
from velatura_ops.local_prometheus import ADVICE, Prometheus, program
from velatura_ops.processes import answers
from velatura_ops.queries import names, queries
from velatura_ops.stack import Addresses, serving, stack

pytestmark = pytest.mark.skipif(
    program() is None or shutil.which("promtool") is None,
    reason=f"Prometheus is not installed, so the dashboards met NO data: {ADVICE}",
)
LOAD_S, CALLERS = 12.0, 3
OPTIONAL = {
    (board.name, panel.title) for board in BOARDS for panel in board.panels if panel.optional
}


@dataclass(frozen=True)
class Loaded:
    """A stack after its load, which began and ended at these times (Unix seconds)."""

    prometheus: Prometheus
    addresses: Addresses
    tally: load.Tally
    start: float
    end: float

    def has_data(self, expr: str) -> bool:
        """Whether an expression had a finite value at some time of the load."""
        answers = self.prometheus.query_range(expr, self.start, self.end, 1.0)
        return any(math.isfinite(float(value)) for one in answers for _, value in one["values"])


@pytest.fixture(scope="module")
def loaded(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    """Scraped each second, since the test has not the minutes that people have."""
    addresses = Addresses.free()
    folder = tmp_path_factory.mktemp("stack")
    with stack(folder, addresses, ("--bundle", str(bundle_path)), scrape_interval="1s") as asked:
        start = time.time()
        tally = asyncio.run(load.drive(addresses.grpc, LOAD_S, CALLERS))
        time.sleep(2.5)  # the last scrape and the rules after it
        yield Loaded(asked, addresses, tally, start, time.time())


def test_the_load_has_everything_in_it(loaded: Loaded) -> None:
    wanted = {"OK", "NOT_FOUND", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "CANCELLED"}
    assert wanted <= loaded.tally.codes.keys()


@pytest.mark.parametrize("name", names())
def test_every_query_of_every_panel_returns_data(loaded: Loaded, name: str) -> None:
    empty = [
        f"{query.panel}: {query.expr}"
        for query in queries(name, rate_interval="5s")
        if (name, query.panel) not in OPTIONAL and not loaded.has_data(query.expr)
    ]
    assert not empty, "\n".join(empty)
    assert not loaded.has_data("velatura_no_such_metric")


def test_optional_panels_ask_what_prometheus_understands(loaded: Loaded) -> None:
    for name in names():
        for query in queries(name, rate_interval="5s"):
            if (name, query.panel) in OPTIONAL:
                loaded.prometheus.query(query.expr)


def test_every_rule_is_evaluated_and_every_recorded_figure_there(loaded: Loaded) -> None:
    groups = loaded.prometheus.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["type"] for rule in rules} == {"recording", "alerting"}
    for rule in rules:
        assert rule["health"] == "ok", f"{rule['name']}: {rule.get('lastError')}"
    recorded = {rule["name"] for rule in rules if rule["type"] == "recording"}
    assert [name for name in sorted(recorded) if not loaded.has_data(name)] == []


def test_the_server_is_the_target_and_answers(loaded: Loaded) -> None:
    (up,) = loaded.prometheus.query('up{job="velatura"}')
    assert up["metric"]["instance"] == loaded.addresses.metrics
    assert up["value"][1] == "1"


def test_prometheus_counted_what_the_callers_sent(loaded: Loaded) -> None:
    """Callers that hung up before their call arrived are the only ones that it may have missed."""
    (begun,) = loaded.prometheus.query(
        'sum(grpc_server_started_total{job="velatura",grpc_method!~"List.*"})'
    )
    preparing = 1  # the token's Encode
    sent = loaded.tally.total + preparing
    unsure = loaded.tally.codes["CANCELLED"] + loaded.tally.codes["DEADLINE_EXCEEDED"]
    assert sent - unsure <= float(begun["value"][1]) <= sent


def test_promtool_has_nothing_to_say_about_the_metrics(loaded: Loaded) -> None:
    with urllib.request.urlopen(f"http://{loaded.addresses.metrics}/metrics", timeout=10) as page:
        text = page.read()
    outcome = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60, check=False
    )
    assert outcome.stdout + outcome.stderr == b""
    assert outcome.returncode == 0


def test_make_stack_says_where_it_is_and_stops_everything(bundle_path: Path) -> None:
    process = subprocess.Popen(
        [ROOT / "scripts/stack", "--free-ports", "--bundle", bundle_path],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHON": sys.executable},
    )
    try:
        assert process.stdout is not None
        printed = ""
        for line in process.stdout:
            printed += line
            if "Ctrl-C" in line:
                break
        target = re.findall(r"^gRPC +(\S+)$", printed, re.MULTILINE)
        pages = re.findall(r"^(?:metrics|Prometheus) +(http://\S+)", printed, re.MULTILINE)
        assert len(target) == 1, printed
        assert len(pages) == 2
        assert serving(target[0])
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=90)
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 0
    assert "Everything is stopped." in rest
    assert not serving(target[0])
    for page in pages:
        assert not answers(page)()
