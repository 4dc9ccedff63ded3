"""The generator that is kept: a moving average of the weights with batch norm's own statistics."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from velatura.export.networks.biggan import ClassGenerator, baked

Latents = Callable[[], tuple[Tensor, Tensor]]
"""Draws z [N, z_dim] and class_weights [N, C] of the distribution that will be sampled."""


@torch.no_grad()
def move_average(average: nn.Module, network: nn.Module, step: int, decay: float) -> None:
    """One step of the exponential average of weights and buffers; quicker while `step` is small."""
    decay = min(decay, (1 + step) / (10 + step))
    own = average.state_dict()
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            own[name].lerp_(value, 1 - decay)
        else:
            own[name].copy_(value)


@torch.no_grad()
def standing_statistics(average: ClassGenerator, latents: Latents, batches: int) -> ClassGenerator:
    """A copy in eval mode, its weights baked, its batch norms' statistics taken anew over
    `batches` (Brock et al. 2018, appendix D)."""
    network = ClassGenerator(average.config).train()
    network.load_state_dict(average.state_dict())
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over all batches
    for _ in range(batches):
        network(*latents())
    return baked(network)
