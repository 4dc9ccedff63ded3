"""The cost model finds a line through noisy runs, follows changes and shrugs off stalls."""

from __future__ import annotations

import random

import pytest

from velatura.server.engine.cost import CostModel


def test_nothing_learned_costs_nothing() -> None:
    assert CostModel().estimate(8.0) == 0.0


def test_one_run_is_taken_as_proportional() -> None:
    cost = CostModel()
    cost.observe(2.0, 0.5)
    assert (cost.a, cost.b) == (0.25, 0.0)


def test_line_through_noise() -> None:
    rng, cost = random.Random(1), CostModel()
    for _ in range(300):
        work = float(rng.randint(1, 8))
        cost.observe(work, (0.010 * work + 0.005) * rng.uniform(0.95, 1.05))
    assert cost.a == pytest.approx(0.010, rel=0.1)
    assert cost.b == pytest.approx(0.005, rel=0.3)
    assert cost.estimate(16.0, runs=2) == pytest.approx(0.17, rel=0.1)


def test_equal_sizes_keep_the_slope() -> None:
    cost = CostModel()
    for work in (1.0, 8.0):
        cost.observe(work, 0.01 * work + 0.02)
    for _ in range(500):
        cost.observe(1.0, 0.03)
    assert cost.estimate(1.0) == pytest.approx(0.03, rel=0.05)
    assert cost.a == pytest.approx(0.01, rel=0.3)


def test_one_stall_is_no_lesson() -> None:
    cost = CostModel()
    for _ in range(100):
        cost.observe(1.0, 0.01)
    cost.observe(1.0, 30.0)
    assert cost.estimate(1.0) < 0.014


def test_true_slowdown_is_learned() -> None:
    cost = CostModel()
    for _ in range(100):
        cost.observe(1.0, 0.01)
    for _ in range(100):
        cost.observe(1.0, 0.5)
    assert cost.estimate(1.0) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("times", [(0.5, 0.1), (0.1, 0.9)])
def test_coefficients_are_never_negative(times: tuple[float, float]) -> None:
    cost = CostModel()
    for _ in range(20):
        cost.observe(1.0, times[0])
        cost.observe(8.0, times[1])
    assert cost.a >= 0.0
    assert cost.b >= 0.0
