"""Parameters and operations of a network."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from velatura.export.specification import NetworkSpec


def count_parameters(module: nn.Module) -> int:
    """Learned numbers; buffers such as fixed noise do not count."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_flops(spec: NetworkSpec) -> int:
    """Floating-point operations of what is traced, for one item; a multiplication and an addition
    are two."""
    inputs = spec.sample(1, spec.counted_at)
    # Gradients stay on: the counter hooks into their bookkeeping.
    with FlopCounterMode(display=False) as counter:
        (spec.traced or spec.module)(*(torch.from_numpy(inputs[port.name]) for port in spec.inputs))
    return int(counter.get_total_flops())
