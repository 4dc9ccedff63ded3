"""The loaded network in float64: what the written graph is compared with beside torch in float32,
so that an error that both float32 runs share does not pass."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from velatura.export.specification import Computed, FloatArray, Port, Reference

NAME = "torch float64"


def float64_reference(
    module: nn.Module, inputs: tuple[Port, ...], outputs: tuple[Port, ...], tolerance: float
) -> Reference:
    """`module` computed in float64 at batch 1; it is copied while it runs and no longer."""

    def run(values: Mapping[str, FloatArray]) -> Computed:
        exact = copy.deepcopy(module).double()
        arguments = (torch.from_numpy(values[port.name]) for port in inputs)
        with torch.inference_mode():
            result = exact(*(t.double() if t.is_floating_point() else t for t in arguments))
        tensors: tuple[Tensor, ...] = (result,) if isinstance(result, Tensor) else tuple(result)
        return {port.name: np.asarray(t.numpy()) for port, t in zip(outputs, tensors, strict=True)}

    return Reference(NAME, run, tolerance)
