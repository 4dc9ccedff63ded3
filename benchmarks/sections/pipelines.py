"""The pipelines end to end, beside the sum of their networks' bare times.

Which networks a request runs, and on how many items, is read off the server's own counters during
the measurement, so that what a cache saves is not counted as work.
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.bench import Bench
from benchmarks.load import Method, Outcome, closed_loop, connected
from benchmarks.payloads import Pool, Workload, workloads
from benchmarks.report import Report, spread
from benchmarks.server_process import Served, batches, own_server, wait_ready

CALLERS = (1, 8, 16, 32)
# More requests a second than any of these workloads reaches on the CPUs of one machine.
MOST_A_SECOND = 150
Run = Mapping[str, float]


async def measure(bench: Bench) -> Report:
    """Every workload at every load; its networks alone right after each."""
    report = Report(
        "Pipelines, end to end",
        f"PNG in, PNG out, {bench.rounds} rounds of {bench.seconds:g} s. `bare` is what "
        "onnxruntime alone would do with the networks that a request ran (read off the server's "
        "counters), one after the other: in batches of one for one caller, else in each network's "
        "best batch size, measured right after.",
        ["", "callers", "requests/s", "p50 ms", "p99 ms", "networks a request", "bare", "ratio"],
    )
    with own_server(bench.bundle, *bench.server) as served:
        wait_ready(served)
        found = await workloads(served.address)
        async with connected(served.address) as channel:
            for workload in found:
                method = Method(channel, workload.path)
                await closed_loop(method, workload.request, 8, bench.probe_s)
                for callers in CALLERS:
                    report.rows.append(await _row(bench, served, method, workload, callers))
    return report


async def _row(
    bench: Bench, served: Served, method: Method, workload: Workload, callers: int
) -> list[str | int | float | None]:
    outcomes: list[Outcome] = []
    bare: list[float] = []
    items: Run = {}
    for _ in range(bench.rounds):
        if isinstance(workload.request, Pool):
            workload.request.fill(int(MOST_A_SECOND * bench.seconds))
        before = batches(served)
        outcomes.append(await closed_loop(method, workload.request, callers, bench.seconds))
        items = per_request(before, batches(served), outcomes[-1].asked)
        bare.append(_bare_rate(bench, items, workload.extent, callers))
    ratios = [each.rate() / rate for each, rate in zip(outcomes, bare, strict=True) if rate]
    p50, p99 = (
        sum(each.latency_ms(q)[0] for each in outcomes) / len(outcomes) for q in (0.5, 0.99)
    )
    ran = ", ".join(f"{number:.1f} {name}" for name, number in items.items())
    failed = sum(each.errors() for each in outcomes)
    return [
        workload.name + (f" ({failed} not answered)" if failed else ""),
        callers,
        sum(each.rate() for each in outcomes) / len(outcomes),
        p50,
        p99,
        ran,
        sum(bare) / len(bare),
        spread(ratios) if ratios else None,
    ]


def per_request(
    before: Mapping[str, tuple[float, float]],
    after: Mapping[str, tuple[float, float]],
    requests: int,
) -> dict[str, float]:
    """Items that a request ran, by network, out of the counters around `requests` of them."""
    ran = {name: after[name][0] - before.get(name, (0.0, 0.0))[0] for name in after}
    return {name: items / requests for name, items in ran.items() if items}


def _bare_rate(bench: Bench, items: Run, extent: int, callers: int) -> float:
    """Requests a second that onnxruntime alone would do; 0 where no network ran."""
    seconds = 0.0
    for name, number in items.items():
        batch = 1 if callers == 1 else bench.alone.best_batch(name, bench.probe_s / 2, extent)
        rate = bench.alone.rate(name, batch, bench.seconds / (2 * len(items)), extent)
        seconds += number / rate
    return 1 / seconds if seconds else 0.0
