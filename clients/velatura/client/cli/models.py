"""`velatura models`: what the server can do, as tables or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from velatura.client.cli.connection import (
    DEFAULT_SERVER,
    ApiKey,
    CaFile,
    Connection,
    Server,
    Timeout,
    UseTls,
    one_line_errors,
)
from velatura.client.errors import FailedPrecondition, InvalidArgument, NotFound
from velatura.client.results import Catalog, DirectionInfo, Figure, RegionClass, StyleInfo
from velatura.client.sync_client import Client


def models(
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False,
    server: Server = DEFAULT_SERVER,
    timeout: Timeout = 30.0,
    api_key: ApiKey = None,
    tls: UseTls = False,
    ca: CaFile = None,
) -> None:
    """List the server's networks, directions, styles and region classes."""
    with one_line_errors(), Connection(server, timeout, api_key, tls, ca).open() as client:
        catalog = client.list_models()
        directions = {g.name: _directions(client, g.name) for g in catalog.generators}
        styles = client.list_styles()
        classes = _classes(client)
    if as_json:
        whole = {
            **asdict(catalog),
            "directions": {name: [asdict(d) for d in found] for name, found in directions.items()},
            "styles": [asdict(s) for s in styles],
            "region_classes": [asdict(c) for c in classes],
        }
        print(json.dumps(whole, indent=2))
        return
    console = Console()
    if not console.is_terminal:
        console.width = 160  # wide enough for every column where nobody's window limits it
    console.print(_networks(catalog))
    for generator, found in directions.items():
        if found:
            console.print(_direction_table(generator, found))
    if styles:
        console.print(_style_table(styles))
    if classes:
        names = ", ".join(c.name for c in sorted(classes, key=lambda c: c.index))
        console.print(f"[bold]Region classes[/]: {names}")
    for model in catalog.models:
        if model.role == "class_generator":
            console.print(f"[bold]Classes of {model.name}[/]: {', '.join(model.labels)}")


def _directions(client: Client, generator: str) -> tuple[DirectionInfo, ...]:
    try:
        return client.list_directions(generator)
    except (NotFound, InvalidArgument, FailedPrecondition):
        return ()  # a generator without directions


def _classes(client: Client) -> tuple[RegionClass, ...]:
    try:
        return client.list_region_classes()
    except (NotFound, InvalidArgument, FailedPrecondition):
        return ()  # a bundle without a segmenter


def _networks(catalog: Catalog) -> Table:
    table = Table(
        title=f"{catalog.bundle_name} {catalog.bundle_version} "
        f"(server {catalog.server_version}, manifest {catalog.manifest_sha256[:12]})",
        title_justify="left",
    )
    for column in ("network", "version", "role", "state", "runs on", "parameters", "licence"):
        table.add_column(column, justify="right" if column == "parameters" else "left")
    table.add_column("measured", overflow="fold")
    for m in sorted(catalog.models, key=lambda m: m.name):
        table.add_row(
            m.name,
            m.version,
            m.role.replace("_", " "),
            "[green]ready[/]" if m.ready else "[red]not ready[/]",
            m.provider.removesuffix("ExecutionProvider"),
            f"{m.parameters:,}" if m.parameters else "",
            m.license,
            ", ".join(map(_figure, m.figures)),
        )
    return table


def _direction_table(generator: str, found: Sequence[DirectionInfo]) -> Table:
    table = Table(title=f"Directions of {generator}", title_justify="left")
    for column in ("direction", "strength", "layers", "meant for", "what it does"):
        table.add_column(column)
    for d in found:
        table.add_row(
            d.name,
            f"{d.min_strength:g} … {d.max_strength:g}",
            f"{d.layers[0]}:{d.layers[1]}",
            ", ".join(d.regions),
            d.description,
        )
    return table


def _style_table(styles: Sequence[StyleInfo]) -> Table:
    table = Table(title="Styles", title_justify="left")
    for column in ("style", "what it looks like", "network"):
        table.add_column(column)
    for s in styles:
        table.add_row(s.name, s.description, s.model)
    return table


def _figure(figure: Figure) -> str:
    return f"{figure.name} {figure.value:.4g}{' ' + figure.unit if figure.unit else ''}"
