"""`velatura generate`: samples of the generator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from velatura.client.cli import arguments, files
from velatura.client.cli import options as opt
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
from velatura.client.images import Format, format_of_suffix


def generate(
    out: opt.Out,
    seed: Annotated[
        list[str], typer.Option(metavar="N|N,N|N..M", help="Seeds; 1..8 is eight of them.")
    ],
    psi: Annotated[
        float, typer.Option(min=0, max=2, help="Truncation: 0 typical, 1 full variety.")
    ] = 0.7,
    edit: opt.Edits = [],  # noqa: B006  typer copies defaults
    offset: opt.Offsets = [],  # noqa: B006
    layers: opt.LayerSpan = None,
    mix_seed: Annotated[int | None, typer.Option(min=0, help="Seed of a second latent.")] = None,
    mix_layers: Annotated[
        str, typer.Option(metavar="A:B", help="Layers that the second latent gives.")
    ] = "4:8",
    class_name: Annotated[
        str, typer.Option("--class", help="Class, for class-conditional generators.")
    ] = "",
    generator: Annotated[str, typer.Option(help="Generator; the server's default if empty.")] = "",
    format: opt.OutFormat = None,
    quality: opt.Quality = None,
    server: Server = DEFAULT_SERVER,
    timeout: Timeout = 120.0,
    api_key: ApiKey = None,
    tls: UseTls = False,
    ca: CaFile = None,
) -> None:
    """Sample the generator: one picture for each seed, seed-0001.png and so on."""
    with one_line_errors():
        wanted = arguments.seeds(seed)
        steps = arguments.edits(edit, offset, [], layers)
        span = arguments.parse_layers(mix_layers, "--mix-layers") if mix_seed is not None else None
        kind, single = _target(out, len(wanted), format)
        with Connection(server, timeout, api_key, tls, ca).open() as client:
            samples = client.generate(
                wanted,
                truncation_psi=psi,
                edits=steps,
                mix_seed=mix_seed,
                mix_layers=span,
                class_name=class_name,
                generator=generator,
                output=kind,
                quality=quality,
            )
            errors = Console(stderr=True)
            quiet = len(wanted) < 2 or not errors.is_terminal
            for sample in track(
                samples, "generated", len(wanted), console=errors, transient=True, disable=quiet
            ):
                target = single or Path(out) / files.seed_name(sample.seed, kind)
                files.write(target, sample.picture.data)
    print(single or f"{len(wanted)} pictures in {out}")


def _target(out: str, count: int, format: Format | None) -> tuple[Format, Path | None]:
    """The format, and the file for a single seed (None: a folder)."""
    if files.is_folder(out):
        return format or "png", None
    if count > 1:
        raise arguments.BadArgument("--out", f"{out} is a file; {count} pictures need a folder")
    named = format_of_suffix(Path(out))
    if named is None or (format is not None and format != named):
        wanted = format or "png, .jpg or .webp"
        raise arguments.BadArgument("--out", f"{out} does not end in .{wanted}")
    return named, Path(out)
