"""Teaches the encoder: first the latents that the labels stand for, then the images themselves.

Stage one needs no generator: the target of w0 is the label mapping's fixed w. Stage two decodes what
the encoder found and lets the generator learn along, so that the pair reconstructs what neither
would alone; the deltas of W+ are opened and kept small, since edits work best near W (Tov et al.
2021, arXiv:2102.02766).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velatura.export.networks.encoder import Encoder, EncoderConfig
from velatura.training.avatars.compose import HELD_OUT_SEED
from velatura.training.avatars.dataset import avatar_batch, avatar_batches
from velatura.training.avatars.layers import render_layers
from velatura.training.avatars.parts import LABEL_DIM, label_slices
from velatura.training.generator.labels import ImageLoss, LabelMapping, blend_labels, psnr_db
from velatura.training.generator.pretrain import LabelledGenerator, load_labelled_generator
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
from velatura.training.runs.schedule import decayed_rate, set_rate
from velatura.training.segmenter.augmentation import soften_and_grain


@dataclass(frozen=True)
class EncodeSettings:
    """One stage; `minutes` ends it earlier than `steps` where it is not 0."""

    resolution: int = 128
    steps: int = 4000
    minutes: float = 0.0
    batch: int = 16
    learning_rate: float = 1e-3
    final_learning_rate: float = 5e-5
    generator_learning_rate: float = 2e-3
    seed: int = 2
    save_every: int = 250
    compile: bool = True


class _Latents(nn.Module):
    """Stage one: images and labels → loss of w0 against the labels' own w."""

    def __init__(self, encoder: Encoder, mapping: LabelMapping) -> None:
        super().__init__()
        self.encoder = encoder
        self.mapping = mapping

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        w_plus = self.encoder(images)  # [N, num_ws, w_dim]
        return latent_loss(w_plus[:, 0], labels, self.mapping)


class _Images(nn.Module):
    """Stage two: images and labels → loss of what the generator makes of the encoder's latents.

    Half of the batch also teaches the generator from labels alone, blended ones, so that edits keep
    their meaning while the pair drifts.
    """

    def __init__(self, encoder: Encoder, generator: LabelledGenerator, loss: ImageLoss) -> None:
        super().__init__()
        self.encoder = encoder
        self.generator = generator
        self.loss = loss

    def forward(self, seen: Tensor, images: Tensor, labels: Tensor, blended: Tensor) -> Tensor:
        w_plus = self.encoder(seen)
        latents = latent_loss(w_plus[:, 0], labels, self.generator.labels)
        deltas = (w_plus[:, 1:] - w_plus[:, :1]).square().mean()
        half = images.shape[0] // 2
        w = self.generator.labels(blended[:half])[:, None].expand(-1, w_plus.shape[1], -1)
        made = self.generator.synthesis(torch.cat([w_plus, w]))  # [3N/2, 3, R, R]
        targets = torch.cat([images, images[:half]])
        return self.loss(made, targets) + 0.1 * latents + 0.5 * deltas


def latent_loss(w: Tensor, labels: Tensor, mapping: LabelMapping) -> Tensor:
    """Squared error in w, plus cross entropy of the options that w stands for, over all attributes."""
    loss = F.mse_loss(w, mapping(labels)) * 4
    logits = mapping.labels_of(w) * 6
    for attribute, place in label_slices().items():
        if attribute != "background":
            loss = loss + 0.05 * F.cross_entropy(logits[:, place], labels[:, place])
    return loss


def train_encoder(
    settings: EncodeSettings, out: Path, generator_from: Path | None, encoder_from: Path | None
) -> float:
    """Train or resume in `out`; stage two where a generator's checkpoint is given.

    `encoder_from` is a checkpoint of stage one (or two) to go on from. Returns the held-out PSNR in
    dB of stage two, the label accuracy of stage one.
    """
    torch.manual_seed(settings.seed)
    layers = render_layers(settings.resolution)
    encoder = Encoder(EncoderConfig(resolution=settings.resolution))
    mapping = LabelMapping(LABEL_DIM, encoder.config.w_dim)
    generator = load_labelled_generator(generator_from) if generator_from else None
    if encoder_from is not None:
        restore_module("average.encoder", encoder, load_checkpoint(encoder_from)[0])
    trained = nn.ModuleDict({"encoder": encoder})
    if generator is None:
        encoder.delta_scale = 0.0
        step_module: nn.Module = _Latents(encoder, mapping)
        groups = [{"params": list(encoder.parameters()), "base": settings.learning_rate}]
    else:
        trained["generator"] = generator
        step_module = _Images(encoder, generator, ImageLoss(settings.resolution))
        groups = [
            {"params": list(encoder.parameters()), "base": settings.learning_rate},
            {"params": generator.learned(), "base": settings.generator_learning_rate},
        ]
    average = torch.optim.swa_utils.AveragedModel(
        trained, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995), use_buffers=True
    )
    optimizer = torch.optim.Adam(groups, settings.learning_rate, betas=(0.9, 0.99))
    step, spent = 0, 0.0
    checkpoint = latest_checkpoint(out)
    if checkpoint is not None:
        tensors, state = load_checkpoint(checkpoint)
        restore_module("network", trained, tensors)
        restore_module("average", average.module, tensors)
        restore_optimizer("optimizer", optimizer, tensors)
        step, spent = state["step"], state["seconds"]
    forward = torch.compile(step_module) if settings.compile else step_module
    log = CsvLog(out / "log.csv", ["loss", "figure", "seconds"], step)
    rng = torch.Generator().manual_seed(settings.seed + step)
    batches = avatar_batches(layers, settings.batch, settings.seed * 10_000_000 + step)
    held_out = avatar_batch(range(HELD_OUT_SEED, HELD_OUT_SEED + 64), layers)
    learned = [p for group in groups for p in group["params"]]
    started = time.monotonic() - spent
    figure = 0.0
    with training_progress() as bar:
        task = bar.add_task("encode", total=settings.steps, note="")
        while step < settings.steps:
            elapsed = time.monotonic() - started
            progress = max(step / settings.steps, elapsed / (settings.minutes * 60 or math.inf))
            if progress >= 1:
                break
            set_rate(optimizer, decayed_rate(progress, step, settings.final_learning_rate / settings.learning_rate))
            images, labels = next(batches)
            seen = soften_and_grain(images, rng)
            if generator is None:
                loss = forward(seen, labels)
            else:
                loss = forward(seen, images, labels, blend_labels(labels, rng))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(learned, 1.0)
            optimizer.step()
            average.update_parameters(trained)
            step += 1
            bar.update(task, completed=step, note=f"loss {loss.item():.4f}")
            if step % settings.save_every == 0 or step == settings.steps:
                figure = _keep(out, step, time.monotonic() - started, trained, average.module, optimizer, held_out, mapping)
                log.write(step, {"loss": loss.item(), "figure": figure, "seconds": elapsed})
    return _keep(out, step, time.monotonic() - started, trained, average.module, optimizer, held_out, mapping)


@torch.no_grad()
def _keep(
    out: Path,
    step: int,
    seconds: float,
    trained: nn.ModuleDict,
    average: nn.ModuleDict,
    optimizer: torch.optim.Optimizer,
    held_out: tuple[Tensor, Tensor],
    mapping: LabelMapping,
) -> float:
    """Save a checkpoint and, with a generator, a sample grid; returns PSNR in dB, else label accuracy."""
    images, labels = held_out
    average["encoder"].delta_scale = trained["encoder"].delta_scale
    w_plus = average["encoder"](images)
    if "generator" in average:
        made = average["generator"].synthesis(w_plus)
        figure = psnr_db(made, images)
        rows = [images[:8], made[:8], images[8:16], made[8:16]]
        save_grid(out / "samples" / f"step-{step:06d}.png", torch.cat(rows), 8)
    else:
        figure = label_accuracy(mapping.labels_of(w_plus[:, 0]), labels)
    tensors = flatten_module("network", trained) | flatten_module("average", average)
    tensors |= flatten_optimizer("optimizer", optimizer)
    older = latest_checkpoint(out)
    path = checkpoint_path(out, step)
    save_checkpoint(path, tensors, {"step": step, "seconds": seconds, "figure": figure})
    if older is not None and older != path:
        older.unlink()
    return figure


def label_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Share of right options over all attributes but the background."""
    places = [p for a, p in label_slices().items() if a != "background"]
    hits = [predicted[:, p].argmax(1) == labels[:, p].argmax(1) for p in places]
    return float(torch.stack(hits).float().mean())
