"""Teaches a generator from labelled renders: labels → w → image, before any encoder exists.

Autoencoding from scratch stays blurred for hours; with exact labels every expression is sharp after
minutes. Lower resolutions come first: the blocks learned at 64 px are kept when 128 px is added.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import Progress, TaskID
from torch import Tensor, nn

from velatura.export.networks.stylegan2 import GeneratorConfig, SynthesisNetwork
from velatura.training.avatars.compose import HELD_OUT_SEED
from velatura.training.avatars.dataset import avatar_batch, avatar_batches
from velatura.training.avatars.layers import render_layers
from velatura.training.avatars.parts import LABEL_DIM
from velatura.training.generator.labels import ImageLoss, LabelMapping, blend_labels, psnr_db
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
from velatura.training.runs.sample_grid import save_grid
from velatura.training.runs.schedule import decayed_rate


@dataclass(frozen=True)
class PretrainSettings:
    """One stage; `minutes` ends it earlier than `steps` where it is not 0."""

    resolution: int = 64
    steps: int = 6000
    minutes: float = 0.0
    batch: int = 16
    # Weights are stored at unit variance (equalised learning rate), so steps are larger than usual.
    learning_rate: float = 1e-2
    final_learning_rate: float = 1e-3
    seed: int = 1
    save_every: int = 250
    compile: bool = True


class LabelledGenerator(nn.Module):
    """Labels [N, L] → image [N, 3, R, R]."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.labels = LabelMapping(LABEL_DIM, config.w_dim)
        self.synthesis = SynthesisNetwork(config)
        self.config = config
        for name, buffer in self.synthesis.named_buffers():
            # The constant noise becomes a learned map: it tells each layer where on the face it is.
            if name.endswith("noise_const"):
                buffer.requires_grad_(True)
        for name, parameter in self.synthesis.named_parameters():
            if name.endswith("noise_strength"):
                nn.init.constant_(parameter, 0.1)

    def forward(self, labels: Tensor) -> Tensor:
        w_plus = self.labels(labels)[:, None].expand(-1, self.config.num_ws, -1)  # [N, num_ws, w_dim]
        image: Tensor = self.synthesis(w_plus)
        return image

    def learned(self) -> list[Tensor]:
        """Parameters and the learned noise maps."""
        return [*self.parameters(), *(b for b in self.buffers() if b.requires_grad)]


def load_labelled_generator(checkpoint: Path) -> LabelledGenerator:
    """The averaged weights of a pretraining or joint checkpoint; the resolution is read off them."""
    tensors, _ = load_checkpoint(checkpoint)
    prefix = "ema" if any(n.startswith("ema.") for n in tensors) else "average.generator"
    start = f"{prefix}.synthesis.b"
    sizes = [int(n.removeprefix(start).split(".")[0]) for n in tensors if n.startswith(start)]
    network = LabelledGenerator(GeneratorConfig(resolution=max(sizes)))
    restore_module(prefix, network, tensors)
    return network


def pretrain(settings: PretrainSettings, out: Path, start_from: Path | None = None) -> float:
    """Train or resume in `out`; `start_from` is a lower stage's checkpoint. Returns held-out PSNR, dB."""
    torch.manual_seed(settings.seed)
    layers = render_layers(settings.resolution)
    network = LabelledGenerator(GeneratorConfig(resolution=settings.resolution))
    if start_from is not None:
        tensors, _ = load_checkpoint(start_from)
        prefix = "ema."
        known = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        network.load_state_dict(known, strict=False)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995), use_buffers=True
    )
    optimizer = torch.optim.Adam(network.learned(), settings.learning_rate, betas=(0.9, 0.99))
    step, spent = _resume(out, network, average.module, optimizer)
    loss_of = ImageLoss(settings.resolution)
    forward = torch.compile(network) if settings.compile else network
    log = CsvLog(out / "log.csv", ["loss", "psnr_db", "learning_rate", "seconds"], step)
    batches = avatar_batches(layers, settings.batch, settings.seed * 10_000_000 + step)
    rng = torch.Generator().manual_seed(settings.seed + step)
    held_out = avatar_batch(range(HELD_OUT_SEED, HELD_OUT_SEED + 64), layers)
    started = time.monotonic() - spent
    value = 0.0
    with training_progress() as bar:
        task = bar.add_task("pretrain", total=settings.steps, note="")
        while step < settings.steps:
            elapsed = time.monotonic() - started
            progress = max(step / settings.steps, elapsed / (settings.minutes * 60 or math.inf))
            if progress >= 1:
                break
            rate = settings.learning_rate * decayed_rate(
                progress, step, settings.final_learning_rate / settings.learning_rate
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            images, labels = next(batches)
            loss = loss_of(forward(blend_labels(labels, rng)), images)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.learned(), 1.0)
            optimizer.step()
            average.update_parameters(network)
            step += 1
            _show(bar, task, step, float(loss.detach()))
            if step % settings.save_every == 0:
                value = _keep(out, step, time.monotonic() - started, network, average.module, optimizer, held_out)
                log.write(step, {"loss": float(loss.detach()), "psnr_db": value, "learning_rate": rate, "seconds": elapsed})
    return _keep(out, step, time.monotonic() - started, network, average.module, optimizer, held_out)


def _show(bar: Progress, task: TaskID, step: int, loss: float) -> None:
    bar.update(task, completed=step, note=f"loss {loss:.4f}")


def _resume(
    out: Path, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, float]:
    checkpoint = latest_checkpoint(out)
    if checkpoint is None:
        return 0, 0.0
    tensors, state = load_checkpoint(checkpoint)
    restore_module("network", network, tensors)
    restore_module("ema", average, tensors)
    restore_optimizer("optimizer", optimizer, tensors)
    return state["step"], state["seconds"]


@torch.no_grad()
def _keep(
    out: Path,
    step: int,
    seconds: float,
    network: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    held_out: tuple[Tensor, Tensor],
) -> float:
    images, labels = held_out
    made = average(labels)
    value = psnr_db(made, images)
    save_grid(out / "samples" / f"step-{step:06d}.png", torch.cat([images[:8], made[:8], images[8:16], made[8:16]]), 8)
    tensors = flatten_module("network", network) | flatten_module("ema", average)
    tensors |= flatten_optimizer("optimizer", optimizer)
    older = latest_checkpoint(out)
    path = checkpoint_path(out, step)
    save_checkpoint(path, tensors, {"step": step, "seconds": seconds, "psnr_db": value})
    if older is not None and older != path:
        older.unlink()
    return value
