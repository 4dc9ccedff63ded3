"""`velatura-export inspect` and `velatura-export compare`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from velatura.export.errors import ExportError

if TYPE_CHECKING:
    from velatura.export.comparison import Pair
    from velatura.export.inspection import Inspection

_MEGA = 1e6


def inspect(
    target: Annotated[Path, typer.Argument(help="A bundle, or an ONNX file.")] = Path("models"),
    batch: Annotated[
        list[int] | None, typer.Option(help="Batches to state memory for.", min=1)
    ] = None,
    size: Annotated[int, typer.Option(help="Height and width where they are free.", min=1)] = 256,
    as_json: Annotated[bool, typer.Option("--json", help="All of it as JSON.")] = False,
) -> None:
    """Show what networks take, give and need: tensors, operators, operations, memory by batch."""
    from velatura.export.bundle import read_manifest
    from velatura.export.inspection import BATCHES, inspect_graph

    console, found = Console(), {}
    batches = tuple(batch or BATCHES)
    try:
        files = {target.stem: target}
        if not target.is_file():
            files = {model.name: target / model.file for model in read_manifest(target).models}
        for name, path in files.items():
            found[name] = inspect_graph(path, batches, (size, size))
    except ExportError as error:
        _fail(console, error)
    if as_json:
        # Not through rich, which would fold long lines.
        typer.echo(json.dumps({name: _fields(seen) for name, seen in found.items()}, indent=2))
        return
    for name, seen in found.items():
        _show(console, name, seen)


def compare(
    first: Annotated[Path, typer.Argument(help="A bundle, or an ONNX file.")],
    second: Annotated[Path, typer.Argument(help="Another of the same kind.")],
    threads: Annotated[int, typer.Option(help="To run with.", min=1)] = 1,
    seconds: Annotated[float, typer.Option(help="To time each network for.", min=0)] = 0.5,
) -> None:
    """Compare networks on the same random inputs: tensors, results, speed and size."""
    from velatura.export.comparison import compare as compare_graphs

    console = Console()
    try:
        pairs = compare_graphs(first, second, threads=threads, seconds=seconds)
    except ExportError as error:
        _fail(console, error)
    table = Table(title=f"{second} beside {first}")
    table.add_column("network", no_wrap=True)
    table.add_column("largest difference", overflow="fold")
    for column in ("speed", "MB"):
        table.add_column(column, justify="right", no_wrap=True)
    for pair in pairs:
        table.add_row(pair.name, *_cells(pair))
    console.print(table)


def _cells(pair: Pair) -> tuple[str, str, str]:
    size = " → ".join(f"{count / _MEGA:.2f}" for count in pair.bytes)
    if pair.problem:
        return pair.problem, "", size if all(pair.bytes) else ""
    said = [f"{d.output}: {d.largest:.2g} ({d.relative:.1g} of it)" for d in pair.differences]
    return "none" if pair.same else "\n".join(said), f"{pair.faster:.2f} ×", size


def _show(console: Console, name: str, seen: Inspection) -> None:
    at = f" at {seen.size[0]} × {seen.size[1]} px" if seen.size else ""
    console.print(f"[bold]{name}[/]", highlight=False)
    for kind, tensors in (("in", seen.inputs), ("out", seen.outputs)):
        for tensor in tensors:
            extents = " × ".join("any" if extent == -1 else str(extent) for extent in tensor.shape)
            _line(console, kind, f"{tensor.name}: {tensor.dtype} {extents}")
    _line(console, "cost", f"{seen.flops / 1e9:.3f} GFLOP an item{at}, {seen.parameters:,} numbers")
    memory = (
        f"{batch}: {seen.memory_bytes(batch) / _MEGA:.1f} MB" for batch in seen.activation_bytes
    )
    weights = f"{seen.weight_bytes / _MEGA:.1f} MB"
    _line(console, "memory", f"weights {weights}; with them, by batch: {', '.join(memory)}")
    operators = ", ".join(f"{count} {kind}" for kind, count in seen.operators.items())
    _line(
        console, "graph", f"opset {seen.opset}, {sum(seen.operators.values())} nodes: {operators}"
    )


def _line(console: Console, label: str, text: str) -> None:
    console.print(f"{label:>8}  {text}", soft_wrap=True, highlight=False)


def _fields(seen: Inspection) -> dict[str, object]:
    memory = {str(batch): seen.memory_bytes(batch) for batch in seen.activation_bytes}
    return {**asdict(seen), "memory_bytes": memory}


def _fail(console: Console, error: ExportError) -> None:
    console.print(f"[red]error:[/] {error}", soft_wrap=True, highlight=False)
    raise typer.Exit(2) from error
