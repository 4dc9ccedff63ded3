"""Fixed arrival rates: requests come when they come, at a share of what the server can do."""

from __future__ import annotations

import random

from benchmarks.bench import Bench
from benchmarks.load import Method, Outcome, closed_loop, connected, open_loop, poisson
from benchmarks.payloads import INFER, Pool, Workload, latents, workloads
from benchmarks.report import Report
from benchmarks.sections.oip import LAYERS, MODEL, WIDTH
from benchmarks.server_process import own_server, wait_ready

SHARES = (0.5, 0.8, 1.2)
DEADLINE_S = 1.0
BUSY = 32  # callers that find out the capacity


async def measure(bench: Bench) -> Report:
    """The raw path and EditImage on distinct images; capacity anew right before each rate."""
    report = Report(
        "Fixed arrival rates",
        f"Poisson arrivals at a share of the capacity, which {BUSY} callers find out right before; "
        f"{bench.seconds * bench.rounds:g} s each, deadlines of {DEADLINE_S:g} s. Latency counts "
        "from when a request was due, so that waiting is not hidden. Quantiles are those of the "
        "answered.",
        ["", "share", "arrivals/s", "answers/s", "p50 ms", "p95 ms", "p99 ms", "refused", "late"],
    )
    with own_server(bench.bundle, *bench.server) as served:
        wait_ready(served)
        edit = (await workloads(served.address))[0]
        raw = Workload("ModelInfer on the generator", INFER, latents(MODEL, LAYERS, WIDTH))
        async with connected(served.address) as channel:
            for workload in (raw, edit):
                method = Method(channel, workload.path)
                for share in SHARES:
                    offered, outcome = await at_share(bench, method, workload, share)
                    report.rows.append(_row(workload.name, share, offered, outcome))
    return report


async def at_share(
    bench: Bench, method: Method, workload: Workload, share: float
) -> tuple[float, Outcome]:
    """Arrivals a second, and what became of them."""
    seconds = bench.seconds * bench.rounds
    capacity = (await closed_loop(method, workload.request, BUSY, bench.seconds)).rate()
    arrivals = poisson(share * capacity, seconds, random.Random(1))
    if isinstance(workload.request, Pool):
        workload.request.fill(len(arrivals))
    outcome = await open_loop(method, workload.request, arrivals, seconds, DEADLINE_S)
    return len(arrivals) / seconds, outcome


def _row(
    name: str, share: float, offered: float, outcome: Outcome
) -> list[str | int | float | None]:
    codes = outcome.codes()
    refused = codes.pop("RESOURCE_EXHAUSTED", 0)
    answered = codes.pop("OK", 0)
    total = max(1, len(outcome.replies))
    return [
        name,
        f"{share:.0%}",
        offered,
        answered / (outcome.end - outcome.begin),
        *outcome.latency_ms(0.5, 0.95, 0.99),
        f"{refused / total:.1%}",
        f"{sum(codes.values()) / total:.1%}",
    ]
