"""The factor that estimates are stretched by: found from what requests take, without a history."""

from __future__ import annotations

import math
import random

from velatura.server.engine.lateness import FIRST, LEAST, MISSED, MOST, SHORT_S, Lateness


def settled(spread: float, middle: float, seed: int = 0) -> tuple[Lateness, float]:
    """After many requests that take `middle` times what was expected, give or take `spread`; and
    the share of the last ones that took longer than the factor allows.
    """
    lateness, rng, over = Lateness(), random.Random(seed), 0
    for n in range(40_000):
        ratio = rng.gauss(middle, spread)
        over += n >= 20_000 and ratio > lateness.factor
        lateness.observe(0.4, 0.4 * ratio)
    return lateness, over / 20_000


def test_all_but_a_few_stay_below() -> None:
    lateness, over = settled(0.1, 1.1)
    assert 0.5 * MISSED < over < 2 * MISSED
    assert 1.25 < lateness.factor < 1.4  # two standard deviations above the middle


def test_it_stays_within_bounds() -> None:
    assert settled(0.01, 0.8)[0].factor == LEAST
    assert settled(0.01, 9.0)[0].factor == MOST


def test_one_stall_does_not_shut_the_door() -> None:
    """Forty requests that wait together are all late when the machine stands still."""
    lateness = Lateness()
    for _ in range(40):
        lateness.observe(0.4, 0.9)
    assert FIRST < lateness.factor < 1.5 * FIRST


def test_the_cut_off_count_and_the_short_do_not() -> None:
    lateness = Lateness()
    lateness.observe(0.4, math.inf)
    once = lateness.factor
    assert once > FIRST
    lateness.observe(0.9 * SHORT_S, math.inf)
    assert lateness.factor == once
