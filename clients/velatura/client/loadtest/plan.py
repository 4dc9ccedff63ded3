"""What a load test is to do: one value that says everything, and readers of its written forms."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Arrivals = Literal["poisson", "even"]

MOST_WEIGHT = 1000


class Kind(enum.StrEnum):
    """What a caller may do; each is one call, except the slider, which is a session of many."""

    EDIT = "edit"
    STYLIZE = "stylize"
    SEGMENT = "segment"
    SLIDER = "slider"


DEFAULT_MIX: Mapping[Kind, int] = {
    Kind.EDIT: 4,
    Kind.STYLIZE: 1,
    Kind.SEGMENT: 2,
    Kind.SLIDER: 3,
}


@dataclass(frozen=True)
class Plan:
    """A load test. Times are in seconds, sizes in pixels."""

    target: str = "127.0.0.1:8500"
    api_key: str | None = None
    tls: bool = False
    ca: Path | None = None
    connections: int = 4  # TCP connections that the callers share
    timeout_s: float = 10.0  # deadline of each call
    wait_s: float = 60.0  # how long the server may take to become ready
    users: int = 8  # closed loop: callers, each with one call in flight
    rate: float | None = None  # open loop: arrivals a second, whatever happens to those before
    arrivals: Arrivals = "poisson"
    max_in_flight: int = 1000  # open loop: arrivals beyond it count as failed
    think_s: float = 0.0  # closed loop: pause between a caller's actions
    slider_steps: int = 8
    slider_think_s: float = 0.15
    mix: Mapping[Kind, int] = field(default_factory=lambda: dict(DEFAULT_MIX))
    sizes: tuple[int, int] = (128, 1024)  # of the pictures' longer sides
    images: Path | None = None  # folder of pictures; the server's own samples when None
    pool: int = 24  # pictures that are prepared
    distinct: bool = False  # no picture is sent twice
    seed: int = 0
    duration_s: float = 60.0
    warmup_s: float = 3.0  # before the clock starts; measured, then forgotten

    @property
    def load(self) -> str:
        """The load in words."""
        if self.rate is not None:
            spacing = "Poisson" if self.arrivals == "poisson" else "even"
            return f"{self.rate:g} arrivals/s ({spacing}), open loop"
        pause = f", {self.think_s:g} s between actions" if self.think_s else ""
        return f"{self.users} callers, closed loop{pause}"

    @property
    def mix_text(self) -> str:
        """The mix as it is written on the command line."""
        return ",".join(f"{kind}={weight}" for kind, weight in self.mix.items())


def parse_mix(text: str) -> dict[Kind, int]:
    """`edit=4,stylize=1` → weights; kinds that are left out or 0 are not done.

    Raises:
        ValueError: saying what is wrong and how it is written.
    """
    known = ", ".join(Kind)
    mix: dict[Kind, int] = {}
    for part in text.split(","):
        name, _, weight = (piece.strip() for piece in part.partition("="))
        if name not in set(Kind):
            raise ValueError(f"{name!r} is no kind of call; there are {known}")
        if not weight.isdecimal() or int(weight) > MOST_WEIGHT:
            raise ValueError(
                f"{part.strip()!r}: write KIND=WEIGHT, such as edit=4; weights are whole numbers "
                f"from 0 to {MOST_WEIGHT}"
            )
        if Kind(name) in mix:
            raise ValueError(f"{name!r} is there twice; give each kind one weight")
        mix[Kind(name)] = int(weight)
    done = {kind: weight for kind, weight in mix.items() if weight}
    if not done:
        raise ValueError("every weight is 0; give at least one kind a weight, such as edit=1")
    return done


def parse_sizes(text: str) -> tuple[int, int]:
    """`128-1024` or `512` → least and greatest longer side in pixels, 16 to 16384.

    Raises:
        ValueError: saying what is wrong and how it is written.
    """
    least, dash, greatest = (piece.strip() for piece in text.partition("-"))
    if not least.isdecimal() or (dash and not greatest.isdecimal()):
        raise ValueError(f"{text!r}: write LEAST-GREATEST in pixels, such as 128-1024")
    sizes = (int(least), int(greatest or least))
    if not 16 <= sizes[0] <= sizes[1] <= 16384:
        raise ValueError(f"{text!r}: sides are 16 to 16384 pixels, the smaller one first")
    return sizes
