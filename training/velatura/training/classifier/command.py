"""`velatura-train classifier`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def classifier(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the run; an old run resumes.")
    ] = Path("runs/classifier"),
    steps: int = 3000,
    minutes: Annotated[float, typer.Option(help="Time budget; 0 for none.")] = 0,
    batch: int = 32,
    learning_rate: float = 2e-3,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 for all.")] = 0,
    compile: Annotated[bool, typer.Option(help="Compile with torch.compile.")] = False,
    bf16: Annotated[
        bool, typer.Option(help="bfloat16 arithmetic; quick on CPUs with AMX.")
    ] = False,
) -> None:
    """Train the judge: a classifier of every attribute, on renders alone."""
    import torch

    from velatura.training.classifier.train import ClassifierSettings, train_classifier
    from velatura.training.runs.loop import Schedule

    torch.set_num_threads(threads or os.cpu_count() or 1)
    settings = ClassifierSettings(
        batch=batch, learning_rate=learning_rate, bf16=bf16, compile=compile
    )
    schedule = Schedule(steps, minutes, final_rate=0.02, save_every=250)
    figures = train_classifier(settings, schedule, out)
    for attribute, value in figures.items():
        typer.echo(f"{attribute}: {value:.4f}")
