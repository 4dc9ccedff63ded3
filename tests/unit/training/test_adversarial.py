"""The stage against a discriminator: its pull keeps its share, and the critic resumes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from velatura.training.generator.adversarial import AdversarialSettings, Critic, adversarial_pull

SETTINGS = AdversarialSettings(resolution=32, compile=False)


@pytest.fixture
def critic(tmp_path: Path) -> Critic:
    torch.manual_seed(0)
    return Critic(SETTINGS, tmp_path)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_the_pull_has_its_share_of_the_reconstructions_gradient(
    critic: Critic, size: float
) -> None:
    made = torch.rand(4, 3, 32, 32).requires_grad_(True)
    reconstruction = (made - 0.5).abs().mean() * size
    pull = adversarial_pull(critic, made, reconstruction, 0.4)
    (wanted,) = torch.autograd.grad(reconstruction, made, retain_graph=True)
    (gradient,) = torch.autograd.grad(pull, made)
    assert float(gradient.norm() / wanted.norm()) == pytest.approx(0.4, rel=1e-4)
    # It points where the critic takes the pictures for more real.
    step = made.detach() - gradient * (1e-2 / gradient.abs().max())
    with torch.no_grad():
        assert critic.judge(step).mean() > critic.judge(made).mean()


def test_the_pull_reaches_the_pictures_alone(critic: Critic) -> None:
    made = torch.rand(2, 3, 32, 32).requires_grad_(True)
    adversarial_pull(critic, made, made.square().mean(), 0.4).backward()  # type: ignore[no-untyped-call]
    assert made.grad is not None
    assert all(p.grad is None for p in critic.network.parameters())


def test_the_critic_learns_to_tell_and_resumes(critic: Critic, tmp_path: Path) -> None:
    real, fake = torch.ones(4, 3, 32, 32) * 0.5, -torch.ones(4, 3, 32, 32) * 0.5
    first = critic.learn(real, fake)
    for _ in range(12):
        last = critic.learn(real, fake)
    assert last < first
    critic.save()
    again = Critic(SETTINGS, tmp_path)
    assert again.step == 13
    assert again.learn(real, fake) == critic.learn(real, fake)
