"""Runs a load test: with Locust's web page, or headless for a set time and judged."""

from __future__ import annotations

import random
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from grpc.experimental import gevent as grpc_gevent
from locust import stats as locust_stats
from locust.argument_parser import get_parser
from locust.env import Environment

from velatura.client.loadtest import report
from velatura.client.loadtest.gate import Limit, judge
from velatura.client.loadtest.ledger import ALL, Call
from velatura.client.loadtest.plan import Plan
from velatura.client.loadtest.stage import Stage
from velatura.client.loadtest.users import user_class

_PROGRESS_S = 5.0
_POINTS = 120  # of the report's charts, at most one a second
INTERRUPTED = 130


def run(plan: Plan, limits: Sequence[Limit], out: Path) -> int:
    """The whole load test; 0 when every limit is kept, 1 when not, 130 when interrupted.

    Writes report.html, load_*.csv and summary.json into `out`.
    """
    out.mkdir(parents=True, exist_ok=True)
    stage = _open(plan)
    environment = _environment(stage)
    # Calls in flight at the end are waited for: each has a deadline.
    environment.stop_timeout = plan.timeout_s + 1
    locust_stats.HISTORY_STATS_INTERVAL_SEC = max(1, round(plan.duration_s / _POINTS))
    interrupted = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, interrupted.set)

    print(f"{plan.load}, {plan.mix_text}, {plan.target}", flush=True)
    runner = environment.runner
    users = plan.users if plan.rate is None else 1
    runner.start(users, spawn_rate=min(users, 100))
    interrupted.wait(plan.warmup_s)
    environment.stats.reset_all()
    stage.ledger.clear()
    history = gevent.spawn(locust_stats.stats_history, runner)
    begin = time.perf_counter()
    _progress(stage, begin, interrupted)
    elapsed = time.perf_counter() - begin
    stage.ledger.end_time()
    runner.stop()
    history.kill()
    runner.quit()
    stage.close()

    figures = stage.ledger.figures(elapsed)
    verdicts = judge(figures, limits)
    summary = report.Summary(
        plan, elapsed, figures, stage.ledger.failures(), verdicts, stage.ledger.lateness,
        interrupted.is_set(),
    )  # fmt: skip
    word = "passed" if summary.passed else "FAILED"
    environment.locustfile = f"velatura-loadtest, {plan.load}, {plan.mix_text}: gate {word}"
    report.write(summary, environment, out)
    report.show(summary, out)
    if summary.interrupted:
        return INTERRUPTED
    return 0 if summary.passed else 1


def serve_page(plan: Plan, host: str, port: int) -> int:
    """Locust's web page, until the process is told to end.

    Raises:
        OSError: when the address is taken.
    """
    socket.create_server((host, port)).close()  # Locust would log a taken port and go on without
    stage = _open(plan)
    environment = _environment(stage)
    environment.stop_timeout = plan.timeout_s + 1

    def retarget(environment: Any, **_: Any) -> None:
        if environment.host != stage.plan.target:
            stage.connect(environment.host)

    environment.events.test_start.add_listener(retarget)
    # Locust's page reads its form's first values from these, and more fields from sys.argv.
    sys.argv[1:] = []
    callers = str(plan.users if plan.rate is None else 1)
    environment.parsed_options = get_parser(default_config_files=[]).parse_args(
        ["--users", callers, "--spawn-rate", callers]
    )
    page = environment.create_web_ui(host, port)
    while not (page.server and page.server.started):
        gevent.sleep(0.02)
    gevent.spawn(locust_stats.stats_history, environment.runner)
    print(f"{plan.mix_text}, {plan.target}: http://{host}:{port}", flush=True)
    ended = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, ended.set)
    ended.wait()
    environment.runner.quit()
    page.stop()
    stage.close()
    return 0


def _open(plan: Plan) -> Stage:
    grpc_gevent.init_gevent()  # before the first channel: gRPC's own waits then let others run
    random.seed(plan.seed)  # what Locust draws its tasks with
    return Stage.open(plan)


def _environment(stage: Stage) -> Any:
    locust_stats.PERCENTILES_TO_CHART = [0.5, 0.95, 0.99]
    environment = Environment(
        user_classes=[user_class(stage)],
        host=stage.plan.target,
        locustfile=f"velatura-loadtest, {stage.plan.mix_text}",
    )
    environment.create_local_runner()

    def fire(call: Call) -> None:
        environment.events.request.fire(  # type: ignore[no-untyped-call]
            request_type="gRPC",
            name=call.name,
            response_time=call.seconds * 1000,
            response_length=call.response_bytes,
            exception=Failure(call.failure) if call.failure else None,
            context={},
        )

    stage.listeners.append(fire)
    return environment


class Failure(Exception):  # noqa: N818  Locust groups failures by what this prints
    """A call's status and reason, as Locust's failure."""

    def __repr__(self) -> str:
        return str(self)


def _progress(stage: Stage, begin: float, interrupted: Event) -> None:
    """A line now and then, until the time is over or the process is told to end."""
    end = begin + stage.plan.duration_s
    while (left := end - time.perf_counter()) > 0 and not interrupted.wait(min(left, _PROGRESS_S)):
        elapsed = time.perf_counter() - begin
        now = stage.ledger.figures(elapsed)[ALL]
        p95 = "-" if now.p95_ms is None else f"{now.p95_ms:.0f} ms"
        text = f"{now.calls} calls, {now.rate:.1f}/s, {now.failed} failed, p95 {p95}"
        print(f"{elapsed:5.0f} s  {text}", flush=True)
