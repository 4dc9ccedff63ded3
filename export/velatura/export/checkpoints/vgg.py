"""torchvision's VGG 11 to 19, with or without batch norm (`features.{i}.…`) → feature maps."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from velatura.export.checkpoints.plain_tensors import fill
from velatura.export.errors import CheckpointError
from velatura.export.networks.features import VggFeatures, VggLayer

_CONVOLUTION = re.compile(r"features\.(\d+)\.weight")
# The last one is Gatys' content layer; the others are his and most others' style layers.
_WANTED = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1", "relu4_2")


def is_vgg(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are this format's."""
    return "features.0.weight" in state


def vgg_of(state: Mapping[str, Tensor]) -> VggFeatures:
    """In eval mode, without the classifier and the layers after the last wanted one.

    Raises CheckpointError naming the tensor that is missing, left over or does not fit.
    """
    plan = _plan(state)
    wanted = [name for name in _WANTED if any(layer.name == name for layer in plan)]
    end = max(i for i, layer in enumerate(plan) if layer.name in wanted)
    unused = tuple(
        f"features.{position}."
        for layer in plan[end + 1 :]
        for position in (layer.position, layer.position + 1)
    )
    kept = {n: t for n, t in state.items() if not n.startswith(("classifier.", *unused))}
    with torch.device("meta"):
        network = VggFeatures(plan[: end + 1], wanted)
    fill(network, kept, "torchvision's VGG")
    return network


def _plan(state: Mapping[str, Tensor]) -> list[VggLayer]:
    """The convolutions in order: gaps between their numbers tell where a pooling lies."""
    convolutions = {
        int(m[1]): t.shape[0]
        for name, t in state.items()
        if (m := _CONVOLUTION.fullmatch(name)) and t.ndim == 4
    }
    norms = {i for i in convolutions if f"features.{i + 1}.running_mean" in state}
    positions = sorted(convolutions)
    if not positions or positions[0] != 0:
        raise CheckpointError("has no convolution features.0.weight")
    plan: list[VggLayer] = []
    stage, place = 1, 1
    for position, following in zip(positions, [*positions[1:], None], strict=True):
        taken = 3 if position in norms else 2  # convolution, batch norm, ReLU
        gap = taken + 1 if following is None else following - position
        if gap not in (taken, taken + 1):
            raise CheckpointError(
                f"between features.{position} and features.{following} there is more than a ReLU "
                "and a pooling; is it torchvision's VGG?"
            )
        pool = gap > taken
        name = f"relu{stage}_{place}"
        plan.append(VggLayer(position, name, convolutions[position], position in norms, pool))
        stage, place = (stage + 1, 1) if pool else (stage, place + 1)
    return plan
