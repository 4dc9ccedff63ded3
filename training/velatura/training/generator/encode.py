"""Teaches the encoder: first the latents that the labels stand for, then the images themselves.

Stage one needs no generator: the target of w0 is the label mapping's fixed w. Stage two decodes
what the encoder found and lets the generator learn along, so that the pair reconstructs what
neither would alone; the deltas of W+ are opened and kept small, since edits work best near W (Tov
et al. 2021, arXiv:2102.02766).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from velatura.export.networks.encoder import Encoder, EncoderConfig
from velatura.training.avatars.compose import HELD_OUT_SEED
from velatura.training.avatars.dataset import avatar_batch, avatar_batches
from velatura.training.avatars.layers import render_layers
from velatura.training.avatars.parts import LABEL_DIM, label_slices
from velatura.training.generator.labels import (
    ImageLoss,
    LabelMapping,
    blend_labels,
    latent_loss,
    psnr_db,
)
from velatura.training.generator.pretrain import LabelledGenerator, load_labelled_generator
from velatura.training.runs.checkpoint import load_checkpoint, restore_module
from velatura.training.runs.loop import AveragedRun, Schedule, train
from velatura.training.runs.sample_grid import save_grid
from velatura.training.segmenter.augmentation import soften_and_grain


@dataclass(frozen=True)
class EncodeSettings:
    """Settings of either stage; the generator's rate counts in the second."""

    resolution: int = 128
    batch: int = 16
    learning_rate: float = 1e-3
    generator_learning_rate: float = 4e-3
    seed: int = 2
    compile: bool = True
    bf16: bool = False  # forward and backward in bfloat16: two to four times as fast with AMX


class _Latents(nn.Module):
    """Stage one: images and labels → loss of w0 against the labels' own w."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.mapping = LabelMapping(LABEL_DIM, encoder.config.w_dim)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        w_plus = self.encoder(images)  # [N, num_ws, w_dim]
        return latent_loss(w_plus[:, 0].float(), labels, self.mapping)


class _Images(nn.Module):
    """Stage two: images and labels → loss of what the generator makes of the encoder's latents.

    The same faces also teach the generator from labels alone, blended ones, so that edits keep
    their meaning while the pair drifts.
    """

    def __init__(self, encoder: Encoder, generator: LabelledGenerator, loss: ImageLoss) -> None:
        super().__init__()
        self.encoder = encoder
        self.generator = generator
        self.loss = loss

    def forward(self, seen: Tensor, images: Tensor, labels: Tensor, blended: Tensor) -> Tensor:
        w_plus = self.encoder(seen)
        w_plus = w_plus.float()
        latents = latent_loss(w_plus[:, 0], labels, self.generator.labels)
        deltas = (w_plus[:, 1:] - w_plus[:, :1]).square().mean()
        w = self.generator.labels(blended)[:, None].expand(-1, w_plus.shape[1], -1)
        made = self.generator.synthesis(torch.cat([w_plus, w]))  # [2N, 3, R, R]
        targets = torch.cat([images, images])
        loss: Tensor = self.loss(made.float(), targets) + 0.1 * latents + 0.5 * deltas
        return loss


def train_latents(settings: EncodeSettings, schedule: Schedule, out: Path) -> float:
    """Stage one, or its resumption, in `out`; returns the held-out label accuracy."""
    torch.manual_seed(settings.seed)
    trained = nn.ModuleDict({"encoder": _encoder(settings)})
    trained.to(memory_format=torch.channels_last)
    step_module = _Latents(_encoder_of(trained))
    learned: list[Tensor] = list(trained.parameters())
    run = AveragedRun(out, trained, [(learned, settings.learning_rate)])
    batches, (images, labels), rng = training_data(
        settings.resolution, settings.batch, settings.seed, run.step
    )
    forward = torch.compile(step_module) if settings.compile else step_module

    def next_loss() -> Tensor:
        targets, codes = next(batches)
        seen = soften_and_grain(targets, rng).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
            loss: Tensor = forward(seen, codes)
        return loss

    @torch.no_grad()
    def measure() -> float:
        w = _encoder_of(run.average)(images)[:, 0]  # [N, w_dim]
        return label_accuracy(step_module.mapping.labels_of(w), labels)

    return train(run, schedule, next_loss, measure, "encoder, latents")


def train_images(
    settings: EncodeSettings,
    schedule: Schedule,
    out: Path,
    generator_from: Path,
    encoder_from: Path,
) -> float:
    """Stage two, or its resumption, in `out`, from checkpoints of both networks.

    Returns the held-out PSNR of encode → generate, in dB.
    """
    torch.manual_seed(settings.seed)
    generator, encoder = load_labelled_generator(generator_from), _encoder(settings)
    restore_module("ema.encoder", encoder, load_checkpoint(encoder_from)[0])
    encoder.delta_scale = 1.0
    trained = nn.ModuleDict({"encoder": encoder, "generator": generator})
    trained.to(memory_format=torch.channels_last)
    groups: list[tuple[list[Tensor], float]] = [
        (list(encoder.parameters()), settings.learning_rate),
        (generator.learned(), settings.generator_learning_rate),
    ]
    run = AveragedRun(out, trained, groups)
    batches, (images, _), rng = training_data(
        settings.resolution, settings.batch, settings.seed, run.step
    )
    step_module = _Images(encoder, generator, ImageLoss(settings.resolution))
    forward = torch.compile(step_module) if settings.compile else step_module

    def next_loss() -> Tensor:
        targets, codes = next(batches)
        seen = soften_and_grain(targets, rng).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
            loss: Tensor = forward(seen, targets, codes, blend_labels(codes, rng))
        return loss

    def measure() -> float:
        return held_out_reconstruction(run, images)

    return train(run, schedule, next_loss, measure, "encoder and generator, images")


@torch.no_grad()
def held_out_reconstruction(run: AveragedRun, images: Tensor) -> float:
    """PSNR in dB of encode → generate by the run's averages; writes rows of both as a sample."""
    made = _generator_of(run.average).synthesis(_encoder_of(run.average)(images))
    rows = [images[:8], made[:8], images[8:16], made[8:16]]
    save_grid(run.out / "samples" / f"step-{run.step:06d}.png", torch.cat(rows), 8)
    return psnr_db(made, images)


def _encoder(settings: EncodeSettings) -> Encoder:
    """A new encoder whose deltas are still closed."""
    encoder = Encoder(EncoderConfig(resolution=settings.resolution))
    encoder.delta_scale = 0.0
    return encoder


def _encoder_of(trained: nn.Module) -> Encoder:
    return cast("Encoder", trained.get_submodule("encoder"))


def _generator_of(trained: nn.Module) -> LabelledGenerator:
    return cast("LabelledGenerator", trained.get_submodule("generator"))


def training_data(
    resolution: int, batch: int, seed: int, step: int
) -> tuple[Iterator[tuple[Tensor, Tensor]], tuple[Tensor, Tensor], torch.Generator]:
    """Batches from `step` on, 64 held-out avatars, and the augmentation's random numbers."""
    layers = render_layers(resolution)
    batches = avatar_batches(layers, batch, seed * 10_000_000 + step)
    held_out = avatar_batch(range(HELD_OUT_SEED, HELD_OUT_SEED + 64), layers)
    return batches, held_out, torch.Generator().manual_seed(seed + step)


def label_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Share of right options over all attributes but the background."""
    places = [p for a, p in label_slices().items() if a != "background"]
    hits = [predicted[:, p].argmax(1) == labels[:, p].argmax(1) for p in places]
    return float(torch.stack(hits).float().mean())
