"""Objectives of adversarial training and their regularisers, as pure functions.

Logits are [N], larger for real. The objectives are those of Goodfellow et al. 2014
(non-saturating), Lim and Ye 2017 (hinge, arXiv:1705.02894) and Arjovsky et al. 2017 (Wasserstein,
arXiv:1701.07875).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Objective = Literal["nonsaturating", "hinge", "wasserstein"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
Critic = Callable[[Tensor], Tensor]  # images [N, 3, R, R] → logits [N]


def discriminator_loss(objective: Objective, real: Tensor, fake: Tensor) -> Tensor:
    """What the discriminator minimises, a scalar, from its logits for real and generated images.

    nonsaturating: E softplus(−D(x)) + E softplus(D(G(z)));
    hinge: E max(0, 1 − D(x)) + E max(0, 1 + D(G(z))); wasserstein: E D(G(z)) − E D(x).
    """
    match objective:
        case "nonsaturating":
            return F.softplus(-real).mean() + F.softplus(fake).mean()
        case "hinge":
            return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        case "wasserstein":
            return fake.mean() - real.mean()
    raise _unknown(objective)


def generator_loss(objective: Objective, fake: Tensor) -> Tensor:
    """What the generator minimises: E softplus(−D(G(z))), or −E D(G(z)) for the other two."""
    match objective:
        case "nonsaturating":
            return F.softplus(-fake).mean()
        case "hinge" | "wasserstein":
            return -fake.mean()
    raise _unknown(objective)


def r1_penalty(critic: Critic, images: Tensor, gamma: float) -> Tensor:
    """γ/2 · E‖∇D(x)‖² at real images (Mescheder et al. 2018, arXiv:1801.04406); a scalar.

    Only the critic's parameters get a gradient; the images count as constants.
    """
    images = images.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(images).sum(), images, create_graph=True)
    penalty: Tensor = gradient.square().flatten(1).sum(dim=1).mean() * (gamma / 2)
    return penalty


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """E(‖∇D(x̂)‖₂ − 1)² at x̂ = mix·real + (1 − mix)·fake (Gulrajani et al. 2017, arXiv:1704.00028).

    `mix` [N] in [0, 1]. Returns a scalar, to be weighted by the caller (10 in the paper).
    """
    weight = mix.view(-1, 1, 1, 1)
    between = (weight * real + (1 - weight) * fake).detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty: Tensor = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    return penalty


def path_lengths(images: Tensor, w_plus: Tensor, noise: Tensor) -> Tensor:
    """‖Jᵀ y‖ [N] of the images' Jacobian J by the latents (Karras et al. 2020, section 3.2).

    images [N, 3, H, W] made from w_plus [N, L, D], which requires a gradient; noise like images,
    unit normal. The norm is taken over D and averaged (as a square) over the layers.
    """
    scaled = noise / math.sqrt(images.shape[2] * images.shape[3])
    (gradient,) = torch.autograd.grad((images * scaled).sum(), w_plus, create_graph=True)
    lengths: Tensor = gradient.square().sum(dim=2).mean(dim=1).sqrt()
    return lengths


def path_length_penalty(
    lengths: Tensor, mean: Tensor, decay: float = 0.01
) -> tuple[Tensor, Tensor]:
    """E(‖Jᵀ y‖ − a)² with a the running mean of the lengths; returns (penalty, the new a)."""
    new_mean = mean + decay * (lengths.detach().mean() - mean)
    return (lengths - new_mean).square().mean(), new_mean


def _unknown(objective: str) -> ValueError:
    return ValueError(f"objective: {objective!r}; choose one of {', '.join(OBJECTIVES)}")
