"""`velatura encode`: latent tokens of pictures."""

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


def encode(
    inputs: opt.Inputs,
    out: opt.Out,
    reconstruction: Annotated[
        bool,
        typer.Option("--reconstruction", help="Also write NAME.reconstruction.png."),
    ] = False,
    overwrite: opt.Overwrite = False,
    jobs: opt.Jobs = 4,
    server: Server = DEFAULT_SERVER,
    timeout: Timeout = 60.0,
    api_key: ApiKey = None,
    tls: UseTls = False,
    ca: CaFile = None,
) -> None:
    """Find the latents of pictures and write them as tokens, which `velatura edit` takes as IN."""
    with one_line_errors():
        planned = files.plan(inputs, out, overwrite=overwrite, suffix=files.LATENT_SUFFIX)
        with Connection(server, timeout, api_key, tls, ca).open() as client:

            def work(job: files.Job) -> str:
                result = client.encode(job.source, with_reconstruction=reconstruction, output="png")
                files.write(job.target, result.latent_token)
                if result.reconstruction is None:
                    return f"{job.target}"
                shown = files.beside(job.target, "reconstruction", ".png")
                files.write(shown, result.reconstruction.data)
                return f"{job.target}: PSNR {result.reconstruction_psnr_db:.1f} dB, see {shown}"

            code = batch.run(planned, work, "encoded", jobs)
    finish(code)
