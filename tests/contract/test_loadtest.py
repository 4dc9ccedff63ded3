"""The installed `velatura-loadtest` against a real server, as people and pipelines run it."""

from __future__ import annotations

import csv
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..conftest import StartServer
from ..running import RunningServer, clean_environment

PROGRAM = Path(sys.executable).with_name("velatura-loadtest")
SMALL = ("--sizes", "48-96", "--pool", "4", "--warmup-s", "0")
ROOT = Path(__file__).parents[2]
METHODS = ("EditImage", "Encode", "Segment", "Stylize")


def load(target: str, out: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A headless run; a callers' deadline is long, since tests share their machine."""
    command = [PROGRAM, "run", "--target", target, "--out", out, "--timeout-s", 60, *SMALL]
    return subprocess.run(
        [str(part) for part in (*command, *arguments)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def summary(out: Path) -> Any:
    return json.loads((out / "summary.json").read_text())


def test_a_mixed_load_passes_and_its_counts_are_the_servers(
    start: StartServer, tmp_path: Path
) -> None:
    server = start()
    mix = ("--mix", "edit=2,stylize=1,segment=2,slider=1", "--slider-steps", 2)
    outcome = load(server.address, tmp_path, "--users", 3, "--duration-s", 5, *mix)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "passed  error ratio is 0.00%, allowed is at most 1.00%" in outcome.stdout

    calls = summary(tmp_path)["calls"]
    for method in METHODS:
        seen = sum(row["calls"] for name, row in calls.items() if name.split(" ")[0] == method)
        assert seen > 0, calls
        assert seen == server.total("grpc_server_handled_total", grpc_method=method), method
    assert calls["EditImage (slider)"]["calls"] <= 2 * calls["Encode (slider)"]["calls"]
    assert calls["all calls"]["p50_ms"] <= calls["all calls"]["p99_ms"]

    with (tmp_path / "load_stats.csv").open(newline="") as file:
        rows = {row["Name"]: row for row in csv.DictReader(file)}
    assert int(rows["Aggregated"]["Request Count"]) == calls["all calls"]["calls"]
    assert len((tmp_path / "load_history.csv").read_text().splitlines()) >= 4
    page = (tmp_path / "report.html").read_text()
    assert "EditImage (slider)" in page
    assert "gate passed" in page
    assert '"history": [{' in page.replace("[ {", "[{")


def test_a_broken_limit_fails_the_gate_and_is_named(server: RunningServer, tmp_path: Path) -> None:
    limits = ("--max-p95-ms", "Segment=0.01", "--max-p99-ms", 60_000)
    outcome = load(
        server.address, tmp_path, "--mix", "segment=1", "--users", 1, "--duration-s", 2, *limits
    )
    assert outcome.returncode == 1, outcome.stdout + outcome.stderr
    (failed,) = (line for line in outcome.stdout.splitlines() if line.startswith("FAILED"))
    assert failed.startswith("FAILED  p95 of Segment is ")
    assert failed.endswith("allowed is at most 0.01 ms")
    assert [verdict["passed"] for verdict in summary(tmp_path)["gate"]] == [True, False, True]


def test_failures_are_told_by_their_status(server: RunningServer, tmp_path: Path) -> None:
    """Stylize decodes its pictures first: the caller's clock is sooner than any refusal."""
    outcome = load(
        server.address, tmp_path, "--mix", "stylize=1", "--users", 2, "--duration-s", 2,
        "--timeout-s", 0.001, "--distinct",
    )  # fmt: skip
    assert outcome.returncode == 1, outcome.stdout + outcome.stderr
    found = summary(tmp_path)
    assert found["calls"]["Stylize"]["failed"] == found["calls"]["Stylize"]["calls"] > 0
    assert all(text.startswith("DEADLINE_EXCEEDED") for text in found["failures"]["Stylize"])
    assert "DEADLINE_EXCEEDED" in (tmp_path / "load_failures.csv").read_text()


def test_in_an_open_loop_arrivals_keep_coming(server: RunningServer, tmp_path: Path) -> None:
    """One call may be in flight, and yet fifty callers a second arrive."""
    outcome = load(
        server.address, tmp_path, "--mix", "edit=1", "--rate", 50, "--arrivals", "even",
        "--max-in-flight", 1, "--duration-s", 3, "--sizes", "512",
    )  # fmt: skip
    assert outcome.returncode == 1, outcome.stdout + outcome.stderr
    found = summary(tmp_path)
    assert 120 <= found["calls"]["all calls"]["calls"] <= 156
    assert found["failures"]["arrival"] == {
        "NOT_SENT max-in-flight reached": found["calls"]["arrival"]["calls"]
    }
    assert found["calls"]["EditImage"]["calls"] > 0


def test_a_server_that_is_not_there_is_said_and_not_a_failed_gate(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    outcome = load(f"127.0.0.1:{port}", tmp_path, "--wait-s", 0.5)
    assert outcome.returncode == 2
    assert "was not ready within 0.5 s" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_what_was_measured_until_an_interrupt_is_kept(
    server: RunningServer, tmp_path: Path
) -> None:
    arguments = ("--target", server.address, "--mix", "segment=1", "--users", "1", *SMALL)
    with subprocess.Popen(
        [PROGRAM, "run", "--out", tmp_path, "--duration-s", "300", *arguments],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "closed loop" in process.stdout.readline()
        assert " calls, " in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted after" in rest
    assert summary(tmp_path)["interrupted"]
    assert summary(tmp_path)["calls"]["Segment"]["calls"] > 0


def test_make_load_brings_its_server_up_and_down_and_hands_the_verdict_on(
    bundle_path: Path, tmp_path: Path
) -> None:
    programs = {"SERVER": PROGRAM.with_name("velatura-server"), "LOADTEST": PROGRAM}
    places = {"BUNDLE": bundle_path, "OUT": tmp_path}
    flags = ("--mix", "segment=1", "--duration-s", "1", "--max-p95-ms", "0.01", *SMALL)
    outcome = subprocess.run(
        [ROOT / "scripts/load", *flags],
        env=clean_environment(**{key: str(path) for key, path in (programs | places).items()}),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert outcome.returncode == 1, outcome.stdout + outcome.stderr
    assert "FAILED  p95 is " in outcome.stdout
    limits = [each["limit"]["value"] for each in summary(tmp_path)["gate"]]
    assert limits == [0.01, 0.01], "a flag takes the place of the script's own limit"
    assert (tmp_path / "report.html").is_file()
    target = summary(tmp_path)["plan"]["target"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(target.rpartition(":")[2])), timeout=5)


@pytest.fixture
def page(server: RunningServer) -> Iterator[str]:
    """Locust's page for the shared server; its address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    environment = clean_environment(
        VELATURA_TARGET=server.address, VELATURA_LOAD_MIX="segment=1", VELATURA_LOAD_SIZES="64"
    )
    with subprocess.Popen(
        [PROGRAM, "ui", "--listen", address, "--pool", "2"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert f"http://{address}" in process.stdout.readline()
        yield f"http://{address}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def get(url: str, form: dict[str, str] | None = None) -> str:
    data = urllib.parse.urlencode(form).encode() if form else None
    with urllib.request.urlopen(url, data, timeout=30) as answer:  # noqa: S310  our own address
        return str(answer.read().decode())


def test_the_page_starts_a_load_that_variables_describe(page: str, server: RunningServer) -> None:
    assert "segment=1" in get(page)
    assert server.address in get(page)
    form = {"user_count": "2", "spawn_rate": "2", "host": server.address}
    assert json.loads(get(f"{page}/swarm", form))["success"]
    deadline = time.monotonic() + 60
    names: set[str] = set()
    while "Segment" not in names and time.monotonic() < deadline:
        time.sleep(0.2)
        found = json.loads(get(f"{page}/stats/requests"))
        names = {row["name"] for row in found["stats"]}
    assert names == {"Segment", "Aggregated"}
    assert found["fail_ratio"] == 0
    assert json.loads(get(f"{page}/stop", {"now": "1"}))["success"]


def test_a_taken_address_is_said(server: RunningServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [PROGRAM, "ui", "--target", server.address, "--listen", address]
        outcome = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert outcome.returncode == 2
    assert "in use" in outcome.stderr
    assert "Traceback" not in outcome.stderr
