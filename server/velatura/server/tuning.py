"""`velatura-server tune`: measures how a bundle's networks run best on this machine, and writes it
down for `serve --config`.

Every way to run them (by load, or instances × threads, with batches of several sizes) gets a short
time at 1, 8 and 32 callers, in this process and through the same scheduler that serves.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic

from rich.console import Console
from rich.table import Table

from velatura.server.engine.bundle import Bundle
from velatura.server.engine.cpu_budget import cpu_budget
from velatura.server.engine.engine import LocalEngine
from velatura.server.engine.options import EngineOptions
from velatura.server.engine.warming import sample_inputs
from velatura.server.observability.metrics import Metrics

CALLERS = (1, 8, 32)
BATCHES = (4, 8, 16)
# A setting has to be so much better than the default to be written down: less is noise.
WORTH_SETTING = 1.03


@dataclass(frozen=True, slots=True)
class Way:
    """A way to run the networks; 0 instances and 0 threads are by load."""

    instances: int
    threads: int
    max_batch: int

    def __str__(self) -> str:
        lanes = f"{self.instances} × {self.threads}" if self.instances else "by load"
        return f"{lanes}, batch {self.max_batch}"


@dataclass(slots=True)
class Measured:
    """What one way came to: items a second by network and callers."""

    way: Way
    rates: dict[tuple[str, int], float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to try. `seconds` is for each network and number of callers."""

    seconds: float = 1.0
    callers: Sequence[int] = CALLERS
    batches: Sequence[int] = BATCHES
    models: Sequence[str] = ()  # empty for all

    def ways(self, cpus: int) -> list[Way]:
        """By load first; then instances × threads that make up all CPUs."""
        shapes = [(0, 0)]
        for instances in sorted({1, *(1 << power for power in range(1, cpus.bit_length())), cpus}):
            if cpus % instances == 0:
                shapes.append((instances, cpus // instances))
        return [
            Way(instances, threads, batch)
            for (instances, threads), batch in itertools.product(shapes, sorted(self.batches))
        ]


async def tune(
    bundle: Bundle,
    base: EngineOptions,
    plan: Plan,
    told: Callable[[Measured], None] = lambda _: None,
) -> list[Measured]:
    """Try all of `plan`, in its order; `told` hears of each way when it is done. Raises the
    engine's errors.
    """
    names = plan.models or [entry.name for entry in bundle.manifest.models]
    found = []
    for way in plan.ways(cpu_budget()):
        options = replace(
            base,
            instances=way.instances,
            intra_threads=way.threads,
            max_batch_size=way.max_batch,
            refuse_late=False,
        )
        found.append(await _measured(bundle, options, way, names, plan))
        told(found[-1])
    return found


async def _measured(
    bundle: Bundle, options: EngineOptions, way: Way, names: Iterable[str], plan: Plan
) -> Measured:
    engine = LocalEngine(bundle, options, Metrics(enabled=False))
    measured = Measured(way)
    await engine.start()
    try:
        for name, callers in itertools.product(names, plan.callers):
            rate = await _rate(engine, name, callers, plan.seconds)
            measured.rates[name, callers] = rate
    finally:
        await engine.close()
    return measured


async def _rate(engine: LocalEngine, name: str, callers: int, seconds: float) -> float:
    """Items a second that so many callers get, each with one item at a time."""
    inputs = sample_inputs(engine.bundle.model(name), 1)
    answered = 0
    began = monotonic()

    async def caller() -> None:
        nonlocal answered
        while monotonic() - began < seconds:
            await engine.run(name, inputs)
            answered += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    return answered / (monotonic() - began)


def score(measured: Measured, best: Mapping[tuple[str, int], float]) -> float:
    """How near one way comes to the best of all ways, over networks and callers alike: the
    geometric mean, so that no network counts for more because it is fast.
    """
    shares = [rate / best[point] for point, rate in measured.rates.items()]
    return math.exp(sum(math.log(max(share, 1e-9)) for share in shares) / len(shares))


def scores(found: Sequence[Measured]) -> list[float]:
    """The scores of all ways, in their order."""
    points = found[0].rates
    best = {point: max(each.rates[point] for each in found) for point in points}
    return [score(each, best) for each in found]


def winner(found: Sequence[Measured]) -> Way:
    """The best way; by load with the same batch where that is as good within the noise."""
    rated = dict(zip((each.way for each in found), scores(found), strict=True))
    best = max(rated, key=lambda way: rated[way])
    default = max((way for way in rated if not way.instances), key=lambda way: rated[way])
    return best if rated[best] > WORTH_SETTING * rated[default] else default


def table(found: Sequence[Measured]) -> Table:
    """All that was measured: a row for each way, the mean of the networks' rates for each number of
    callers, relative to the best.
    """
    callers = sorted({count for _, count in found[0].rates})
    drawn = Table(title="Items a second, share of the best way (geometric mean over networks)")
    for heading in ("instances × threads", "most in a batch"):
        drawn.add_column(heading)
    for count in callers:
        drawn.add_column(f"{count} callers" if count > 1 else "1 caller", justify="right")
    drawn.add_column("all", justify="right")
    chosen = winner(found)
    for each, whole in zip(found, scores(found), strict=True):
        shares = [_share(found, each, count) for count in callers]
        lanes = f"{each.way.instances} × {each.way.threads}" if each.way.instances else "by load"
        cells = [lanes, str(each.way.max_batch), *(f"{share:.2f}" for share in shares)]
        drawn.add_row(*cells, f"{whole:.2f}", style="bold" if each.way == chosen else "")
    return drawn


def _share(found: Sequence[Measured], one: Measured, callers: int) -> float:
    best = {point: max(each.rates[point] for each in found) for point in one.rates}
    part = Measured(one.way, {p: rate for p, rate in one.rates.items() if p[1] == callers})
    return score(part, best)


def write(path: Path, way: Way) -> None:
    """Put the three settings into a TOML file, and leave everything else in it as it is. Raises
    ValueError where it is not TOML, or OSError.
    """
    settings = {
        "instances": way.instances,
        "intra_threads": way.threads,
        "max_batch_size": way.max_batch,
    }
    lines = path.read_text().splitlines() if path.exists() else []
    tomllib.loads("\n".join(lines))
    kept = [line for line in lines if line.partition("=")[0].strip() not in settings]
    written = [f"{name} = {value}" for name, value in settings.items()]
    path.write_text("\n".join([*written, *kept]) + "\n")


def run(bundle: Bundle, base: EngineOptions, plan: Plan, output: Path, console: Console) -> Way:
    """Tune, print the table, and write `output`."""

    def tell(measured: Measured) -> None:
        console.print(f"tried {measured.way}", style="dim")

    found = asyncio.run(tune(bundle, base, plan, tell))
    console.print(table(found))
    chosen = winner(found)
    write(output, chosen)
    console.print(f"Best: {chosen}. Written to {output}; serve with --config {output}.")
    return chosen
