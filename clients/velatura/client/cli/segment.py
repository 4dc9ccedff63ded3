"""`velatura segment`: label maps of pictures."""

from __future__ import annotations

from typing import Annotated

import typer

from velatura.client.cli import batch, files
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
from velatura.client.results import SegmentResult


def segment(
    inputs: opt.Inputs,
    out: opt.Out,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also write NAME.overlay.png, painted for people.")
    ] = False,
    model: Annotated[str, typer.Option(help="Segmenter; the server's default if empty.")] = "",
    overwrite: opt.Overwrite = False,
    jobs: opt.Jobs = 4,
    server: Server = DEFAULT_SERVER,
    timeout: Timeout = 60.0,
    api_key: ApiKey = None,
    tls: UseTls = False,
    ca: CaFile = None,
) -> None:
    """Find the regions of pictures: OUT is a grey PNG whose samples are class numbers."""
    with one_line_errors():
        planned = files.plan(inputs, out, overwrite=overwrite, format="png", png_only=True)
        with Connection(server, timeout, api_key, tls, ca).open() as client:

            def work(job: files.Job) -> str:
                result = client.segment(job.source, with_overlay=overlay, model=model, output="png")
                files.write(job.target, result.picture.data)
                if result.overlay_picture is not None:
                    painted = files.beside(job.target, "overlay", ".png")
                    files.write(painted, result.overlay_picture.data)
                return f"{job.target}\n{_legend(result)}"

            code = batch.run(planned, work, "segmented", jobs)
    finish(code)


def _legend(result: SegmentResult) -> str:
    """One line for each class that is there, largest first."""
    present = sorted((a for a in result.areas if a.pixels), key=lambda a: -a.pixels)
    return "\n".join(f"{a.index:>4}  {a.name:<16}{a.share:>7.1%}" for a in present)
