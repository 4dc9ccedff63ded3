"""Measures a server on this machine: latency and throughput of each RPC at several loads.

Starts a server of its own (or takes `--server`), makes its own pictures with `Generate`, sends each
workload from closed-loop callers over one connection, and prints a table. `--json FILE` keeps the
figures together with what they were measured on. Nothing is compared with a limit: this tells,
tests judge.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from velatura.client import AsyncClient, VelaturaError

ROOT = Path(__file__).resolve().parents[1]
Call = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Outcome:
    """One workload at one load."""

    workload: str
    callers: int
    requests: int
    errors: int
    requests_per_second: float
    p50_ms: float
    p95_ms: float
    mean_batch: float  # of the network that the workload leans on; 0 where it ran none


@dataclass(frozen=True)
class Workload:
    """What is sent, and the role-giving network whose batches are watched."""

    name: str
    model: str
    call: Call


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def own_server(bundle: Path) -> Iterator[tuple[str, str]]:
    """Runs a server for the block; yields its gRPC and its metrics address, and drains it after."""
    grpc, metrics = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    command = [
        str(Path(sys.executable).parent / "velatura-server"), "serve",
        "--listen", grpc, "--metrics-listen", metrics, "--bundle", str(bundle),
    ]  # fmt: skip
    # A file and not a pipe: a server that waits for its log to be read would be measured waiting.
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        try:
            yield grpc, metrics
        finally:
            server.terminate()
            try:
                code = server.wait(timeout=60)
            except subprocess.TimeoutExpired:
                server.kill()
                code = server.wait()
            if code != 0:
                log.seek(0)
                sys.stderr.write(log.read().decode(errors="replace")[-4000:])


def batches(metrics: str) -> dict[str, tuple[float, float]]:
    """Items and batches that each network has run since the start, from the server's metrics."""
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=10) as page:
        text = page.read().decode()
    found: dict[str, dict[str, float]] = {}
    pattern = r'^velatura_batch_size_(sum|count)\{.*?model="([^"]+)".*?\} (\S+)$'
    for kind, model, value in re.findall(pattern, text, re.MULTILINE):
        found.setdefault(model, {})[kind] = float(value)
    return {model: (row["sum"], row["count"]) for model, row in found.items()}


def quantile(values: list[float], share: float) -> float:
    """Nearest-rank quantile of unsorted values; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


async def measure(workload: Workload, callers: int, seconds: float, metrics: str) -> Outcome:
    """Keeps `callers` requests in flight for `seconds`; requests that began then are waited for."""
    latencies: list[float] = []
    errors = 0
    await workload.call()
    items, runs = batches(metrics).get(workload.model, (0.0, 0.0))
    begin = time.perf_counter()

    async def caller() -> None:
        nonlocal errors
        while (start := time.perf_counter()) - begin < seconds:
            try:
                await workload.call()
                latencies.append(time.perf_counter() - start)
            except VelaturaError:
                errors += 1

    await asyncio.gather(*(caller() for _ in range(callers)))
    elapsed = time.perf_counter() - begin
    items_after, runs_after = batches(metrics).get(workload.model, (0.0, 0.0))
    return Outcome(
        workload=workload.name,
        callers=callers,
        requests=len(latencies),
        errors=errors,
        requests_per_second=len(latencies) / elapsed,
        p50_ms=quantile(latencies, 0.5) * 1000,
        p95_ms=quantile(latencies, 0.95) * 1000,
        mean_batch=(items_after - items) / max(runs_after - runs, 1),
    )


async def workloads_of(client: AsyncClient) -> list[Workload]:
    """The workloads, on pictures that the server itself generates."""
    faces = [sample.image async for sample in client.generate(range(1, 17))]
    photo = faces[0].resize((512, 512), Image.Resampling.BICUBIC)
    directions = await client.list_directions()
    edit = {directions[0].name: 1.0}
    region = next((d.regions for d in directions if d.name in edit and d.regions), None)
    style = (await client.list_styles())[0].name
    token = (await client.encode(faces[0])).latent_token
    pick = random.Random(0).choice

    async def sample() -> None:
        async for _ in client.generate(random.randrange(1 << 32)):
            pass

    return [
        Workload(
            "edit, whole image", "avatar-synthesis", lambda: client.edit_image(pick(faces), edit)
        ),
        Workload(
            "edit, region of classes",
            "avatar-synthesis",
            lambda: client.edit_image(pick(faces), edit, region=region),
        ),
        Workload(
            "edit from a token",
            "avatar-synthesis",
            lambda: client.edit_image(edits=edit, latent_token=token),
        ),
        Workload("generate one", "avatar-synthesis", sample),
        Workload("segment", "avatar-segmenter", lambda: client.segment(pick(faces))),
        Workload("stylise 512 px, preset", "style-presets", lambda: client.stylize(photo, style)),
        Workload(
            "stylise 512 px, picture",
            "style-transformer",
            lambda: client.stylize(photo, pick(faces)),
        ),
    ]


async def benchmark(
    target: str, metrics: str, loads: list[int], seconds: float, console: Console
) -> list[Outcome]:
    """Every workload at every load."""
    outcomes = []
    async with AsyncClient(target, timeout=120) as client:
        await client.wait_ready(120)
        workloads = await workloads_of(client)
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("measuring", total=len(workloads) * len(loads))
            for workload in workloads:
                for callers in loads:
                    progress.update(task, description=f"{workload.name}, {callers} callers")
                    outcomes.append(await measure(workload, callers, seconds, metrics))
                    progress.advance(task)
    return outcomes


def table_of(outcomes: list[Outcome]) -> Table:
    """The outcomes, one line each."""
    table = Table(title=f"{platform.machine()}, {os.cpu_count()} CPUs")
    for heading in (
        "callers",
        "requests",
        "errors",
        "requests/s",
        "p50 ms",
        "p95 ms",
        "mean batch",
    ):
        table.add_column(heading, justify="right")
    for row in outcomes:
        table.add_row(
            row.workload, str(row.callers), str(row.requests), str(row.errors),
            f"{row.requests_per_second:.1f}", f"{row.p50_ms:.1f}", f"{row.p95_ms:.1f}",
            f"{row.mean_batch:.2f}",
        )  # fmt: skip
    return table


def main() -> None:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", help="host:port of a running server, instead of an own one")
    parser.add_argument("--metrics", default="127.0.0.1:9090", help="its metrics (%(default)s)")
    parser.add_argument("--bundle", type=Path, default=ROOT / "models", help="for the own server")
    parser.add_argument("--callers", default="1,8,32", help="loads, by comma (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="each load (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    loads = [int(load) for load in options.callers.split(",")]
    console = Console()
    if options.server:
        run = benchmark(options.server, options.metrics, loads, options.seconds, console)
        outcomes = asyncio.run(run)
    else:
        with own_server(options.bundle) as (target, metrics):
            run = benchmark(target, metrics, loads, options.seconds, console)
            outcomes = asyncio.run(run)
    console.print(table_of(outcomes))
    if options.json:
        machine = {"machine": platform.platform(), "cpus": os.cpu_count()}
        figures = {**machine, "outcomes": [asdict(outcome) for outcome in outcomes]}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
