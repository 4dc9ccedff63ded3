"""The gate: limits that a load test must keep, and the verdict on what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from velatura.client.loadtest.ledger import ALL, Figures

Quantity = Literal["error ratio", "p50", "p95", "p99", "rate"]


@dataclass(frozen=True)
class Limit:
    """One figure of one name (of all calls together: `ALL`) and what it must keep to."""

    quantity: Quantity
    value: float  # a share, milliseconds, or calls a second
    name: str = ALL


@dataclass(frozen=True)
class Verdict:
    """A limit, whether it was kept, and the sentence that says so."""

    limit: Limit
    passed: bool
    text: str


def parse_limit(quantity: Quantity, text: str) -> Limit:
    """`1500`, or `NAME=1500` for one kind of call, such as `Stylize=3000`.

    Raises:
        ValueError: saying what is wrong and how it is written.
    """
    name, _, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{text!r}: write a number, or NAME=NUMBER for one kind of call")
    if quantity == "error ratio" and value > 1:
        raise ValueError(f"{text!r}: an error ratio is 0 to 1; 0.01 lets one call in 100 fail")
    return Limit(quantity, value, name.strip() or ALL)


def judge(figures: Mapping[str, Figures], limits: Iterable[Limit]) -> list[Verdict]:
    """The verdict on each limit. What was never measured breaks its limit: a load test that did
    nothing proves nothing."""
    return [_verdict(figures.get(limit.name), limit, sorted(figures)) for limit in limits]


def _verdict(measured: Figures | None, limit: Limit, known: list[str]) -> Verdict:
    which = "" if limit.name == ALL else f" of {limit.name}"
    if measured is None or not measured.calls:
        there = ", ".join(name for name in known if name != ALL) or "none"
        text = f"{limit.quantity}{which}: no call ended; calls that did: {there}"
        return Verdict(limit, False, text)
    if limit.quantity == "error ratio":
        passed = measured.error_ratio <= limit.value
        is_, bound = f"{measured.error_ratio:.2%}", f"at most {limit.value:.2%}"
    elif limit.quantity == "rate":
        passed = measured.rate >= limit.value
        is_, bound = f"{measured.rate:.2f}/s", f"at least {limit.value:g}/s"
    else:
        value = measured.quantile_ms(limit.quantity)
        passed = value is not None and value <= limit.value
        is_ = "unknown, since every call failed" if value is None else f"{value:.0f} ms"
        bound = f"at most {limit.value:g} ms"
    return Verdict(limit, passed, f"{limit.quantity}{which} is {is_}, allowed is {bound}")
