"""What every section is given: how long to measure, which bundle, and onnxruntime alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.onnxruntime_alone import Alone


@dataclass(frozen=True)
class Bench:
    """Settings of a run. `seconds` is a turn's length, and `rounds` how often each turn is taken;
    `server` are further flags of our server."""

    bundle: Path
    seconds: float
    rounds: int
    overload_s: float
    server: tuple[str, ...] = ()
    alone: Alone = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "alone", Alone(self.bundle))

    @property
    def probe_s(self) -> float:
        """Time for each try where something is only found out, such as the best batch size."""
        return min(0.5, self.seconds / 4)
