"""Objectives against numpy's float64, penalties against closed forms and finite differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from velatura.training.gan.discriminator import Discriminator, DiscriminatorConfig
from velatura.training.gan.losses import (
    OBJECTIVES,
    Objective,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    path_length_penalty,
    path_lengths,
    r1_penalty,
)

RNG = np.random.default_rng(3)
REAL, FAKE = RNG.normal(size=7) * 4, RNG.normal(size=7) * 4


def softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, x)


EXPECTED_D = {
    "nonsaturating": softplus(-REAL).mean() + softplus(FAKE).mean(),
    "hinge": np.maximum(0, 1 - REAL).mean() + np.maximum(0, 1 + FAKE).mean(),
    "wasserstein": FAKE.mean() - REAL.mean(),
}
EXPECTED_G = {
    "nonsaturating": softplus(-FAKE).mean(),
    "hinge": -FAKE.mean(),
    "wasserstein": -FAKE.mean(),
}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objectives_match_their_formulas(objective: Objective) -> None:
    real, fake = torch.from_numpy(REAL), torch.from_numpy(FAKE)
    assert discriminator_loss(objective, real, fake).item() == pytest.approx(
        EXPECTED_D[objective], rel=1e-12
    )
    assert generator_loss(objective, fake).item() == pytest.approx(EXPECTED_G[objective], rel=1e-12)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_two_networks_pull_the_logits_of_fakes_apart(objective: Objective) -> None:
    real, fake = torch.zeros(3), torch.zeros(3, requires_grad=True)
    (down,) = torch.autograd.grad(discriminator_loss(objective, real, fake), fake)
    (up,) = torch.autograd.grad(generator_loss(objective, fake), fake)
    assert (down > 0).all()
    assert (up < 0).all()


def test_large_logits_stay_finite() -> None:
    huge = torch.tensor([1e4, -1e4])
    assert torch.isfinite(discriminator_loss("nonsaturating", huge, huge))
    assert torch.isfinite(generator_loss("nonsaturating", huge))


def test_an_unknown_objective_is_named() -> None:
    with pytest.raises(ValueError, match="objective: 'lsgan'; choose one of nonsaturating"):
        discriminator_loss("lsgan", torch.zeros(1), torch.zeros(1))  # type: ignore[arg-type]


def linear_critic() -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    weight = torch.from_numpy(RNG.normal(size=(3, 4, 4)))
    return weight, lambda images: (images * weight).sum(dim=(1, 2, 3))


def test_r1_of_a_linear_critic_is_the_square_of_its_weights() -> None:
    weight, critic = linear_critic()
    images = torch.from_numpy(RNG.normal(size=(5, 3, 4, 4)))
    expected = 10 / 2 * weight.square().sum().item()
    assert r1_penalty(critic, images, gamma=10.0).item() == pytest.approx(expected, rel=1e-12)


def test_gradient_penalty_of_a_linear_critic() -> None:
    weight, critic = linear_critic()
    real, fake = torch.from_numpy(RNG.normal(size=(2, 5, 3, 4, 4)))
    expected = (weight.square().sum().sqrt().item() - 1) ** 2
    found = gradient_penalty(critic, real, fake, torch.rand(5, dtype=torch.float64))
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_gradient_penalty_is_taken_between_the_images() -> None:
    """D(x) = ‖x‖²/2 has the gradient x, so the penalty tells where it was taken."""
    real, fake = torch.full((1, 3, 1, 1), 2.0), torch.full((1, 3, 1, 1), -4.0)

    def critic(images: Tensor) -> Tensor:
        return images.square().sum(dim=(1, 2, 3)) / 2

    found = gradient_penalty(critic, real, fake, torch.tensor([0.75]))
    at = 0.75 * 2.0 + 0.25 * -4.0
    assert found.item() == pytest.approx((abs(at) * 3**0.5 - 1) ** 2, rel=1e-6)


class SmoothCritic(nn.Module):
    """Infinitely differentiable, so that finite differences converge."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, dtype=torch.float64)
        self.out = nn.Linear(4, 1, dtype=torch.float64)

    def forward(self, images: Tensor) -> Tensor:
        features = torch.tanh(self.conv(images)).mean(dim=(2, 3))
        logits: Tensor = self.out(features.square())[:, 0]
        return logits


def r1_of(critic: nn.Module, real: Tensor, _fake: Tensor) -> Tensor:
    return r1_penalty(critic, real, gamma=3.0)


def gp_of(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    return gradient_penalty(critic, real, fake, torch.tensor([0.2, 0.9], dtype=torch.float64))


def assert_finite_differences(
    network: nn.Module, loss_of: Callable[[], Tensor], samples: int, delta: float, rel: float
) -> None:
    """Autograd's derivative of the loss by the parameters, against central differences."""
    parameters = list(network.parameters())
    found = torch.autograd.grad(loss_of(), parameters, allow_unused=True)
    rng = torch.Generator().manual_seed(1)
    for parameter, gradient in zip(parameters, found, strict=True):
        flat = parameter.data.view(-1)
        for index in torch.randint(flat.numel(), (samples,), generator=rng).tolist():
            before = flat[index].item()
            ends = []
            for sign in (1, -1):
                flat[index] = before + sign * delta
                ends.append(loss_of().item())
            flat[index] = before
            expected = (ends[0] - ends[1]) / (2 * delta)
            got = 0.0 if gradient is None else gradient.reshape(-1)[index].item()
            assert got == pytest.approx(expected, rel=rel, abs=1e-9)


@pytest.mark.parametrize("penalty", [r1_of, gp_of])
def test_penalties_agree_with_finite_differences(
    penalty: Callable[[nn.Module, Tensor, Tensor], Tensor],
) -> None:
    """Value: ∇D by differences of D; gradient: the penalty's own derivative by the parameters."""
    torch.manual_seed(0)
    critic = SmoothCritic()
    real, fake = torch.randn(2, 2, 3, 5, 5, dtype=torch.float64)
    at = real
    if penalty is gp_of:
        mix = torch.tensor([0.2, 0.9], dtype=torch.float64).view(2, 1, 1, 1)
        at = mix * real + (1 - mix) * fake
    slope = numeric_gradient(critic, at)  # [2, 75]
    expected = (
        1.5 * slope.square().sum(dim=1).mean()
        if penalty is r1_of
        else (slope.norm(dim=1) - 1).square().mean()
    )
    torch.testing.assert_close(
        penalty(critic, real, fake).detach(), expected, rtol=1e-7, atol=1e-10
    )
    assert_finite_differences(critic, lambda: penalty(critic, real, fake), 6, 1e-5, 1e-6)


@torch.no_grad()
def numeric_gradient(critic: nn.Module, images: Tensor, delta: float = 1e-5) -> Tensor:
    """Central differences of each image's logit by each of its samples: [N, C·H·W]."""
    count, numel = images.shape[0], images[0].numel()
    steps = torch.eye(numel, dtype=images.dtype).view(numel, 1, *images.shape[1:]) * delta
    up, down = (critic((images + s * steps).flatten(0, 1)) for s in (1, -1))
    return ((up - down) / (2 * delta)).view(numel, count).t()


@pytest.mark.parametrize("penalty", [r1_of, gp_of])
def test_the_real_discriminator_can_be_differentiated_twice(
    penalty: Callable[[nn.Module, Tensor, Tensor], Tensor],
) -> None:
    """Piecewise linear: a tiny step stays, almost surely, on one piece."""
    torch.manual_seed(0)
    widths = {4: 4, 8: 4, 16: 3, 32: 3}
    critic = Discriminator(DiscriminatorConfig(32, widths)).double()
    real, fake = torch.randn(2, 2, 3, 32, 32, dtype=torch.float64)
    assert_finite_differences(critic, lambda: penalty(critic, real, fake), 2, 1e-6, 2e-4)


def test_path_lengths_of_a_linear_generator() -> None:
    """G(w) = Σ_l A_l w_l: the lengths are √(mean_l ‖A_lᵀ y‖²)/√(HW)."""
    matrices = torch.from_numpy(RNG.normal(size=(2, 5, 3 * 16)))  # [L, D, 3·H·W]
    w_plus = torch.from_numpy(RNG.normal(size=(4, 2, 5))).requires_grad_(True)
    images = torch.einsum("nld,ldp->np", w_plus, matrices).view(4, 3, 4, 4)
    noise = torch.from_numpy(RNG.normal(size=(4, 3, 4, 4)))
    projected = np.einsum("ldp,np->nld", matrices.numpy(), noise.numpy().reshape(4, -1)) / 4
    expected = np.sqrt((projected**2).sum(axis=2).mean(axis=1))
    found = path_lengths(images, w_plus, noise)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-12)


def test_path_length_penalty_is_about_the_running_mean() -> None:
    lengths = torch.tensor([1.0, 3.0], requires_grad=True)
    penalty, mean = path_length_penalty(lengths, torch.tensor(1.0), decay=0.5)
    assert mean.item() == 1.5
    assert penalty.item() == pytest.approx((0.25 + 2.25) / 2)
    assert not mean.requires_grad
