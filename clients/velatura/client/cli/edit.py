"""`velatura edit`: move the latents of pictures, inside a region."""

from __future__ import annotations

from velatura.client import results
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


def edit(
    inputs: opt.Inputs,
    out: opt.Out,
    edit: opt.Edits = [],  # noqa: B006  typer copies defaults
    offset: opt.Offsets = [],  # noqa: B006
    reference: opt.References = [],  # noqa: B006
    layers: opt.LayerSpan = None,
    region: opt.Classes = None,
    mask: opt.Masks = [],  # noqa: B006
    box: opt.Boxes = [],  # noqa: B006
    grow: opt.Grow = 0,
    feather: opt.Feather = 0,
    invert: opt.Invert = False,
    format: opt.OutFormat = None,
    quality: opt.Quality = None,
    overwrite: opt.Overwrite = False,
    jobs: opt.Jobs = 4,
    server: Server = DEFAULT_SERVER,
    timeout: Timeout = 60.0,
    api_key: ApiKey = None,
    tls: UseTls = False,
    ca: CaFile = None,
) -> None:
    """Edit faces: smile, glasses, hair … (`velatura models` lists the names).

    Outside the region nothing changes. IN may also be `.latent` files of `velatura encode`.
    """
    with one_line_errors():
        steps = arguments.edits(edit, offset, reference, layers)
        if not steps:
            raise arguments.BadArgument("--edit", "give at least one, such as --edit smile=1.0")
        where = arguments.region(region, mask, box, grow, feather, invert)
        planned = files.plan(inputs, out, overwrite=overwrite, format=format, allow_latents=True)
        with Connection(server, timeout, api_key, tls, ca).open() as client:

            def work(job: files.Job) -> str:
                token = None
                if job.source.suffix.lower() == files.LATENT_SUFFIX:
                    token = job.source.read_bytes()
                result = client.edit_image(
                    None if token else job.source,
                    steps,
                    region=where,
                    latent_token=token,
                    output=job.format,
                    quality=quality,
                )
                files.write(job.target, result.picture.data)
                return f"{job.target}{describe_change(result.change)}"

            code = batch.run(planned, work, "edited", jobs)
    finish(code)


def describe_change(change: results.ChangeReport | None) -> str:
    """What a single file's line says about the change."""
    if change is None:
        return ""
    return (
        f": changed by {change.mean_difference_inside:.1f} inside {change.region_share:.1%} of the "
        f"picture, by {change.max_difference_outside} outside"
    )
