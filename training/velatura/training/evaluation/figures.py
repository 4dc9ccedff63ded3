"""One measured figure, in the form that the bundle's manifest holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from velatura.training.avatars.compose import HELD_OUT_SEED


@dataclass(frozen=True)
class Measured:
    """One figure, as the manifest holds it."""

    name: str
    value: float
    unit: str
    measured_on: str

    def rounded(self) -> dict[str, str | float]:
        """The figure as JSON, to four digits after the point."""
        return {**asdict(self), "value": round(self.value, 4)}


def held_out_seeds(count: int, skip: int = 0) -> range:
    """`count` seeds that training never draws, after the first `skip` of them."""
    return range(HELD_OUT_SEED + skip, HELD_OUT_SEED + skip + count)
