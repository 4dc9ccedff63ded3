"""The scheduler in this process, without gRPC: by load beside fixed instances × threads, and what
the gate over the CPUs is worth where networks of one call run side by side.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from benchmarks.bench import Bench
from benchmarks.report import Report, spread
from velatura.server.engine.bundle import Bundle
from velatura.server.engine.cpu_budget import cpu_budget
from velatura.server.engine.engine import EngineOptions, LocalEngine
from velatura.server.engine.providers import Provider
from velatura.server.engine.warming import sample_inputs
from velatura.server.observability.metrics import Metrics

GENERATOR, ENCODER, SEGMENTER = "avatar-synthesis", "avatar-encoder", "avatar-segmenter"
# More CPUs than any run takes: as if every network had the machine for itself.
NO_GATE = 1024
BY_LOAD = "by load"

Ask = Callable[[LocalEngine], Awaitable[object]]


@dataclass(frozen=True)
class Load:
    """What so many callers ask, one after the other."""

    name: str
    callers: int
    ask: Ask


async def measure(bench: Bench) -> Report:
    """Rounds in which all ways take turns under every load, in changing order."""
    bundle = Bundle.load(bench.bundle)
    engines = {name: await _started(bundle, *way) for name, way in _ways().items()}
    loads = _loads(bundle)
    rates: dict[tuple[str, str], list[float]] = {}
    turns = [(load, name) for load in loads for name in engines]
    rng = random.Random(0)
    for _ in range(bench.rounds):
        rng.shuffle(turns)
        for load, name in turns:
            found = await _rate(engines[name], load, bench.seconds)
            rates.setdefault((load.name, name), []).append(found)
    for engine in engines.values():
        await engine.close()
    report = Report(
        "Lanes and gate",
        f"Answers a second of the engine alone, median of {bench.rounds} turns of "
        f"{bench.seconds:g} s in changing order; in brackets the ratio to running by load in the "
        "same round.",
        ["", *engines],
    )
    for load in loads:
        default = rates[load.name, BY_LOAD]
        cells = []
        for name in engines:
            own = rates[load.name, name]
            ratios = [mine / theirs for mine, theirs in zip(own, default, strict=True)]
            middle = sorted(own)[len(own) // 2]
            cells.append(f"{middle:.1f} [{spread(ratios)}]" if name != BY_LOAD else f"{middle:.1f}")
        report.rows.append([load.name, *cells])
    return report


def _ways() -> dict[str, tuple[int, int, bool]]:
    """Instances, threads and whether there is a gate."""
    cpus = cpu_budget()
    return {
        BY_LOAD: (0, 0, True),
        f"1 × {cpus}": (1, cpus, True),
        f"{cpus} × 1": (cpus, 1, True),
        f"1 × {cpus}, no gate": (1, cpus, False),
    }


def _loads(bundle: Bundle) -> list[Load]:
    one, two = (sample_inputs(bundle.model(GENERATOR), items) for items in (1, 2))
    picture = sample_inputs(bundle.model(ENCODER), 1)

    def generate(engine: LocalEngine) -> Awaitable[object]:
        return engine.run(GENERATOR, one)

    async def edit(engine: LocalEngine) -> None:
        """The networks of an edit with a region by class, in their order."""
        with engine.promise([[(ENCODER, 1), (SEGMENTER, 1)], [(GENERATOR, 2)]]):
            await asyncio.gather(engine.run(ENCODER, picture), engine.run(SEGMENTER, picture))
            await engine.run(GENERATOR, two)

    generated = [Load(f"generator, {n} callers", n, generate) for n in (1, 2, 8, 32)]
    return generated + [Load(f"networks of an edit, {n} callers", n, edit) for n in (1, 16)]


async def _started(bundle: Bundle, instances: int, threads: int, gated: bool) -> LocalEngine:
    options = EngineOptions(provider=Provider.CPU, instances=instances, intra_threads=threads)
    engine = LocalEngine(bundle, options, Metrics())
    await engine.start()
    if not gated:
        engine.batcher(GENERATOR).gate.cpus = NO_GATE
    return engine


async def _rate(engine: LocalEngine, load: Load, seconds: float) -> float:
    answers = 0
    began = time.monotonic()

    async def caller() -> None:
        nonlocal answers
        while time.monotonic() - began < seconds:
            await load.ask(engine)
            answers += 1

    await asyncio.gather(*(caller() for _ in range(load.callers)))
    return answers / (time.monotonic() - began)
