"""Sharpens encoder and generator against a discriminator, together: the last stage of training.

L1 and gradients alone leave a soft, painted look where several pictures explain the latents equally
well. Here a discriminator looks at reconstructions and at pictures made from labels, and its
non-saturating gradient is added to that of the reconstruction, at a fixed share of its size in
image space: the adaptive weight of Esser et al. 2021 (VQGAN, arXiv:2012.09841), taken one step
later, at the pixels instead of the last layer. So the discriminator can neither drown the
reconstruction nor be drowned by it, and inversion keeps its figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from velatura.export.networks.encoder import Encoder, EncoderConfig
from velatura.training.gan.discriminator import Discriminator, DiscriminatorConfig
from velatura.training.gan.losses import discriminator_loss, generator_loss, r1_penalty
from velatura.training.generator.encode import held_out_reconstruction, training_data
from velatura.training.generator.labels import ImageLoss, blend_labels, latent_loss
from velatura.training.generator.pretrain import LabelledGenerator, load_labelled_generator
from velatura.training.runs.checkpoint import (
    flatten_module,
    flatten_optimizer,
    load_checkpoint,
    restore_module,
    restore_optimizer,
    save_checkpoint,
)
from velatura.training.runs.loop import AveragedRun, Schedule, train
from velatura.training.segmenter.augmentation import soften_and_grain

_CRITIC_FILE = "discriminator.safetensors"


@dataclass(frozen=True)
class AdversarialSettings:
    """Settings of the stage."""

    resolution: int = 128
    batch: int = 16
    learning_rate: float = 2e-4  # encoder
    generator_learning_rate: float = 3e-3
    discriminator_learning_rate: float = 2e-3
    # Norm of the adversarial gradient beside that of the reconstruction, at the pixels.
    adversarial_share: float = 0.4
    # Steps in which the discriminator alone learns, since it starts from nothing.
    head_start: int = 150
    r1_gamma: float = 0.5
    r1_every: int = 16
    seed: int = 4
    compile: bool = True
    bf16: bool = False


class Critic:
    """The discriminator and its optimiser; R1 is lazy (Karras et al. 2020, section 3.1)."""

    def __init__(self, settings: AdversarialSettings, out: Path) -> None:
        self.settings = settings
        self.path = out / _CRITIC_FILE
        self.network = Discriminator(DiscriminatorConfig(resolution=settings.resolution))
        self.network.to(memory_format=torch.channels_last)
        # With a penalty every k-th step, Adam is slowed down by k / (k + 1).
        lazy = settings.r1_every / (settings.r1_every + 1)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(),
            settings.discriminator_learning_rate * lazy,
            betas=(0.0, 0.99**lazy),
        )
        self.step = 0
        if self.path.is_file():
            tensors, state = load_checkpoint(self.path)
            restore_module("network", self.network, tensors)
            restore_optimizer("optimizer", self.optimizer, tensors)
            self.step = state["step"]

    def judge(self, images: Tensor) -> Tensor:
        """[N, 3, R, R] → logits float32 [N]."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.bf16):
            logits: Tensor = self.network(images.contiguous(memory_format=torch.channels_last))
        return logits.float()

    def gradient(self, images: Tensor) -> Tensor:
        """What would make `images` look more real: ∂ softplus(−D) / ∂ images, like `images`."""
        seen = images.detach().requires_grad_(True)
        loss = generator_loss("nonsaturating", self.judge(seen))
        gradient: Tensor = torch.autograd.grad(loss, seen)[0]
        return gradient

    def learn(self, real: Tensor, fake: Tensor) -> float:
        """One step on images [N, 3, R, R] of both kinds; returns the loss without its penalty."""
        # One kind at a time: the spread over a minibatch tells only if it is of one kind.
        of_real, of_fake = self.judge(real), self.judge(fake.detach())
        loss = discriminator_loss("nonsaturating", of_real, of_fake)
        total = loss
        if self.step % self.settings.r1_every == 0:
            # In float32: the double backward loses too much in bfloat16.
            penalty = r1_penalty(self.network, real, self.settings.r1_gamma)
            total = loss + penalty * self.settings.r1_every
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.step += 1
        return loss.item()

    def save(self) -> None:
        """Replace the file beside the run's checkpoint."""
        tensors = flatten_module("network", self.network)
        tensors |= flatten_optimizer("optimizer", self.optimizer)
        save_checkpoint(self.path, tensors, {"step": self.step})


class _Pictures(nn.Module):
    """Encoder and generator on one batch: reconstructions, pictures from labels, latent losses."""

    def __init__(self, encoder: Encoder, generator: LabelledGenerator) -> None:
        super().__init__()
        self.encoder = encoder
        self.generator = generator

    def forward(self, seen: Tensor, labels: Tensor, blended: Tensor) -> tuple[Tensor, Tensor]:
        w_plus = self.encoder(seen).float()  # [N, num_ws, w_dim]
        latents = latent_loss(w_plus[:, 0], labels, self.generator.labels)
        deltas = (w_plus[:, 1:] - w_plus[:, :1]).square().mean()
        w = self.generator.labels(blended)[:, None].expand(-1, w_plus.shape[1], -1)
        made = self.generator.synthesis(torch.cat([w_plus, w]))  # [2N, 3, R, R]
        return made.float(), 0.1 * latents + 0.5 * deltas


def train_adversarially(
    settings: AdversarialSettings, schedule: Schedule, out: Path, joint_from: Path
) -> float:
    """Train or resume in `out` from the joint stage's checkpoint.

    Returns the held-out PSNR of encode → generate, in dB.
    """
    torch.manual_seed(settings.seed)
    generator, encoder = (
        load_labelled_generator(joint_from),
        Encoder(EncoderConfig(resolution=settings.resolution)),
    )
    restore_module("ema.encoder", encoder, load_checkpoint(joint_from)[0])
    trained = nn.ModuleDict({"encoder": encoder, "generator": generator})
    trained.to(memory_format=torch.channels_last)
    groups: list[tuple[list[Tensor], float]] = [
        (list(encoder.parameters()), settings.learning_rate),
        (generator.learned(), settings.generator_learning_rate),
    ]
    run, critic = AveragedRun(out, trained, groups), Critic(settings, out)
    batches, (images, _), rng = training_data(
        settings.resolution, settings.batch, settings.seed, run.step
    )
    pictures = _Pictures(encoder, generator)
    forward: Callable[..., tuple[Tensor, Tensor]] = (
        torch.compile(pictures) if settings.compile else pictures
    )
    loss_of, share = ImageLoss(settings.resolution), settings.adversarial_share

    def pictures_of_next_batch() -> tuple[Tensor, Tensor, Tensor]:
        targets, codes = next(batches)
        seen = soften_and_grain(targets, rng).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
            made, latents = forward(seen, codes, blend_labels(codes, rng))
        return made, targets, latents

    def next_loss() -> Tensor:
        while critic.step < settings.head_start:
            with torch.no_grad():
                made, targets, _ = pictures_of_next_batch()
            critic.learn(targets, _half_of_each(made, rng))
        made, targets, latents = pictures_of_next_batch()
        reconstruction = loss_of(made, torch.cat([targets, targets]))
        pull = adversarial_pull(critic, made, reconstruction, share)
        loss: Tensor = reconstruction + latents + pull
        critic.learn(targets, _half_of_each(made, rng))
        return loss

    def measure() -> float:
        critic.save()
        return held_out_reconstruction(run, images)

    return train(run, schedule, next_loss, measure, "encoder and generator, adversarial")


def adversarial_pull(critic: Critic, made: Tensor, reconstruction: Tensor, share: float) -> Tensor:
    """A scalar whose gradient at `made` [N, 3, R, R] is the critic's, scaled to `share` times the
    norm of that of `reconstruction`, a loss of `made`."""
    (wanted,) = torch.autograd.grad(reconstruction, made, retain_graph=True)
    gradient = critic.gradient(made)
    scale = share * wanted.norm() / gradient.norm().clamp_min(1e-12)
    pull: Tensor = (made * (gradient * scale)).sum()
    return pull


def _half_of_each(made: Tensor, rng: torch.Generator) -> Tensor:
    """N of the 2N pictures: each face either reconstructed or made from its labels."""
    reconstructed, labelled = made.detach().chunk(2)
    first = torch.rand(len(reconstructed), 1, 1, 1, generator=rng) < 0.5
    return torch.where(first, reconstructed, labelled)
