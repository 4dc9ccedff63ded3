"""The loop that every averaged training run shares: resume, step, average, measure, save.

A run's folder holds one checkpoint (the newest), log.csv and samples/. What is trained and what it
is measured by is the caller's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from velatura.training.runs.checkpoint import (
    checkpoint_path,
    flatten_module,
    flatten_optimizer,
    latest_checkpoint,
    load_checkpoint,
    restore_module,
    restore_optimizer,
    save_checkpoint,
)
from velatura.training.runs.logbook import CsvLog, training_progress
from velatura.training.runs.schedule import decayed_rate

_AVERAGE_DECAY = 0.995
_GRADIENT_LIMIT = 1.0


@dataclass(frozen=True)
class Schedule:
    """How long a run takes and when it saves; `minutes` ends it before `steps` unless it is 0.

    The learning rate falls along a cosine to `final_rate` of its start, by whichever of steps and
    minutes is further on, so that a run on a busy machine still ends with small steps.
    """

    steps: int
    minutes: float = 0.0
    final_rate: float = 0.1
    save_every: int = 250

    def progress(self, step: int, seconds: float) -> float:
        """0 at the start, 1 or more at the end."""
        return max(step / self.steps, seconds / (self.minutes * 60 or math.inf))


class AveragedRun:
    """A network, its moving average (`average`), its optimiser and its place on disk.

    `groups` are (values to learn, learning rate) pairs.
    """

    def __init__(
        self, out: Path, network: nn.Module, groups: Sequence[tuple[list[Tensor], float]]
    ) -> None:
        self.out = out
        self.network = network
        self.learned = [value for values, _ in groups for value in values]
        self.rates = [rate for _, rate in groups]
        self.optimizer = torch.optim.Adam(
            [{"params": values, "lr": rate} for values, rate in groups], betas=(0.9, 0.99)
        )
        self._averaged = torch.optim.swa_utils.AveragedModel(
            network, multi_avg_fn=_move_average, use_buffers=True
        )
        self.step = 0
        self.seconds = 0.0
        self._resume()

    @property
    def average(self) -> nn.Module:
        """The exponential moving average of the network: what is measured and exported."""
        return self._averaged.module

    def update(self, loss: Tensor, factor: float) -> None:
        """One optimiser step at `factor` times the base learning rates."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.learned, _GRADIENT_LIMIT)
        self.optimizer.step()
        self._averaged.update_parameters(self.network)
        self.step += 1

    def save(self, figure: float) -> None:
        """Replace the run's checkpoint."""
        tensors = flatten_module("network", self.network) | flatten_module("ema", self.average)
        tensors |= flatten_optimizer("optimizer", self.optimizer)
        older = latest_checkpoint(self.out)
        path = checkpoint_path(self.out, self.step)
        state = {"step": self.step, "seconds": self.seconds, "figure": figure}
        save_checkpoint(path, tensors, state)
        if older is not None and older != path:
            older.unlink()

    def _resume(self) -> None:
        checkpoint = latest_checkpoint(self.out)
        if checkpoint is None:
            return
        tensors, state = load_checkpoint(checkpoint)
        restore_module("network", self.network, tensors)
        restore_module("ema", self.average, tensors)
        restore_optimizer("optimizer", self.optimizer, tensors)
        self.step, self.seconds = state["step"], state["seconds"]
        self._averaged.n_averaged.fill_(self.step)  # at 0 the first update would start it anew


@torch.no_grad()
def _move_average(
    average: tuple[Tensor, ...] | list[Tensor],
    values: tuple[Tensor, ...] | list[Tensor],
    updates: Tensor | int,
) -> None:
    """Move the average towards the values, at first quickly: random beginnings are soon forgotten.

    Counters, which are whole numbers, are copied.
    """
    count = float(updates)
    decay = min(_AVERAGE_DECAY, (1 + count) / (10 + count))
    for mean, value in zip(average, values, strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def train(
    run: AveragedRun,
    schedule: Schedule,
    next_loss: Callable[[], Tensor],
    measure: Callable[[], float],
    name: str,
) -> float:
    """Run to the schedule's end; returns the last of `measure`, which is taken at every save."""
    log = CsvLog(run.out / "log.csv", ["loss", "figure", "seconds"], run.step)
    started = time.monotonic() - run.seconds
    figure = math.nan
    with training_progress() as bar:
        task = bar.add_task(name, total=schedule.steps, completed=run.step, note="")
        while (progress := schedule.progress(run.step, run.seconds)) < 1:
            loss = next_loss()
            run.update(loss, decayed_rate(progress, run.step, schedule.final_rate))
            run.seconds = time.monotonic() - started
            bar.update(task, completed=run.step, note=f"loss {loss.item():.4f}")
            if run.step % schedule.save_every == 0:
                figure = measure()
                run.save(figure)
                values = {"loss": loss.item(), "figure": figure, "seconds": run.seconds}
                log.write(run.step, values)
    figure = measure()
    run.save(figure)
    return figure
