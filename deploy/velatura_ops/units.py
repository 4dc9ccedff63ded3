"""Values as Grafana writes them: a few significant digits and the unit."""

from __future__ import annotations

import math

SI = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
BINARY = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1.0, "B"))
TIMES = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def written(value: float, unit: str) -> str:
    """`value` in one of the dashboards' units, such as "12.3 ms". Raises KeyError for another."""
    if math.isnan(value):
        return "–"
    if unit == "percentunit":
        return f"{_digits(value * 100)} %"
    suffix, scale = {
        "s": ("", TIMES),
        "bytes": ("", BINARY),
        "Bps": ("B/s", SI),
        "reqps": ("/s", SI),
        "short": ("", SI),
    }[unit]
    if value == 0:
        return {"s": "0 s", "reqps": "0 /s"}.get(unit, "0")
    # The largest that fits, else the smallest.
    factor, name = next((pair for pair in scale if abs(value) >= pair[0]), scale[-1])
    number = _digits(value / factor)
    return f"{number} {name}{suffix}" if name + suffix else number


def _digits(value: float) -> str:
    """Three significant digits, no trailing zeros behind the point."""
    size = abs(value)
    places = 0 if size >= 100 else 1 if size >= 10 else 2
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
