"""Start-up, memory and what an idle server costs."""

from __future__ import annotations

import asyncio
import statistics

from benchmarks.bench import Bench
from benchmarks.load import Method, closed_loop, connected
from benchmarks.payloads import INFER, Pool, latents, workloads
from benchmarks.report import Report
from benchmarks.sections.oip import LAYERS, MODEL, WIDTH
from benchmarks.server_process import own_server, wait_ready

GOAL_START_S, GOAL_IDLE = 3.0, 0.01
MIB = 2**20
SETTLE_S = 1.0


async def measure(bench: Bench) -> Report:
    """Starts as often as there are rounds; the last server is then left idle, and then loaded."""
    report = Report(
        "Start, memory, idle",
        f"From the start of the process to the first ready answer, {bench.rounds} starts with warm "
        f"file caches; CPU of the idle server over {bench.seconds * 3:g} s; resident memory when "
        "ready and after load on every path.",
        ["", "measured", "range", "goal"],
    )
    starts = []
    for _ in range(bench.rounds - 1):
        with own_server(bench.bundle, *bench.server) as served:
            starts.append(wait_ready(served))
    with own_server(bench.bundle, *bench.server) as served:
        starts.append(wait_ready(served))
        await asyncio.sleep(SETTLE_S)
        fresh, before = served.rss(), served.cpu_s()
        await asyncio.sleep(bench.seconds * 3)
        idle = (served.cpu_s() - before) / (bench.seconds * 3)
        async with connected(served.address) as channel:
            raw = latents(MODEL, LAYERS, WIDTH)
            await closed_loop(Method(channel, INFER), raw, 32, bench.seconds)
            for workload in await workloads(served.address):
                if isinstance(workload.request, Pool):
                    workload.request.fill(64)
                method = Method(channel, workload.path)
                await closed_loop(method, workload.request, 16, bench.seconds)
        loaded = served.rss()
    report.rows = [
        ["ready, s", statistics.median(starts), f"{min(starts):.2f}–{max(starts):.2f}",
         f"{GOAL_START_S:g}"],
        ["idle CPU, % of one", idle * 100, None, f"{GOAL_IDLE:.0%}"],
        ["memory when ready, MiB", fresh / MIB, None, None],
        ["memory after load, MiB", loaded / MIB, None, None],
    ]  # fmt: skip
    return report
