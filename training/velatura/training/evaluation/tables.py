"""The figures on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from velatura.training.evaluation.directions import is_measured
from velatura.training.evaluation.document import Evaluation, gates


def print_tables(found: Evaluation) -> None:
    """What was wanted, every network's figures, and the directions."""
    console = Console()
    table = Table("figure", "wanted", "measured", "reached", title="wanted and measured")
    for gate in gates(found):
        table.add_row(gate.what, gate.wanted, gate.measured, "yes" if gate.reached else "no")
    console.print(table)
    groups = {
        "inversion": [*found.inversion, *found.consistency],
        **found.segmenters,
        "samples": [*found.samples, *found.paths],
        **found.classes,
    }
    for title, figures in groups.items():
        table = Table("figure", "value", "measured on", title=title)
        for f in figures:
            table.add_row(f.name, f"{f.value:.4g} {f.unit}".strip(), f.measured_on)
        console.print(table)
    table = Table("direction", "effect", "preservation", title="directions")
    for entry in found.directions.directions:
        if is_measured(entry):
            effect, kept = entry.figures[0], entry.figures[1]
            table.add_row(entry.name, f"{effect.name} {effect.value:.2f}", f"{kept.value:.3f}")
    console.print(table)
