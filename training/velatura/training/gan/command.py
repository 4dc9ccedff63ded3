"""`velatura-train gan`: from a command line's values to a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, cast

import typer

Data = Annotated[str, typer.Option(help="Folder of images, or `avatars`.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; an old run resumes.")]


def gan(
    data: Data,
    out: Out = Path("runs/gan"),
    resolution: Annotated[int, typer.Option(help="32, 64, 128 or 256 pixels.")] = 64,
    steps: int = 20_000,
    minutes: Annotated[float, typer.Option(help="Time budget over all sittings; 0: none.")] = 0,
    batch: int = 16,
    objective: Annotated[
        str, typer.Option(help="nonsaturating, hinge or wasserstein.")
    ] = "nonsaturating",
    width: Annotated[float, typer.Option(help="Factor on the networks' feature maps.")] = 1.0,
    learning_rate: float = 2e-3,
    r1_gamma: Annotated[
        float | None, typer.Option(help="R1's γ; by the paper's formula unless given; 0: none.")
    ] = None,
    gradient_penalty: Annotated[
        float | None, typer.Option(help="WGAN-GP's weight; 10 for wasserstein unless given.")
    ] = None,
    spectral_norm: Annotated[bool, typer.Option(help="In the discriminator.")] = False,
    ada: Annotated[bool, typer.Option(help="Adapt the augmentation to overfitting.")] = True,
    ada_target: Annotated[float, typer.Option(help="r_t that p is steered to.")] = 0.6,
    ada_kimg: Annotated[float, typer.Option(help="Thousand images for p from 0 to 1.")] = 20,
    augment: Annotated[
        str, typer.Option(help="none, blit, geom, color, filter, noise, cutout, bg, bgc, bgcf, …")
    ] = "bgc",
    augment_p: Annotated[float, typer.Option(help="p at the start; fixed with --no-ada.")] = 0.0,
    mixing: Annotated[float, typer.Option(help="Share of images made from two latents.")] = 0.9,
    path_length: Annotated[float, typer.Option(help="Weight; 2 in the paper, 0: none.")] = 0.0,
    kimg_ema: Annotated[float, typer.Option(help="Half-life of the average, kimg.")] = 5.0,
    labelled: Annotated[bool, typer.Option(help="Sub-folders name classes.")] = False,
    mirror: Annotated[bool, typer.Option(help="Folders: also take every image mirrored.")] = True,
    count: Annotated[int, typer.Option(help="Avatars: how many different ones; 0: all.")] = 0,
    start_from: Annotated[
        Path | None, typer.Option(help="Generator's weights (.safetensors) to start from.")
    ] = None,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 200,
    seed: int = 1,
    bf16: Annotated[bool, typer.Option(help="bfloat16; quick on CPUs with AMX.")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 for all.")] = 0,
) -> None:
    """Train StyleGAN2 with adaptive augmentation on a folder of images or on avatars."""
    import torch

    from velatura.export.errors import CheckpointError
    from velatura.training.gan.images import avatar_images, read_images
    from velatura.training.gan.losses import Objective
    from velatura.training.gan.settings import GanSettings, RunLength
    from velatura.training.gan.train import train_gan

    torch.set_num_threads(threads or os.cpu_count() or 1)
    try:
        settings = GanSettings(
            resolution=resolution,
            batch=batch,
            objective=cast("Objective", objective),
            width=width,
            learning_rate=learning_rate,
            r1_gamma=r1_gamma,
            gradient_penalty=gradient_penalty,
            spectral_norm=spectral_norm,
            ada=ada,
            ada_target=ada_target,
            ada_kimg=ada_kimg,
            augment=augment,
            augment_p=augment_p,
            mixing=mixing,
            path_length=path_length,
            kimg_ema=kimg_ema,
            seed=seed,
            bf16=bf16,
        )
        source = (
            avatar_images(resolution, count)
            if data == "avatars"
            else read_images(Path(data), resolution, labelled=labelled, mirror=mirror)
        )
        length = RunLength(steps, minutes, save_every)
        state = train_gan(settings, length, source, out, start_from)
    except (ValueError, CheckpointError) as error:
        raise typer.BadParameter(str(error)) from error
    except FloatingPointError as error:
        typer.echo(f"stopped: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"{out / 'generator.safetensors'} after {state.step} steps, p {state.ada.p:.3f}")
