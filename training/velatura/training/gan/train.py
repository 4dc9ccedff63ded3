"""The adversarial training run: resume, step, log, show, save."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from velatura.training.gan.images import ImageSource, first_images
from velatura.training.gan.phases import train_step
from velatura.training.gan.settings import GanSettings, RunLength
from velatura.training.gan.state import GanState
from velatura.training.runs.logbook import CsvLog, training_progress
from velatura.training.runs.sample_grid import save_grid

LOG_COLUMNS = (
    "loss_d",
    "loss_g",
    "real_logit",
    "fake_logit",
    "r_t",
    "p",
    "r1",
    "gradient_penalty",
    "path_length",
)
_GRID = 32
_GRID_COLUMNS = 8
_GRID_PSI = 0.7
CLASSES_FILE = "classes.txt"


def train_gan(
    settings: GanSettings,
    length: RunLength,
    source: ImageSource,
    out: Path,
    start_from: Path | None = None,
) -> GanState:
    """Train or resume in `out`; returns the state at the end, which is saved.

    The log depends on the settings, the images and nothing else on this machine: a run that was
    killed and resumed writes the same file as an unbroken one. Raises ValueError as GanState.
    """
    state = GanState(settings, len(source.classes), out, start_from)
    if source.classes:  # weights know numbers only; `velatura-export bundle --classes` takes these
        out.mkdir(parents=True, exist_ok=True)
        (out / CLASSES_FILE).write_text("".join(f"{name}\n" for name in source.classes))
    log = CsvLog(out / "log.csv", LOG_COLUMNS, state.step)
    save_grid(out / "samples" / "real.png", first_images(source, _GRID), _GRID_COLUMNS)
    started = time.monotonic() - state.seconds
    with training_progress() as bar:
        task = bar.add_task("gan", total=length.steps, completed=state.step, note="")
        while not length.over(state.step, state.seconds):
            figures = train_step(state, source)
            state.seconds = time.monotonic() - started
            note = f"D {figures['loss_d']:.3f} G {figures['loss_g']:.3f} p {figures['p']:.3f}"
            bar.update(task, completed=state.step, note=note)
            if state.step % length.log_every == 0:
                log.write(state.step, figures)
            if state.step % length.save_every == 0:
                _keep(state)
    _keep(state)
    return state


def _keep(state: GanState) -> None:
    state.save()
    path = state.out / "samples" / f"step-{state.step:06d}.png"
    save_grid(path, sample_images(state), _GRID_COLUMNS)


@torch.no_grad()
def sample_images(state: GanState) -> torch.Tensor:
    """The averaged generator's images of always the same z: float32 [32, 3, R, R]."""
    rng = torch.Generator().manual_seed(state.settings.seed)
    z = torch.randn(_GRID, state.average.config.z_dim, generator=rng)
    class_weights = None
    if state.classes:  # a class after the other
        class_weights = torch.eye(state.classes)[torch.arange(_GRID) % state.classes]
    images: torch.Tensor = state.average(z, torch.full((_GRID,), _GRID_PSI), class_weights)
    return images
