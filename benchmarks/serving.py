"""Measures a server on this machine: latency and throughput of each RPC at several loads.

Starts a server of its own (or takes `--server`), makes its own pictures with `Generate`, sends each
workload from closed-loop callers over one connection, and prints a table. Beside EditImage and
Stylize stands what onnxruntime alone does with the same graphs in batches of eight, measured right
before each load, so that both meet the same machine. `--json FILE` keeps the figures together with
what they were measured on. Nothing is compared with a limit: this tells, tests judge.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from onnxruntime_alone import Alone, Steps
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from velatura.client import AsyncClient, VelaturaError

ROOT = Path(__file__).resolve().parents[1]
PHOTO = 256  # side of the stylised pictures
Call = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Outcome:
    """One workload at one load."""

    workload: str
    callers: int
    requests: int
    errors: int
    images_per_second: float
    p50_ms: float
    p99_ms: float
    mean_batch: float  # of the network that the workload leans on; 0 where it ran none
    alone_images_per_second: float | None = None  # onnxruntime on the same graphs, just before


@dataclass(frozen=True)
class Workload:
    """What is sent, and the role-giving network whose batches are watched."""

    name: str
    model: str
    call: Call
    alone: Steps = ()  # what one request runs, for the comparison with onnxruntime alone


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def own_server(bundle: Path, *arguments: str) -> Iterator[tuple[str, str]]:
    """Runs a server for the block; yields its gRPC and its metrics address, and drains it after."""
    grpc, metrics = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    command = [
        str(Path(sys.executable).parent / "velatura-server"), "serve",
        "--listen", grpc, "--metrics-listen", metrics, "--bundle", str(bundle), *arguments,
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
        while True:  # once at least, else a slow machine never sees the load that the table names
            start = time.perf_counter()
            try:
                await workload.call()
                latencies.append(time.perf_counter() - start)
            except VelaturaError:
                errors += 1
            if time.perf_counter() - begin >= seconds:
                return

    await asyncio.gather(*(caller() for _ in range(callers)))
    elapsed = time.perf_counter() - begin
    items_after, runs_after = batches(metrics).get(workload.model, (0.0, 0.0))
    return Outcome(
        workload=workload.name,
        callers=callers,
        requests=len(latencies),
        errors=errors,
        images_per_second=len(latencies) / elapsed,
        p50_ms=quantile(latencies, 0.5) * 1000,
        p99_ms=quantile(latencies, 0.99) * 1000,
        mean_batch=(items_after - items) / max(runs_after - runs, 1),
    )


async def workloads_of(client: AsyncClient) -> list[Workload]:
    """The workloads, on pictures that the server itself generates."""
    catalog = await client.list_models()
    generator = catalog.generators[0]
    network = {model.role: model.name for model in catalog.models}
    faces = [sample.image async for sample in client.generate(range(1, 17))]
    photos = [face.resize((PHOTO, PHOTO), Image.Resampling.BICUBIC) for face in faces]
    directions = await client.list_directions()
    edit = {directions[0].name: 1.0}
    region = next((d.regions for d in directions if d.name in edit and d.regions), None)
    style = (await client.list_styles())[0].name
    token = (await client.encode(faces[0])).latent_token
    rng = random.Random(0)
    pick = rng.choice

    async def sample() -> None:
        async for _ in client.generate(rng.randrange(1 << 32)):
            pass

    # An edit decodes the latents before and after.
    decoding = ((generator.synthesis, 0),) * 2
    return [
        Workload(
            "EditImage",
            generator.synthesis,
            lambda: client.edit_image(pick(faces), edit),
            ((generator.encoder, 0), *decoding),
        ),
        Workload(
            f"Stylize {PHOTO} px, preset",
            network["preset_style"],
            lambda: client.stylize(pick(photos), style),
            ((network["preset_style"], PHOTO),),
        ),
        Workload(
            "EditImage, region of classes",
            generator.synthesis,
            lambda: client.edit_image(pick(faces), edit, region=region),
        ),
        Workload(
            "EditImage from a token",
            generator.synthesis,
            lambda: client.edit_image(edits=edit, latent_token=token),
        ),
        Workload(
            f"Stylize {PHOTO} px, picture",
            network["style_transformer"],
            lambda: client.stylize(pick(photos), pick(faces)),
        ),
        Workload("Generate one", generator.synthesis, sample),
        Workload("Segment", network["segmenter"], lambda: client.segment(pick(faces))),
    ]


async def benchmark(
    target: str,
    metrics: str,
    loads: list[int],
    seconds: float,
    console: Console,
    outcomes: list[Outcome],
    alone: Alone | None = None,
) -> None:
    """Every workload at every load, added to `outcomes`; `alone`, where given, is measured in
    between.
    """
    async with AsyncClient(target, timeout=120) as client:
        await client.wait_ready(120)
        workloads = await workloads_of(client)
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("measuring", total=len(workloads) * len(loads))
            for workload in workloads:
                for callers in loads:
                    progress.update(task, description=f"{workload.name}, {callers} callers")
                    rate = None
                    if alone is not None and workload.alone:
                        rate = await asyncio.to_thread(
                            alone.images_per_second, workload.alone, seconds / 2
                        )
                    outcome = await measure(workload, callers, seconds, metrics)
                    outcomes.append(replace(outcome, alone_images_per_second=rate))
                    progress.advance(task)


def table_of(outcomes: list[Outcome]) -> Table:
    """The outcomes, one line each."""
    table = Table(title=f"{platform.machine()}, {os.cpu_count()} CPUs")
    table.add_column("workload")
    for heading in (
        "callers", "requests", "errors", "images/s", "p50 ms", "p99 ms", "mean batch",
        "onnxruntime alone", "ratio",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    for row in outcomes:
        alone = row.alone_images_per_second
        table.add_row(
            row.workload, str(row.callers), str(row.requests), str(row.errors),
            f"{row.images_per_second:.1f}", f"{row.p50_ms:.1f}", f"{row.p99_ms:.1f}",
            f"{row.mean_batch:.2f}",
            f"{alone:.1f}" if alone else "",
            f"{row.images_per_second / alone:.2f}" if alone else "",
        )  # fmt: skip
    return table


def main() -> None:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", help="host:port of a running server, instead of an own one")
    parser.add_argument("--metrics", default="127.0.0.1:9090", help="its metrics (%(default)s)")
    parser.add_argument("--bundle", type=Path, default=ROOT / "models", help="for the own server")
    parser.add_argument("--callers", default="1,8,32", help="loads, by comma (%(default)s)")
    parser.add_argument("--seconds", type=float, default=2.5, help="each load (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    loads = [int(load) for load in options.callers.split(",")]
    console, outcomes = Console(), list[Outcome]()
    if not console.is_terminal:
        console.width = 140  # a file or a pipe has no width: the table is kept whole
    # As an interrupt does, so that the own server is stopped too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run_all(options, loads, console, outcomes)
    except KeyboardInterrupt:
        console.print("Interrupted; this is what was measured until then.")
        sys.exit(130)
    finally:
        console.print(table_of(outcomes))
    if options.json:
        machine = {"machine": platform.platform(), "cpus": os.cpu_count()}
        figures = {**machine, "outcomes": [asdict(outcome) for outcome in outcomes]}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def run_all(
    options: argparse.Namespace, loads: list[int], console: Console, outcomes: list[Outcome]
) -> None:
    """Measure the server that was named, or one of our own beside onnxruntime alone."""
    if options.server:
        run = benchmark(options.server, options.metrics, loads, options.seconds, console, outcomes)
        asyncio.run(run)
        return
    with own_server(options.bundle) as (target, metrics):
        alone = Alone(options.bundle)
        asyncio.run(benchmark(target, metrics, loads, options.seconds, console, outcomes, alone))


if __name__ == "__main__":
    main()
