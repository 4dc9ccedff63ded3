"""Twice what the server can do, with deadlines of half a second: what is answered in time, how the
rest is refused, whether retries make it worse, and whether the delays that refusals name are true.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.bench import Bench
from benchmarks.load import (
    Method,
    Outcome,
    Reply,
    closed_loop,
    connected,
    open_loop,
    poisson,
    quantile,
)  # fmt: skip
from benchmarks.payloads import EDIT, INFER, Pool, Request, latents, workloads
from benchmarks.report import Cell, Report, spread
from benchmarks.sections.oip import LAYERS, MODEL, WIDTH
from benchmarks.server_process import own_server, wait_ready
from velatura.client.channel import Retry, service_config

DEADLINE_S = 0.5
FACTOR = 2.0
BUSY = 32
TURN_S = 10.0
# A deadline that the server's refusals cannot rest on: it is longer than any queue, and the caller
# hangs up after DEADLINE_S all the same.
HIDDEN_S = 60.0
PROBE_EVERY_S = 0.004
STEADY_S = 20.0
MOST_A_SECOND = 120  # pictures that the server can edit
MOST_QUEUED = 240  # the server's queue is longer by default


async def measure(bench: Bench) -> Report:
    """Overload with admission, without it, and with the deadline kept from the server."""
    report = Report(
        "Overload: 200 %, deadlines of 500 ms",
        f"Poisson arrivals at {FACTOR:.0%} of the capacity, {bench.overload_s:g} s in turns of "
        f"{TURN_S:g}, between which {BUSY} callers find the capacity out again: EditImage on "
        "distinct images, which is the service's main work, and ModelInfer on its smallest job, "
        "where turning somebody away "
        "costs the most beside it. Without admission the server still drops what has expired in "
        "its queue; where it is not told the deadline, callers hang up after 500 ms. Goodput is "
        "what was answered within 500 ms of when it was due, in a turn from its first half second "
        "on; its share of the capacity is the turns' median, with the lowest and the highest.",
        ["", "capacity/s", "arrivals/s", "goodput/s", "of capacity", "p50 ms", "p99 ms",
         "refused", "hung up or late", "other"],
    )  # fmt: skip
    for name, path, flags, told in (
        ("EditImage, with admission by deadline", EDIT, (), True),
        ("EditImage, without (--no-admission)", EDIT, ("--no-admission",), True),
        ("ModelInfer, with admission by deadline", INFER, (), True),
        ("ModelInfer, without", INFER, ("--no-admission",), True),
        ("ModelInfer, without, deadline not told", INFER, ("--no-admission",), False),
    ):
        with own_server(bench.bundle, *bench.server, *flags) as served:
            wait_ready(served)
            request = await _subject(served.address, path)
            async with connected(served.address) as channel:
                method = Method(channel, path)
                loaded = method if told else Hanging(method)
                turns = await _turns(bench, method, loaded, request)
        report.rows.append(_row(name, turns))
        if not flags:
            report.remarks.append(f"{name}: {_delays_seen(turns)}")
    return report


async def _subject(address: str, path: str) -> Request:
    """What to send to the method at `path`."""
    if path == INFER:
        return latents(MODEL, LAYERS, WIDTH)
    return next(each.request for each in await workloads(address) if each.path == path)


async def measure_retries(bench: Bench) -> Report:
    """The same load by clients that retry as the standard policy says: no collapse."""
    report = Report(
        "Overload with retries",
        "As above, with gRPC's own retries switched on as our client does (up to 4 attempts, and "
        "the server's `grpc-retry-pushback-ms` honoured). A collapse would show as a goodput that "
        "falls from one part of the run to the next.",
        ["part of the run", "goodput/s", "of capacity", "p50 ms", "p99 ms", "refused", "late"],
    )
    options = (("grpc.enable_retries", 1), ("grpc.service_config", service_config(Retry())))
    with own_server(bench.bundle, *bench.server) as served:
        wait_ready(served)
        async with connected(served.address, options) as channel:
            method = Method(channel, INFER)
            request = latents(MODEL, LAYERS, WIDTH)
            before = await _capacity(bench, method, request)
            outcome = await _overloaded(method, request, FACTOR * before, bench.overload_s)
            capacity = (before + await _capacity(bench, method, request)) / 2
    parts = 6
    length = (outcome.end - outcome.begin) / parts
    for part in range(parts):
        begin = outcome.begin + part * length
        # By when it was due: what a later part answers belongs to the part that asked.
        replies = [reply for reply in outcome.replies if begin <= reply.due < begin + length]
        cut = Outcome(begin, begin + length + DEADLINE_S, replies)
        good = sum(reply.ok and reply.latency_s <= DEADLINE_S for reply in replies) / length
        codes, total = cut.codes(), max(1, len(replies))
        refused = codes.get("RESOURCE_EXHAUSTED", 0) / total
        late = codes.get("DEADLINE_EXCEEDED", 0) / total
        report.rows.append([
            f"{part * length:.0f}–{(part + 1) * length:.0f} s", good, good / capacity,
            *cut.latency_ms(0.5, 0.99), f"{refused:.0%}", f"{late:.0%}",
        ])  # fmt: skip
    return report


async def measure_delays(bench: Bench) -> Report:
    """Refusals' delays beside the time after which the same request is really taken."""
    report = Report(
        "Retry delays: said and true",
        "A burst fills the queue; then one request with a shorter deadline is refused with a "
        "delay. Asked again and again with the same deadline, it is taken after the true delay. "
        f"Under steady arrivals at {FACTOR:.0%} of the capacity there is no such moment. There a "
        "caller does as it is told, asks again after each delay that is said, with the same "
        "`x-request-id`, and the true delay is how long it took until it was taken.",
        ["", "deadline ms", "tries", "said ms", "true ms", "said / true",
         "within a factor of two"],
    )  # fmt: skip
    request = latents(MODEL, LAYERS, WIDTH)
    with own_server(bench.bundle, *bench.server) as served:
        wait_ready(served)
        async with connected(served.address) as channel:
            method = Method(channel, INFER)
            capacity = (await closed_loop(method, request, BUSY, bench.seconds)).rate()
            burst = min(MOST_QUEUED, int(2 * capacity))  # two seconds' worth
            for deadline_s in (0.2, 0.4, 0.6, 0.8):
                found = []
                for _ in range(max(3, bench.rounds)):
                    pair = await _said_and_true(method, request, burst, deadline_s)
                    if pair is not None:
                        found.append(pair)
                report.rows.append(_delay_row("after a burst", deadline_s, found))
            overload = asyncio.create_task(
                _overloaded(method, request, FACTOR * capacity, STEADY_S)
            )
            obeyed = await _obeying(method, request, DEADLINE_S, STEADY_S)
            await overload
            report.rows.append(_delay_row("in steady overload, obeyed", DEADLINE_S, obeyed))
    return report


class Hanging(Method):
    """A method whose caller keeps the deadline to itself and hangs up when it passes."""

    def __init__(self, method: Method) -> None:
        self._method = method

    async def ask(
        self, request: bytes, due: float, timeout_s: float | None = None, request_id: str = ""
    ) -> Reply:
        """As `Method.ask`; a hang-up is DEADLINE_EXCEEDED."""
        assert timeout_s is not None
        left = due + timeout_s - time.perf_counter()
        try:
            async with asyncio.timeout(max(0.0, left)):
                return await self._method.ask(request, due, HIDDEN_S, request_id)
        except TimeoutError:
            return Reply("DEADLINE_EXCEEDED", due, time.perf_counter())


@dataclass(frozen=True)
class Turn:
    """One turn of overload, and the capacity around it, answers a second."""

    capacity: float
    outcome: Outcome

    @property
    def goodput(self) -> float:
        """Answers in time, a second, once those who came first can have theirs."""
        outcome = self.outcome
        return Outcome(outcome.begin + DEADLINE_S, outcome.end, outcome.replies).rate(DEADLINE_S)


async def _turns(bench: Bench, method: Method, loaded: Method, request: Request) -> list[Turn]:
    """Capacity and overload in turn, so that a machine that gets slower or faster does it to both;
    `loaded` sends the overload.
    """
    turns = []
    before = await _capacity(bench, method, request)
    for _ in range(max(1, round(bench.overload_s / TURN_S))):
        length = min(TURN_S, bench.overload_s)
        outcome = await _overloaded(loaded, request, FACTOR * before, length)
        after = await _capacity(bench, method, request)
        turns.append(Turn((before + after) / 2, outcome))
        before = after
    return turns


async def _overloaded(
    method: Method, request: Request, arrivals_a_second: float, seconds: float
) -> Outcome:
    """What becomes of so many arrivals; half a second later all of it is over."""
    arrivals = poisson(arrivals_a_second, seconds, random.Random(2))
    _make_ready(request, len(arrivals))
    outcome = await open_loop(method, request, arrivals, seconds, DEADLINE_S)
    await asyncio.sleep(DEADLINE_S)
    return outcome


async def _capacity(bench: Bench, method: Method, request: Request) -> float:
    _make_ready(request, int(MOST_A_SECOND * (bench.seconds + 1)))
    return (await closed_loop(method, request, BUSY, bench.seconds)).rate()


def _make_ready(request: Request, count: int) -> None:
    """Making pictures must not take CPUs from the server that is measured."""
    if isinstance(request, Pool):
        request.fill(count)


def _row(name: str, turns: Sequence[Turn]) -> list[Cell]:
    replies = [reply for turn in turns for reply in turn.outcome.replies]
    seconds = sum(turn.outcome.end - turn.outcome.begin for turn in turns)
    whole = Outcome(0.0, seconds, replies)
    codes, total = whole.codes(), max(1, len(replies))
    codes.pop("OK", 0)
    refused, late = codes.pop("RESOURCE_EXHAUSTED", 0), codes.pop("DEADLINE_EXCEEDED", 0)
    other = ", ".join(f"{number} {code}" for code, number in sorted(codes.items()))
    return [
        name,
        sum(turn.capacity for turn in turns) / len(turns),
        total / seconds,
        sum(turn.goodput for turn in turns) / len(turns),
        spread([turn.goodput / turn.capacity for turn in turns]),
        *whole.latency_ms(0.5, 0.99),
        f"{refused / total:.0%}",
        f"{late / total:.1%}",
        other or "none",
    ]


def _delays_seen(turns: Sequence[Turn]) -> str:
    replies = [reply for turn in turns for reply in turn.outcome.replies]
    refusals = [reply for reply in replies if reply.code == "RESOURCE_EXHAUSTED"]
    said = sorted(reply.retry_after_s for reply in refusals if reply.retry_after_s is not None)
    low, middle, high = (quantile(said, share) * 1000 for share in (0.05, 0.5, 0.95))
    return (
        f"{len(said)} of {len(refusals)} refusals named a delay: 5 % under {low:.0f} ms, half "
        f"under {middle:.0f} ms, 95 % under {high:.0f} ms."
    )


async def _said_and_true(
    method: Method, request: Callable[[], bytes], burst: int, deadline_s: float
) -> tuple[float, float] | None:
    """Said and true delay in seconds; None where the request was not refused at first."""
    due = time.perf_counter()
    filling = [asyncio.create_task(method.ask(request(), due, 30.0)) for _ in range(burst)]
    await asyncio.sleep(0.1)
    begin = time.perf_counter()
    first = await method.ask(request(), begin, deadline_s)
    true = None
    while first.code == "RESOURCE_EXHAUSTED" and true is None:
        await asyncio.sleep(PROBE_EVERY_S)
        now = time.perf_counter()
        reply = await method.ask(request(), now, deadline_s)
        if reply.code != "RESOURCE_EXHAUSTED":  # taken: when it came, not when it was answered
            true = now - begin
    await asyncio.gather(*filling)
    if true is None or first.retry_after_s is None:
        return None
    return first.retry_after_s, true


async def _obeying(
    method: Method, request: Request, deadline_s: float, seconds: float
) -> list[tuple[float, float]]:
    """First said and true delay, in seconds, of requests that were refused at first and came again
    whenever they were told to.
    """
    found = []
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        request_id = uuid.uuid4().hex
        reply = await method.ask(request(), begin, deadline_s, request_id)
        said = reply.retry_after_s if reply.code == "RESOURCE_EXHAUSTED" else None
        if said is None:
            continue
        asked = begin
        while (delay := reply.retry_after_s) is not None and asked < end:
            await asyncio.sleep(delay)
            asked = time.perf_counter()
            reply = await method.ask(request(), asked, deadline_s, request_id)
        if reply.code != "RESOURCE_EXHAUSTED":  # taken: when it came, not when it was answered
            found.append((said, asked - begin))
    return found


def _delay_row(name: str, deadline_s: float, found: list[tuple[float, float]]) -> list[Cell]:
    if not found:
        return [name, f"{deadline_s * 1000:.0f}", 0, None, None, None, "nothing was refused"]
    ratios = sorted(said / true for said, true in found)
    said, true = (sum(pair[side] for pair in found) / len(found) * 1000 for side in (0, 1))
    good = sum(0.5 <= ratio <= 2.0 for ratio in ratios)
    middle = ratios[len(ratios) // 2]
    return [
        name, f"{deadline_s * 1000:.0f}", len(found), said, true,
        f"{middle:.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})", f"{good} of {len(found)}",
    ]  # fmt: skip
