"""`velatura-export graph`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from velatura.export.errors import ExportError
from velatura.export.formats import Fusion, Noise, Provider


def graph(
    generator: Annotated[Path, typer.Argument(help="Any generator that `bundle` takes.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="NAME.onnx to write.")],
    fuse: Annotated[
        Fusion, typer.Option(help="What runs before the synthesis, in the same graph.")
    ] = Fusion.NONE,
    encoder: Annotated[Path | None, typer.Option(help="Any encoder that `bundle` takes.")] = None,
    iterations: Annotated[int, typer.Option(help="Passes of a ReStyle encoder.")] = 5,
    noise: Annotated[
        Noise, typer.Option(help="As stored, or an input `noise` [N, numbers].")
    ] = Noise.CONSTANT,
    uint8: Annotated[
        bool, typer.Option("--uint8", help="Images as pixels: uint8 [N, height, width, 3].")
    ] = False,
    provider: Annotated[Provider, typer.Option(help="What is to run the graph.")] = Provider.CPU,
) -> None:
    """Write one ONNX file for a program of your own, checked, with NAME.json and NAME.md."""
    from velatura.export.graph_file import GraphOptions, write_graph

    console = Console()
    try:
        options = GraphOptions(fuse, encoder, noise, uint8, iterations, provider)
        entry = write_graph(generator, out, options)
    except ExportError as error:
        console.print(f"[red]error:[/] {error}", soft_wrap=True, highlight=False)
        raise typer.Exit(2) from error
    for kind, tensors in (("in", entry.inputs), ("out", entry.outputs)):
        for tensor in tensors:
            extents = " × ".join("any" if extent == -1 else str(extent) for extent in tensor.shape)
            console.print(f"{kind:>3}  {tensor.name}: {tensor.dtype} {extents}", soft_wrap=True)
    worst = max(check.max_abs_error for check in entry.verifications)
    console.print(f"{out}: largest difference from torch {worst:.1e}", soft_wrap=True)
