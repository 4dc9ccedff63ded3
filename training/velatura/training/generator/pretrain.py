"""Teaches a generator from labelled renders: labels → w → image, before any encoder exists.

Autoencoding from scratch stays blurred for hours; with exact labels every expression is sharp after
minutes. Lower resolutions come first: the blocks learned at 64 px are kept when 128 px is added.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from velatura.export.networks.stylegan2 import GeneratorConfig, SynthesisNetwork
from velatura.training.avatars.compose import HELD_OUT_SEED
from velatura.training.avatars.dataset import avatar_batch, avatar_batches
from velatura.training.avatars.layers import render_layers
from velatura.training.avatars.parts import LABEL_DIM
from velatura.training.generator.labels import ImageLoss, LabelMapping, blend_labels, psnr_db
from velatura.training.runs.checkpoint import load_checkpoint, restore_module
from velatura.training.runs.loop import AveragedRun, Schedule, train
from velatura.training.runs.sample_grid import save_grid


@dataclass(frozen=True)
class PretrainSettings:
    """One stage, at one resolution.

    Weights are stored at unit variance (equalised learning rate), so rates are larger than usual.
    """

    resolution: int = 64
    batch: int = 16
    learning_rate: float = 2e-2
    seed: int = 1
    compile: bool = True
    bf16: bool = False  # forward and backward in bfloat16


class LabelledGenerator(nn.Module):
    """Labels [N, L] → image [N, 3, R, R]."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.labels = LabelMapping(LABEL_DIM, config.w_dim)
        self.synthesis = SynthesisNetwork(config)
        for name, buffer in self.synthesis.named_buffers():
            # The constant noise becomes a learned map: it tells each layer where on the face it is.
            if name.endswith("noise_const"):
                buffer.requires_grad_(True)
        for name, parameter in self.synthesis.named_parameters():
            if name.endswith("noise_strength"):
                nn.init.constant_(parameter, 0.1)

    def forward(self, labels: Tensor) -> Tensor:
        w_plus = self.labels(labels)[:, None].expand(-1, self.config.num_ws, -1)
        image: Tensor = self.synthesis(w_plus)  # [N, num_ws, w_dim] → [N, 3, R, R]
        return image

    def learned(self) -> list[Tensor]:
        """Parameters and the learned noise maps."""
        return [*self.parameters(), *(b for b in self.buffers() if b.requires_grad)]


def load_labelled_generator(checkpoint: Path) -> LabelledGenerator:
    """The averaged weights of either training's checkpoint; the resolution is read off them."""
    tensors, _ = load_checkpoint(checkpoint)
    prefix = "ema.generator" if any(n.startswith("ema.generator.") for n in tensors) else "ema"
    start = f"{prefix}.synthesis.b"
    sizes = [int(n.removeprefix(start).split(".")[0]) for n in tensors if n.startswith(start)]
    network = LabelledGenerator(GeneratorConfig(resolution=max(sizes)))
    restore_module(prefix, network, tensors)
    return network


def pretrain(
    settings: PretrainSettings, schedule: Schedule, out: Path, start_from: Path | None = None
) -> float:
    """Train or resume in `out`; `start_from` is a lower stage's checkpoint.

    Returns the held-out PSNR from labels, in dB.
    """
    torch.manual_seed(settings.seed)
    layers = render_layers(settings.resolution)
    network = LabelledGenerator(GeneratorConfig(resolution=settings.resolution))
    if start_from is not None:
        lower = load_labelled_generator(start_from)
        network.load_state_dict(lower.state_dict(), strict=False)  # the new block starts at random
    network.to(memory_format=torch.channels_last)
    run = AveragedRun(out, network, [(network.learned(), settings.learning_rate)])
    loss_of = ImageLoss(settings.resolution)
    forward = torch.compile(network) if settings.compile else network
    rng = torch.Generator().manual_seed(settings.seed + run.step)
    batches = avatar_batches(layers, settings.batch, settings.seed * 10_000_000 + run.step)
    images, labels = avatar_batch(range(HELD_OUT_SEED, HELD_OUT_SEED + 64), layers)

    def next_loss() -> Tensor:
        targets, codes = next(batches)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
            made = forward(blend_labels(codes, rng))  # [N, 3, R, R]
        loss: Tensor = loss_of(made.float(), targets)
        return loss

    @torch.no_grad()
    def measure() -> float:
        made = run.average(labels)
        rows = [images[:8], made[:8], images[8:16], made[8:16]]
        save_grid(out / "samples" / f"step-{run.step:06d}.png", torch.cat(rows), 8)
        return psnr_db(made, images)

    return train(run, schedule, next_loss, measure, f"generator {settings.resolution} px")
