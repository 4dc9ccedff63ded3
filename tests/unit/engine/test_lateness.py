"""The factor that estimates are stretched by: found from what requests take, without a history."""

from __future__ import annotations

import math
import random

import pytest

from velatura.server.engine.lateness import (
    FADING_S,
    FIRST,
    LEAST,
    MISSED,
    MOST,
    SHORT_S,
    Lateness,
)

NOW = 1000.0


def settled(spread: float, middle: float, seed: int = 0) -> tuple[Lateness, float]:
    """After many requests that take `middle` times what was expected, give or take `spread`; and
    the share of the last ones that took longer than the factor allows.
    """
    lateness, rng, over = Lateness(), random.Random(seed), 0
    for n in range(40_000):
        ratio = rng.gauss(middle, spread)
        over += n >= 20_000 and ratio > lateness.factor(NOW)
        lateness.observe(0.4, 0.4 * ratio, NOW)
    return lateness, over / 20_000


def test_all_but_a_few_stay_below() -> None:
    lateness, over = settled(0.1, 1.1)
    assert 0.5 * MISSED < over < 2 * MISSED
    assert 1.25 < lateness.factor(NOW) < 1.4  # two standard deviations above the middle


def test_it_stays_within_bounds() -> None:
    assert settled(0.01, 0.8)[0].factor(NOW) == LEAST
    assert settled(0.01, 9.0)[0].factor(NOW) == MOST


def test_one_stall_does_not_shut_the_door() -> None:
    """Forty requests that wait together are all late when the machine stands still."""
    lateness = Lateness()
    for _ in range(40):
        lateness.observe(0.4, 0.9, NOW)
    assert FIRST < lateness.factor(NOW) < 1.5 * FIRST


def test_the_cut_off_count_and_the_short_do_not() -> None:
    lateness = Lateness()
    lateness.observe(0.4, math.inf, NOW)
    once = lateness.factor(NOW)
    assert once > FIRST
    lateness.observe(0.9 * SHORT_S, math.inf, NOW)
    assert lateness.factor(NOW) == once


def test_a_slow_phase_is_forgotten_though_nobody_asks() -> None:
    lateness, _ = settled(0.01, 9.0)
    assert lateness.factor(NOW) == MOST
    assert lateness.factor(NOW + FADING_S) == pytest.approx(FIRST + (MOST - FIRST) / math.e)
    assert lateness.factor(NOW + 10 * FADING_S) == pytest.approx(FIRST, abs=1e-3)
    fast, _ = settled(0.01, 0.8)
    assert fast.factor(NOW + 10 * FADING_S) == LEAST
