"""`velatura-train biggan`: a class-conditional generator of avatars or of a folder's classes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def biggan(
    data: Annotated[
        str, typer.Option(help="avatars, or a folder with one sub-folder of images a class.")
    ] = "avatars",
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the run; an old run resumes.")
    ] = Path("runs/biggan"),
    steps: int = 10_000,
    minutes: Annotated[float, typer.Option(help="Time budget; 0 for none.")] = 0,
    batch: int = 32,
    learning_rate_g: float = 1e-4,
    learning_rate_d: float = 4e-4,
    discriminator_steps: Annotated[int, typer.Option(help="For each step of G.", min=1)] = 1,
    aux_weight: Annotated[
        float, typer.Option(help="Weight of the class head's cross entropy.", min=0)
    ] = 0.5,
    paired_share: Annotated[
        float, typer.Option(help="Avatars: share of the run on pairs of z and image.", min=0, max=1)
    ] = 0.5,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints.", min=1)] = 500,
    seed: int = 1,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 for all.")] = 0,
    bf16: Annotated[
        bool, typer.Option(help="bfloat16 arithmetic; quick on CPUs with AMX.")
    ] = False,
) -> None:
    """Train a class-conditional generator (BigGAN): avatars by expression, or own classes."""
    import os

    import torch

    torch.set_num_threads(threads or os.cpu_count() or 1)
    from velatura.export.networks.biggan import ClassGeneratorConfig
    from velatura.training.biggan.data import AvatarSource, FolderSource, LabelledSource
    from velatura.training.biggan.expressions import CLASSES
    from velatura.training.biggan.train import ClassTraining, train_class_generator

    settings = ClassTraining(
        steps=steps,
        minutes=minutes,
        batch=batch,
        learning_rate_g=learning_rate_g,
        learning_rate_d=learning_rate_d,
        discriminator_steps=discriminator_steps,
        class_weight=aux_weight,
        paired_share=paired_share,
        save_every=save_every,
        seed=seed,
        bf16=bf16,
    )
    source: LabelledSource
    try:
        if data == "avatars":
            config = ClassGeneratorConfig(CLASSES)
            source = AvatarSource(config.resolution, config.z_dim)
        else:
            source = FolderSource(Path(data), ClassGeneratorConfig.resolution)
            config = ClassGeneratorConfig(source.classes)
        weights = train_class_generator(config, settings, source, out)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--data") from error
    typer.echo(f"{weights}: {len(config.classes)} classes, {config.resolution} px")
