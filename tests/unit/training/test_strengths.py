"""The useful range of a direction, from what a sweep measures."""

from __future__ import annotations

import pytest

from velatura.training.directions.strengths import best_gain, useful_range


class Sweep:
    """Success grows to 1 at `peak` and falls beyond; preservation falls by `cost` a strength."""

    def __init__(self, peak: float = 9.0, cost: float = 0.0) -> None:
        self.peak, self.cost = peak, cost
        self.asked: list[float] = []

    def __call__(self, strength: float) -> tuple[float, float]:
        self.asked.append(strength)
        success = 1 - abs(strength - self.peak) / 10
        return success, 1 - self.cost * abs(strength)


def test_it_reaches_as_far_as_success_grows() -> None:
    assert useful_range(Sweep(peak=2.0), floor=0.9) == (-2.0, 2.0)


def test_it_ends_where_preservation_is_lost() -> None:
    assert useful_range(Sweep(cost=0.06), floor=0.9) == (-1.5, 1.5)


def test_it_ends_at_its_limits() -> None:
    assert useful_range(Sweep(), floor=0.9) == (-2.0, 3.0)
    assert useful_range(Sweep(), floor=0.9, limits=(-0.7, 1.3), step=0.25) == (-0.5, 1.25)


def test_a_plateau_belongs_to_it_and_a_slow_fall_does_not() -> None:
    values = {1.0: 0.9, 1.5: 0.89, 2.0: 0.88, 2.5: 0.86, 3.0: 0.9}
    assert useful_range(lambda s: (values.get(s, 0.0), 1.0), floor=0.9)[1] == 2.0


def test_the_default_and_zero_belong_to_it_whatever_is_measured() -> None:
    assert useful_range(lambda _: (0.0, 0.0), floor=0.9) == (0.0, 1.0)
    assert useful_range(lambda _: (0.0, 0.0), floor=0.9, default=1.5) == (0.0, 1.5)


def test_no_strength_is_measured_twice_and_none_after_the_end() -> None:
    sweep = Sweep(cost=0.06)
    useful_range(sweep, floor=0.9)
    assert sweep.asked == [1.0, 1.5, 2.0, -0.5, -1.0, -1.5, -2.0]
    assert len(set(sweep.asked)) == len(sweep.asked)


@pytest.mark.parametrize("step", [0.1, 0.3])
def test_steps_add_up_without_drift(step: float) -> None:
    low, high = useful_range(Sweep(), floor=0.0, step=step)
    assert low == pytest.approx(-step * int(2 / step + 1e-9), abs=1e-12)
    assert high == pytest.approx(1 + step * int(2 / step + 1e-9), abs=1e-12)


def test_the_least_gain_that_is_enough_is_chosen() -> None:
    tried: list[float] = []

    def measure(gain: float) -> tuple[float, float]:
        tried.append(gain)
        return min(1.0, gain), 1.0

    assert best_gain(measure, floor=0.9, wanted=0.95, gains=(0.5, 0.96, 1.5)) == 0.96
    assert tried == [0.5, 0.96]


def test_no_gain_is_chosen_for_success_that_costs_the_rest() -> None:
    rows = {0.5: (0.3, 0.99), 1.0: (0.6, 0.95), 1.5: (0.99, 0.5)}
    assert best_gain(rows.__getitem__, floor=0.9, gains=(0.5, 1.0, 1.5)) == 1.0
    assert best_gain(lambda _: (0.9, 0.1), floor=0.9, gains=(0.5, 1.0)) == 0.5


def test_of_gains_that_are_not_enough_the_most_successful_is_chosen() -> None:
    rows = {0.5: (0.3, 1.0), 1.0: (0.6, 1.0), 1.5: (0.4, 1.0)}
    assert best_gain(rows.__getitem__, floor=0.9, gains=(0.5, 1.0, 1.5)) == 1.0
