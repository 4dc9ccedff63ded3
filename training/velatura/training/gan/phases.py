"""One step of adversarial training: the discriminator's turn, then the generator's.

All random numbers of a step come from one generator, seeded by the run's seed and the step.
Regularisers are differentiated twice, in float32 whatever the arithmetic of the rest.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from velatura.export.networks.stylegan2 import Generator
from velatura.training.gan.ada.pipeline import AugmentPipe
from velatura.training.gan.images import ImageSource
from velatura.training.gan.losses import (
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    path_length_penalty,
    path_lengths,
    r1_penalty,
)
from velatura.training.gan.state import GanState

_W_AVG_DECAY = 0.995
_SEEDS = 1 << 20  # steps of one seed before the next seed's begin


def step_generator(seed: int, step: int) -> torch.Generator:
    """Random numbers of one step, the same whether or not the run was interrupted before it."""
    return torch.Generator().manual_seed(seed * _SEEDS + step)


def train_step(state: GanState, source: ImageSource) -> dict[str, float]:
    """Both turns, the average and the counters; returns the step's figures for the log."""
    rng = step_generator(state.settings.seed, state.step)
    real, class_weights = source.draw(state.settings.batch, rng)
    judged = discriminator_step(state, real, class_weights, rng)
    made = generator_step(state, class_weights, rng)
    state.step += 1
    state.update_average()
    return {**judged, **made, **state.figures, "p": state.ada.p, "r_t": state.ada.r_t}


def discriminator_step(
    state: GanState, real: Tensor, class_weights: Tensor | None, rng: torch.Generator
) -> dict[str, float]:
    """real [N, 3, R, R] in [-1, 1], class_weights [N, K] if conditional."""
    settings, critic = state.settings, _critic(state, class_weights)
    with torch.no_grad():
        fake = sample(state, class_weights, rng)
        pipe = AugmentPipe(settings.augment)
        real, fake = (pipe(images, state.ada.p, rng) for images in (real, fake))
    with _arithmetic(state):
        real_logits, fake_logits = critic(real), critic(fake)  # [N]
    loss = discriminator_loss(settings.objective, real_logits, fake_logits)
    total = loss
    if settings.penalty_weight:
        mix = torch.rand(real.shape[0], generator=rng)
        penalty = gradient_penalty(critic, real, fake, mix)
        total = loss + settings.penalty_weight * penalty
        state.figures["gradient_penalty"] = penalty.item()
    _descend(total, state.discriminator_optimizer)
    if settings.gamma and state.step % settings.r1_interval == 0:
        penalty = r1_penalty(critic, real, settings.gamma)
        _descend(penalty * settings.r1_interval, state.discriminator_optimizer)
        state.figures["r1"] = penalty.item()
    state.ada.observe(real_logits - _boundary(state, real_logits, fake_logits))
    return {
        "loss_d": loss.item(),
        "real_logit": real_logits.mean().item(),
        "fake_logit": fake_logits.mean().item(),
    }


def generator_step(
    state: GanState, class_weights: Tensor | None, rng: torch.Generator
) -> dict[str, float]:
    """The discriminator stays as it is; class_weights [N, K] if conditional."""
    settings = state.settings
    state.discriminator.requires_grad_(False)
    fake = sample(state, class_weights, rng, track=True)
    fake = AugmentPipe(settings.augment)(fake, state.ada.p, rng)
    with _arithmetic(state):
        logits = _critic(state, class_weights)(fake)
    loss = generator_loss(settings.objective, logits)
    _descend(loss, state.generator_optimizer)
    state.discriminator.requires_grad_(True)
    if settings.path_length and state.step % settings.path_interval == 0:
        _regularise_paths(state, class_weights, rng)
    return {"loss_g": loss.item()}


def sample(
    state: GanState, class_weights: Tensor | None, rng: torch.Generator, *, track: bool = False
) -> Tensor:
    """A batch of the generator's images float32 [N, 3, R, R]; `track` moves its average latent."""
    w_plus = mixed_latents(
        state.generator, state.settings.batch, class_weights, state.settings.mixing, rng
    )
    if track:
        w_avg = state.generator.mapping.w_avg
        w_avg.lerp_(w_plus[:, 0].detach().mean(dim=0), 1 - _W_AVG_DECAY)
    with _arithmetic(state):
        images: Tensor = state.generator.synthesis(w_plus)
    return images.float()


def mixed_latents(
    generator: Generator,
    count: int,
    class_weights: Tensor | None,
    mixing: float,
    rng: torch.Generator,
) -> Tensor:
    """W+ [N, L, w_dim] of random z; a share `mixing` takes its later layers from a second z."""
    num_ws = generator.config.num_ws
    z = torch.randn(2, count, generator.config.z_dim, generator=rng)
    psi = torch.ones(count)
    first: Tensor = generator.mapping(z[0], psi, class_weights)  # [N, w_dim]
    if not mixing:
        return first[:, None].expand(-1, num_ws, -1)
    second = generator.mapping(z[1], psi, class_weights)
    crossover = torch.randint(1, num_ws, (count,), generator=rng)
    mixed = torch.rand(count, generator=rng) < mixing
    crossover = torch.where(mixed, crossover, num_ws)
    later = torch.arange(num_ws) >= crossover[:, None]  # [N, L]
    return torch.where(later[:, :, None], second[:, None], first[:, None])


def _regularise_paths(state: GanState, class_weights: Tensor | None, rng: torch.Generator) -> None:
    """Path-length regularisation on half a batch, in float32."""
    settings = state.settings
    count = max(1, settings.batch // 2)
    classes = None if class_weights is None else class_weights[:count]
    w_plus = mixed_latents(state.generator, count, classes, settings.mixing, rng)
    images = state.generator.synthesis(w_plus)
    lengths = path_lengths(images, w_plus, torch.randn(images.shape, generator=rng))
    penalty, state.path_mean = path_length_penalty(lengths, state.path_mean)
    weight = settings.path_length * settings.path_interval
    _descend(penalty * weight, state.generator_optimizer)
    state.figures["path_length"] = lengths.mean().item()


def _critic(state: GanState, class_weights: Tensor | None) -> Callable[[Tensor], Tensor]:
    def judge(images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        logits: Tensor = state.discriminator(images, class_weights)
        return logits

    return judge


def _boundary(state: GanState, real: Tensor, fake: Tensor) -> Tensor:
    """Logit between what counts as real and as fake; Wasserstein critics have no fixed zero."""
    if state.settings.objective == "wasserstein":
        return (real.detach().mean() + fake.detach().mean()) / 2
    return torch.zeros([])


def _arithmetic(state: GanState) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=state.settings.bf16)


def _descend(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    if not torch.isfinite(loss):
        raise FloatingPointError(
            "the loss is not finite; resume from the last checkpoint with a lower learning rate "
            "or a larger r1_gamma, in a folder of its own"
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
