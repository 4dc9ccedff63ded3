"""The segmenter's training loop: cross entropy plus Dice, AdamW, cosine decay, resumable.

The schedule follows the number of steps or, where a time budget is given, whichever of the two is
further on, so that a run on a busy machine still ends with a decayed learning rate.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from velatura.export.checkpoints.native import save_weights
from velatura.export.networks.segmenter import SegmenterConfig, build_segmenter
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
from velatura.training.segmenter.augmentation import augment
from velatura.training.segmenter.labelled_images import LabelledImages
from velatura.training.segmenter.metrics import evaluate


@dataclass(frozen=True)
class SegmenterTraining:
    """Settings of one run; `minutes` 0 means no time budget."""

    steps: int = 3000
    batch: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    minutes: float = 0.0
    evaluate_every: int = 500
    seed: int = 1
    bf16: bool = False  # forward and backward in bfloat16


@dataclass
class _Run:
    network: nn.Module
    optimizer: torch.optim.Optimizer
    rng: torch.Generator
    step: int = 0
    seconds: float = 0.0  # spent in earlier sittings


def train_segmenter(
    config: SegmenterConfig,
    settings: SegmenterTraining,
    data: LabelledImages,
    held_out: LabelledImages,
    out: Path,
) -> dict[str, float]:
    """Train or resume in `out`; writes checkpoints, log.csv, samples and segmenter.safetensors.

    Returns the figures of `evaluate` on `held_out`. Raises ValueError when the data's classes are
    not the network's.
    """
    if data.classes != config.classes:
        raise ValueError(f"classes: the data has {data.classes}, the network {config.classes}")
    torch.manual_seed(settings.seed)
    run = _open_run(config, settings, out)
    log = CsvLog(out / "log.csv", ["loss", "learning_rate", "seconds"], run.step)
    started = time.monotonic() - run.seconds
    with training_progress() as bar:
        task = bar.add_task(config.architecture, total=settings.steps, note="")
        for progress in _schedule(run, settings, started):
            loss, rate = _step(run, settings, data, progress)
            run.step += 1
            bar.update(task, completed=run.step, note=f"loss {loss:.3f}")
            if run.step % 20 == 0:
                elapsed = time.monotonic() - started
                log.write(run.step, {"loss": loss, "learning_rate": rate, "seconds": elapsed})
            if run.step % settings.evaluate_every == 0:
                _keep(run, config, held_out, out, time.monotonic() - started)
    figures = _keep(run, config, held_out, out, time.monotonic() - started)
    (out / "figures.json").write_text(json.dumps(figures, indent=2))
    return figures


def _open_run(config: SegmenterConfig, settings: SegmenterTraining, out: Path) -> _Run:
    network = build_segmenter(config).train()
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    run = _Run(network, optimizer, torch.Generator().manual_seed(settings.seed))
    checkpoint = latest_checkpoint(out)
    if checkpoint is not None:
        tensors, state = load_checkpoint(checkpoint)
        restore_module("network", network, tensors)
        restore_optimizer("optimizer", optimizer, tensors)
        run.rng.set_state(tensors["rng"])
        run.step, run.seconds = state["step"], state["seconds"]
    return run


def _schedule(run: _Run, settings: SegmenterTraining, started: float) -> Iterator[float]:
    """How far the run is, 0 to 1, before each step; ends with the steps or the time."""
    while run.step < settings.steps:
        progress = run.step / settings.steps
        if settings.minutes:
            progress = max(progress, (time.monotonic() - started) / (60 * settings.minutes))
        if progress >= 1:
            return
        yield progress


def _step(
    run: _Run, settings: SegmenterTraining, data: LabelledImages, progress: float
) -> tuple[float, float]:
    warm_up = min(1.0, (run.step + 1) / 100)
    rate = settings.learning_rate * warm_up * (0.5 + 0.5 * math.cos(math.pi * progress))
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    indices = torch.randint(len(data), (settings.batch,), generator=run.rng)
    image, labels = augment(*data.take(indices), run.rng)
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
        logits = run.network(image.contiguous(memory_format=torch.channels_last))
    loss = segmentation_loss(logits.float(), labels)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(run.network.parameters(), 5.0)
    run.optimizer.step()
    return float(loss.detach()), rate


def segmentation_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy plus Dice; Dice counts a two-pixel brow as much as the background."""
    dice: Tensor = smp.losses.DiceLoss(mode="multiclass", from_logits=True)(logits, labels)
    return F.cross_entropy(logits, labels) + dice


def _keep(
    run: _Run, config: SegmenterConfig, held_out: LabelledImages, out: Path, seconds: float
) -> dict[str, float]:
    tensors = flatten_module("network", run.network) | flatten_optimizer("optimizer", run.optimizer)
    tensors["rng"] = run.rng.get_state()
    state = {"step": run.step, "seconds": seconds, "config": asdict(config)}
    older = latest_checkpoint(out)
    path = checkpoint_path(out, run.step)
    save_checkpoint(path, tensors, state)
    if older is not None and older != path:
        older.unlink()
    save_weights(out / "segmenter.safetensors", run.network, config)
    _save_samples(out / "samples" / f"step-{run.step:06d}.png", run.network, held_out)
    figures = evaluate(run.network, held_out)
    Console().print(f"step {run.step}: mIoU {figures['mIoU']:.4f}")
    return figures


@torch.inference_mode()
def _save_samples(path: Path, network: nn.Module, data: LabelledImages) -> None:
    """Rows of image, predicted and true label map."""
    count = min(8, len(data))
    image, labels = data.take(torch.arange(count))
    predicted = network.eval()(image).argmax(dim=1)
    network.train()
    save_grid(path, torch.cat([image, paint(predicted), paint(labels)]), columns=count)


def paint(labels: Tensor) -> Tensor:
    """Label maps [N, H, W] as colours [N, 3, H, W] in [-1, 1], well apart for up to 27 classes."""
    levels = torch.tensor([-1.0, 1.0, 0.0])
    index = torch.arange(27)
    palette = torch.stack([levels[index % 3], levels[index // 3 % 3], levels[index // 9]], dim=1)
    return palette[labels % 27].permute(0, 3, 1, 2)
