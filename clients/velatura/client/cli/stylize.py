"""`velatura stylize`: paint pictures in other styles, inside a region."""

from __future__ import annotations

from typing import Annotated

import typer

from velatura.client.cli import arguments, batch, files
from velatura.client.cli import options as opt
from velatura.client.cli.connection import (
    DEFAULT_SERVER,
    ApiKey,
    CaFile,
    Connection,
    Server,
    Timeout,
    UseTls,
    finish,
    one_line_errors,
)
from velatura.client.cli.edit import describe_change


def stylize(
    inputs: opt.Inputs,
    out: opt.Out,
    style: Annotated[
        list[str],
        typer.Option(metavar="NAME|FILE[:WEIGHT]", help="Preset or picture; repeat to mix."),
    ],
    strength: Annotated[float, typer.Option(min=0, max=1, help="0 (content) to 1 (style).")] = 1.0,
    preserve_color: Annotated[
        bool, typer.Option("--preserve-color", help="Keep the picture's colours.")
    ] = False,
    region: opt.Classes = None,
    mask: opt.Masks = [],  # noqa: B006  typer copies defaults
    box: opt.Boxes = [],  # noqa: B006
    grow: opt.Grow = 0,
    feather: opt.Feather = 0,
    invert: opt.Invert = False,
    format: opt.OutFormat = None,
    quality: opt.Quality = None,
    overwrite: opt.Overwrite = False,
    jobs: opt.Jobs = 2,
    server: Server = DEFAULT_SERVER,
    timeout: Timeout = 300.0,
    api_key: ApiKey = None,
    tls: UseTls = False,
    ca: CaFile = None,
) -> None:
    """Paint pictures in one style or a mix of several, by presets or by example."""
    with one_line_errors():
        mix = arguments.styles(style)
        where = arguments.region(region, mask, box, grow, feather, invert)
        planned = files.plan(inputs, out, overwrite=overwrite, format=format)
        with Connection(server, timeout, api_key, tls, ca).open() as client:

            def work(job: files.Job) -> str:
                result = client.stylize(
                    job.source,
                    mix,
                    strength=strength,
                    preserve_color=preserve_color,
                    region=where,
                    output=job.format,
                    quality=quality,
                )
                files.write(job.target, result.picture.data)
                return f"{job.target}{describe_change(result.change)}"

            code = batch.run(planned, work, "stylised", jobs)
    finish(code)
