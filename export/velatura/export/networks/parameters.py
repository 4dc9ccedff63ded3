"""Parameters that are not trained."""

from __future__ import annotations

from torch import Tensor, nn


def fixed(value: Tensor) -> nn.Parameter:
    """Still a parameter of the network, and not trained any more."""
    return nn.Parameter(value.detach().clone(), requires_grad=False)
