"""The raw path, ModelInfer on the generator, beside onnxruntime alone."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from benchmarks.bench import Bench
from benchmarks.load import Method, Outcome, closed_loop, connected
from benchmarks.payloads import INFER, latents
from benchmarks.report import Report, spread
from benchmarks.server_process import batches, own_server, wait_ready

MODEL, LAYERS, WIDTH = "avatar-synthesis", 12, 128
CALLERS = (1, 8, 32)
# Of onnxruntime alone; at one caller of its batches of one.
GOALS = {1: 0.78, 8: 0.92, 32: 0.95}


async def measure(bench: Bench) -> Report:
    """Rounds in which onnxruntime alone and our server with 1, 8 and 32 callers take turns."""
    alone = bench.alone
    best = alone.best_batch(MODEL, bench.probe_s)
    request = latents(MODEL, LAYERS, WIDTH)
    bare: dict[int, list[float]] = {1: [], best: []}
    ours: dict[int, list[Outcome]] = {callers: [] for callers in CALLERS}
    shapes: dict[int, float] = {}
    with own_server(bench.bundle, *bench.server) as served:
        wait_ready(served)
        async with connected(served.address) as channel:
            method = Method(channel, INFER)
            for callers in CALLERS:
                await closed_loop(method, request, callers, bench.probe_s)

            def bare_turn(batch: int) -> Callable[[], Awaitable[None]]:
                async def turn() -> None:
                    bare[batch].append(alone.rate(MODEL, batch, bench.seconds))

                return turn

            def our_turn(callers: int) -> Callable[[], Awaitable[None]]:
                async def turn() -> None:
                    items, runs = batches(served).get(MODEL, (0.0, 0.0))
                    ours[callers].append(await closed_loop(method, request, callers, bench.seconds))
                    after = batches(served).get(MODEL, (0.0, 0.0))
                    shapes[callers] = (after[0] - items) / max(1.0, after[1] - runs)

                return turn

            turns = [*map(bare_turn, bare), *map(our_turn, CALLERS)]
            rng = random.Random(0)
            for _ in range(bench.rounds):
                rng.shuffle(turns)
                for turn in turns:
                    await turn()
    return _report(bench, best, bare, ours, shapes)


def _report(
    bench: Bench,
    best: int,
    bare: dict[int, list[float]],
    ours: dict[int, list[Outcome]],
    shapes: dict[int, float],
) -> Report:
    report = Report(
        "Raw tensors: ModelInfer on the generator",
        f"`{MODEL}`, w_plus float32 [1, {LAYERS}, {WIDTH}] in, image float32 [1, 3, 128, 128] out, "
        f"both raw. {bench.rounds} rounds of {bench.seconds:g} s a turn in changing order; the "
        "client shares the CPUs. The ratio is to onnxruntime alone in the same round: in batches "
        f"of one for one caller, else in batches of {best}, its best here.",
        ["", "images/s", "p50 ms", "p99 ms", "mean batch", "ratio", "goal"],
    )
    for batch, rates in bare.items():
        report.rows.append(
            [f"onnxruntime alone, batch {batch}", mean(rates), None, None, batch, None, None]
        )
    for callers, outcomes in ours.items():
        against = bare[1 if callers == 1 else best]
        ratios = [each.rate() / rate for each, rate in zip(outcomes, against, strict=True)]
        p50, p99 = (mean([each.latency_ms(share)[0] for each in outcomes]) for share in (0.5, 0.99))
        report.rows.append([
            f"Velatura, {callers} caller{'s' if callers > 1 else ''}",
            mean([each.rate() for each in outcomes]), p50, p99, shapes[callers],
            spread(ratios), f"{GOALS[callers]:.2f}",
        ])  # fmt: skip
    errors = sum(each.errors() for outcomes in ours.values() for each in outcomes)
    if errors:
        report.remarks.append(f"{errors} calls were not answered.")
    return report


def mean(values: list[float]) -> float:
    """Arithmetic."""
    return sum(values) / len(values)
