"""How far a direction can be pushed before it stops doing what its name says."""

from __future__ import annotations

from collections.abc import Callable

Measure = Callable[[float], tuple[float, float]]
"""Strength → success and preservation, each 0 to 1 (success may fall below, when it backfires)."""

GAINS = (0.7, 0.85, 1.0, 1.25, 1.5, 2.0, 2.6)
STEP = 0.5
LIMITS = (-2.0, 3.0)


def useful_range(
    measure: Measure,
    *,
    floor: float,
    default: float = 1.0,
    step: float = STEP,
    limits: tuple[float, float] = LIMITS,
    slack: float = 0.03,
) -> tuple[float, float]:
    """Least and greatest strength, found by a sweep in both directions; both lie within `limits`.

    Upwards from `default`, as long as success does not fall `slack` below the best so far and
    preservation stays at `floor` or above. Downwards from 0 only preservation counts: there the
    attribute is taken away, which is a use of its own. `default` itself always belongs to the
    range, and so does 0. Every strength is measured once.
    """
    best, _ = measure(default)
    greatest = default
    for strength in _steps(default, limits[1], step):
        success, preservation = measure(strength)
        if preservation < floor or success < best - slack:
            break
        best, greatest = max(best, success), strength
    least = 0.0
    for strength in _steps(0.0, limits[0], -step):
        _, preservation = measure(strength)
        if preservation < floor:
            break
        least = strength
    return least, greatest


def best_gain(
    measure: Measure,
    *,
    floor: float,
    wanted: float = 0.95,
    gains: tuple[float, ...] = GAINS,
) -> float:
    """By how much to multiply a direction so that it does at strength 1 what its name says.

    The first of `gains`, which rise, whose success is at least `wanted`; where none is, the one of
    greatest success. Once preservation falls under `floor` no greater gain is tried. Where already
    the first one does, it is the answer.
    """
    best, best_success = gains[0], -1.0
    for gain in gains:
        success, preservation = measure(gain)
        if preservation < floor:
            break
        if success >= wanted:
            return gain
        if success > best_success:
            best, best_success = gain, success
    return best


def _steps(start: float, end: float, step: float) -> list[float]:
    """Multiples of `step` beyond `start`, up to `end`; a remainder of a step is left out."""
    count = int((end - start) / step + 1e-9)
    return [round(start + step * (i + 1), 6) for i in range(count)]
