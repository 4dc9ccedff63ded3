"""The command line's root: which commands there are."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from velatura.client.cli.edit import edit
from velatura.client.cli.encode import encode
from velatura.client.cli.generate import generate
from velatura.client.cli.models import models
from velatura.client.cli.segment import segment
from velatura.client.cli.stylize import stylize

app = typer.Typer(
    name="velatura",
    help="Edit faces, stylise photographs and find regions through a Velatura server.",
    no_args_is_help=True,
    add_completion=False,
    # Errors stay plain lines that scripts can read, instead of boxes.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

for command in (edit, stylize, segment, encode, generate, models):
    app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"velatura {version('velatura-client')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    """Edit faces, stylise photographs and find regions through a Velatura server."""
