"""`velatura-train evaluate`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    weights: Annotated[
        Path, typer.Option(help="Folder of the networks; their figures are written there.")
    ] = Path("training/weights"),
    count: Annotated[int, typer.Option(min=8, help="Held-out avatars.")] = 500,
    faces: Annotated[int, typer.Option(min=8, help="Held-out avatars for each direction.")] = 100,
    samples: Annotated[int, typer.Option(min=16, help="Pictures in each compared set.")] = 2000,
    inception: Annotated[
        Path | None,
        typer.Option(help="torch-fidelity's weights-inception-*.pth; without: our own features."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for evaluation.md and images/evaluation/*.png."),
    ] = None,
    keep_directions: Annotated[
        bool, typer.Option(help="Measure the stored directions instead of finding them anew.")
    ] = False,
    quick: Annotated[bool, typer.Option(help="A few faces of everything: a trial run.")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 for all.")] = 0,
) -> None:
    """Find the directions, measure everything on held-out avatars, write figures and report."""
    import torch

    from velatura.training.evaluation.run import EvaluationSettings, run_evaluation

    torch.set_num_threads(threads or os.cpu_count() or 1)
    settings = EvaluationSettings(
        weights=weights,
        count=count,
        faces=faces,
        samples=samples,
        inception=inception,
        out=out,
        keep_directions=keep_directions,
    )
    try:
        run_evaluation(settings.quick() if quick else settings)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
