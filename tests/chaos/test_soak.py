"""A real server while three clients a second vanish in the middle of their calls, and others go on.

Ten seconds here; `make soak` runs it at full length: SOAK_SECONDS of vanishing clients, and
SOAK_REQUESTS of the others after a warm-up.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from velatura.client import Client, Offset

from ..running import RunningServer, clean_environment, picture

SECONDS = float(os.environ.get("SOAK_SECONDS", "8"))
REQUESTS = int(os.environ.get("SOAK_REQUESTS", "150"))
WHOLE = REQUESTS >= 20_000
CLIENTS_A_SECOND = 3
CALLERS = 4
# Of resident memory after the warm-up. A short run ends before allocators and caches are full.
MOST_GROWTH = 0.05 if WHOLE else 0.25
MIB = 1 << 20


@contextmanager
def vanishing_clients(server: RunningServer, seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    """The program that starts and kills clients, while the block runs."""
    program = Path(__file__).with_name("vanishing.py")
    arguments = [sys.executable, str(program), server.address, str(seconds), str(CLIENTS_A_SECOND)]
    running = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, env=clean_environment(OMP_NUM_THREADS="1")
    )
    try:
        yield running
    finally:
        running.wait(seconds + 120)


def requests(server: RunningServer, count: int, first: int = 0) -> None:
    """Ordinary requests from a few callers, every picture another one, all of them answered."""

    def one(n: int) -> None:
        rng = random.Random(first + n)
        face = picture(rng.choice((64, 96, 128)), 96, first + n)
        if n % 4:
            client.encode(face)
        else:
            client.edit_image(face, Offset((0, 4), 0.5))

    with Client(server.address, timeout=120) as client, ThreadPoolExecutor(CALLERS) as threads:
        list(threads.map(one, range(count)))


def settled(server: RunningServer, done: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    """The metrics as soon as `done` is true of them; the last ones after half a minute."""
    deadline = time.monotonic() + 30
    while True:
        metrics = server.metrics()
        if done(metrics) or time.monotonic() > deadline:
            return metrics
        time.sleep(0.2)


def summed(metrics: dict[str, float], name: str, label: str = "") -> float:
    found = (value for key, value in metrics.items() if key.partition("{")[0] == name)
    if label:
        found = (
            value
            for key, value in metrics.items()
            if key.partition("{")[0] == name and label in key
        )
    return sum(found)


def resident_mib(server: RunningServer) -> float:
    """At rest: the least of a few looks."""
    looks = []
    for _ in range(5):
        looks.append(server.metrics()["process_resident_memory_bytes"] / MIB)
        time.sleep(0.2)
    return min(looks)


@pytest.mark.timeout(7200 if WHOLE else 300)
def test_vanishing_clients_leave_nothing_behind(
    start: Callable[..., RunningServer], record_property: Callable[[str, object], None]
) -> None:
    server = start()
    requests(server, 40)
    quiet = settled(server, lambda now: now["velatura_event_loop_tasks"] > 0)

    with vanishing_clients(server, SECONDS) as clients:
        requests(server, max(40, REQUESTS // 4), first=1000)  # nobody else notices
        vanished = int(clients.communicate()[0])
    assert vanished >= SECONDS * CLIENTS_A_SECOND / 2

    def over(now: dict[str, float]) -> bool:
        return (
            summed(now, "grpc_server_in_flight") == 0
            and now["velatura_event_loop_tasks"] <= quiet["velatura_event_loop_tasks"]
            and now["process_open_fds"] <= quiet["process_open_fds"] + 2
        )

    after = settled(server, over)
    assert summed(after, "grpc_server_in_flight") == 0
    assert after["velatura_event_loop_tasks"] <= quiet["velatura_event_loop_tasks"]
    assert after["process_open_fds"] <= quiet["process_open_fds"] + 2
    for gauge in (
        "velatura_queue_depth", "velatura_queue_bytes", "velatura_pixel_tasks_running",
        "velatura_pixel_tasks_waiting", "velatura_single_flights",
    ):  # fmt: skip
        assert summed(after, gauge) == 0, gauge
    started = summed(after, "grpc_server_started_total")
    assert started == summed(after, "grpc_server_handled_total")
    assert summed(after, "grpc_server_handled_total", 'grpc_code="CANCELLED"') >= vanished
    assert summed(after, "grpc_server_handled_total", 'grpc_code="INTERNAL"') == 0
    assert summed(after, "velatura_model_failures_total") == 0

    requests(server, REQUESTS // 4, first=100_000)  # caches and allocators are full now
    before_mib = resident_mib(server)
    requests(server, REQUESTS, first=200_000)
    after_mib = resident_mib(server)
    record_property("resident_mib", (before_mib, after_mib))
    print(
        f"\n{vanished} clients vanished in {SECONDS:.0f} s; {started:.0f} calls, all ended; "
        f"resident memory {before_mib:.0f} MiB, after {REQUESTS} more requests {after_mib:.0f} MiB"
    )
    assert after_mib <= before_mib * (1 + MOST_GROWTH)
