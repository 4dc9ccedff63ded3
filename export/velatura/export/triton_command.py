"""`velatura-export triton`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from velatura.export.errors import ExportError


def triton(
    folder: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
) -> None:
    """Write a bundle's networks as a model repository of NVIDIA's Triton server."""
    from velatura.export.triton_layout import write_triton

    console = Console()
    try:
        names = write_triton(folder, out)
    except ExportError as error:
        console.print(f"[red]error:[/] {error}", soft_wrap=True, highlight=False)
        raise typer.Exit(2) from error
    console.print(f"{out}: {', '.join(names)}", soft_wrap=True)
