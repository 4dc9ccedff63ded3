"""Measures what metrics and tracing cost: one server does without and with them in turns.

One process, because two servers that are equal in all else differ by more than is looked for. The
turns are short, and in an order that changes, so that a slow phase of the machine hits all of them:
nothing is counted, everything is counted (twice: the second shows how far equals seem apart), and
one call in ten is traced to a collector that throws everything away. A round gives one ratio of
throughputs; the interval around their mean is bootstrapped. Beside it stands what the threads that
run no networks (counting and tracing happen in them alone) take more for a call, as a share of all
CPU time for a call: the networks' own time varies by more than is looked for. The callers keep all
CPUs busy, so that this is also what throughput loses, and the narrower of the two intervals
decides.

Exit code 0 where both costs are shown to be within their limits, 1 where one is shown to be over,
2 where the run was too short to tell.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import random
import sys
import time
import timeit
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from rich.console import Console
from rich.table import Table

from benchmarks import switchable_server
from benchmarks.server_process import ROOT, Served, own_server, samples
from velatura.client import AsyncClient
from velatura.server.observability.record import CallRecord

BARE, METRICS, AGAIN, TRACED = "no metrics", "metrics", "metrics again", "metrics, 10 % traced"
SIGNALS = {
    BARE: switchable_server.BARE,
    METRICS: switchable_server.METRICS,
    AGAIN: switchable_server.METRICS,
    TRACED: switchable_server.TRACED,
}
PROGRAM = (sys.executable, "-m", "benchmarks.switchable_server")
# Spans leave in the turn that made them, or nearly: the default is 5 s.
EXPORT_MS = "100"
CALLERS = 8
RESAMPLES = 4000
OVER, UNDECIDED = 1, 2
# For the signal to arrive.
ARRIVAL_S = 0.05
# For the turn's last spans to be exported.
EXPORTED_S = 0.15
# A call looks at whether it is traced so many times: at its stages, queues, batches and samples.
CHECKS = 40
Call = Callable[[AsyncClient], Awaitable[object]]


@dataclass(frozen=True)
class Comparison:
    """One server against another, and what the difference may cost at most (None: shown alone)."""

    what: str
    of: str
    to: str
    limit: float | None


COMPARISONS = (
    Comparison("metrics", METRICS, BARE, 0.02),
    Comparison("tracing one call in ten", TRACED, METRICS, 0.03),
    Comparison("nothing (the same again)", AGAIN, METRICS, None),
)


@dataclass
class Subject:
    """A state of the server that takes its turns, and what each turn gave."""

    name: str
    client: AsyncClient
    served: Served
    rates: list[float] = field(default_factory=list)  # calls a second
    costs: list[float] = field(default_factory=list)  # CPU seconds a call
    own: list[float] = field(default_factory=list)  # of them, outside of networks


class Discard(grpc.GenericRpcHandler):
    """A collector that takes everything and keeps nothing."""

    def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"")


@contextmanager
def collector() -> Iterator[str]:
    """Runs the collector for the block; yields its endpoint."""
    server = grpc.server(ThreadPoolExecutor(1), handlers=[Discard()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop(None).wait()


async def drive(
    subject: Subject, call: Callable[[AsyncClient], Awaitable[object]], s: float
) -> None:
    """Keep the callers busy for `s` seconds and note what that gave."""
    done = 0
    subject.served.process.send_signal(SIGNALS[subject.name])
    await asyncio.sleep(ARRIVAL_S)
    before, own = subject.served.cpu_s(), subject.served.own_cpu_s()
    begin = time.perf_counter()

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() - begin < s:
            await call(subject.client)
            done += 1

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    subject.rates.append(done / (time.perf_counter() - begin))
    await asyncio.sleep(EXPORTED_S)  # what the turn's spans cost on their way out is the turn's
    subject.costs.append((subject.served.cpu_s() - before) / done)
    subject.own.append((subject.served.own_cpu_s() - own) / done)


async def take_turns(served: Served, seconds: float, turn_s: float) -> dict[str, Subject]:
    """Rounds until the time is over; at least three, after one that does not count."""
    rng = random.Random(0)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(AsyncClient(served.address, timeout=120))
        await client.wait_ready(120)
        subjects = {name: Subject(name, client, served) for name in SIGNALS}
        faces = [sample.image async for sample in client.generate(range(1, 9))]
        edit = {(await client.list_directions())[0].name: 1.0}

        async def call(client: AsyncClient) -> object:
            return await client.edit_image(rng.choice(faces), edit)

        order = list(subjects.values())
        for subject in order:
            await drive(subject, call, turn_s)
            subject.rates.clear()
            subject.costs.clear()
            subject.own.clear()
        end, rounds = time.perf_counter() + seconds, 0
        while rounds < 3 or time.perf_counter() < end:
            rng.shuffle(order)
            for subject in order:
                await drive(subject, call, turn_s)
            rounds += 1
    return subjects


def interval(of: list[float], to: list[float]) -> tuple[float, float, float]:
    """Geometric mean of the rounds' ratios, and the bounds of its 95 % interval."""
    mean, low, high = bootstrapped([math.log(a / b) for a, b in zip(of, to, strict=True)])
    return math.exp(mean), math.exp(low), math.exp(high)


def added(of: Subject, to: Subject) -> tuple[float, float, float]:
    """CPU time that a call takes more outside of networks, as a share of all that it takes, and
    the bounds of its 95 % interval."""
    whole = sum(to.costs) / len(to.costs)
    return bootstrapped([(a - b) / whole for a, b in zip(of.own, to.own, strict=True)])


def bootstrapped(values: list[float]) -> tuple[float, float, float]:
    """Mean, and the bounds of its 95 % interval."""
    rng = random.Random(1)
    means = sorted(sum(rng.choices(values, k=len(values))) / len(values) for _ in range(RESAMPLES))
    low, high = means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1]
    return sum(values) / len(values), low, high


def verdict(limit: float | None, rates: tuple[float, float], costs: tuple[float, float]) -> str:
    """What the intervals of the ratios of throughput and of CPU a call say about a limit of the
    cost; the narrower one decides."""
    if limit is None:
        return ""
    # A call that takes 1 + x as much CPU leaves 1 / (1 + x) of the throughput.
    by_cost = (1 / costs[1], 1 / costs[0])
    low, high = min(rates, by_cost, key=lambda bounds: bounds[1] - bounds[0])
    if low >= 1 - limit:
        return "within"
    return "OVER" if high < 1 - limit else "undecided"


def report(subjects: Mapping[str, Subject], console: Console) -> list[str]:
    """Print the comparisons; returns the verdicts."""
    rounds = len(subjects[METRICS].rates)
    table = Table(title=f"EditImage, {CALLERS} callers, {rounds} rounds")
    for heading in ("cost of", "throughput", "95 %", "more CPU", "95 %", "limit", "verdict"):
        table.add_column(heading, justify="left" if heading == "cost of" else "right")
    verdicts = []
    for each in COMPARISONS:
        rate, low, high = interval(subjects[each.of].rates, subjects[each.to].rates)
        cpu, cpu_low, cpu_high = added(subjects[each.of], subjects[each.to])
        verdicts.append(verdict(each.limit, (low, high), (1 + cpu_low, 1 + cpu_high)))
        table.add_row(
            each.what, f"{rate - 1:+.2%}", f"{low - 1:+.2%} … {high - 1:+.2%}",
            f"{cpu:+.2%}", f"{cpu_low:+.2%} … {cpu_high:+.2%}",
            "" if each.limit is None else f"-{each.limit:.0%}", verdicts[-1],
        )  # fmt: skip
    console.print(table)
    record, number = CallRecord(), 200_000
    check = timeit.timeit(lambda: record.trace is None, number=number) / number
    rate = sum(subjects[METRICS].rates) / rounds
    console.print(
        f"Tracing that is off: about {CHECKS} checks a call of {check * 1e9:.0f} ns, "
        f"{CHECKS * check * rate:.4%} of the time at {rate:.1f} calls a second."
    )
    return verdicts


def main() -> int:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=ROOT / "models", help="what is served")
    parser.add_argument("--seconds", type=float, default=300, help="in all (%(default)s)")
    parser.add_argument("--turn", type=float, default=1.0, help="seconds a turn (%(default)s)")
    options = parser.parse_args()
    console = Console()
    if not console.is_terminal:
        console.width = 140
    with ExitStack() as stack:
        endpoint = stack.enter_context(collector())
        served = stack.enter_context(
            own_server(
                options.bundle, "--otlp-endpoint", endpoint, "--trace-sampling", "0.1",
                program=PROGRAM, env=os.environ | {"OTEL_BSP_SCHEDULE_DELAY": EXPORT_MS},
            )
        )  # fmt: skip
        subjects = asyncio.run(take_turns(served, options.seconds, options.turn))
        check_counted(served)
    verdicts = report(subjects, console)
    if "OVER" in verdicts:
        return OVER
    if "undecided" in verdicts:
        console.print("Too short, or the machine too busy, to tell: give it more --seconds.")
        return UNDECIDED
    return 0


def check_counted(served: Served) -> None:
    """Make sure that the server which should count did."""
    handled = 'grpc_server_handled_total{grpc_code="OK"'
    if not any(name.startswith(handled) and value for name, value in samples(served).items()):
        raise RuntimeError("the server with metrics has counted nothing")


if __name__ == "__main__":
    sys.exit(main())
