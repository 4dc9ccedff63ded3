"""Learning rates over a run: a short warm-up, then a cosine to a fraction of the start."""

from __future__ import annotations

import math


def decayed_rate(progress: float, step: int, final: float, warm_up: int = 50) -> float:
    """Factor on the base rate, at `progress` 0..1 of the run; `final` is its value at the end."""
    warm = min(1.0, (step + 1) / warm_up)
    return warm * (final + (1 - final) * (0.5 + 0.5 * math.cos(math.pi * progress)))
