"""Writes files in the layout of pytorch-AdaIN: two Sequentials of convolutions."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

State = OrderedDict[str, Tensor]
# vgg_normalised.pth: number of each convolution, inputs, outputs (an eighth of the published).
VGG = [
    (0, 3, 3), (2, 3, 8), (5, 8, 8), (9, 8, 16), (12, 16, 16), (16, 16, 32), (19, 32, 32),
    (22, 32, 32), (25, 32, 32), (29, 32, 64), (32, 64, 64), (35, 64, 64), (38, 64, 64),
    (42, 64, 64), (45, 64, 64), (48, 64, 64), (51, 64, 64),
]  # fmt: skip
DECODER = [
    (1, 64, 32), (5, 32, 32), (8, 32, 32), (11, 32, 32), (14, 32, 16), (18, 16, 16), (21, 16, 8),
    (25, 8, 8), (28, 8, 3),
]  # fmt: skip


def sequential(layers: list[tuple[int, int, int]]) -> State:
    """The state dict of a Sequential with convolutions at these places."""
    state: State = OrderedDict()
    for place, inputs, outputs in layers:
        kernel = 1 if place == 0 else 3
        bound = (2 / (inputs * kernel**2)) ** 0.5
        state[f"{place}.weight"] = torch.randn(outputs, inputs, kernel, kernel) * bound
        state[f"{place}.bias"] = torch.randn(outputs) * 0.1
    return state


def write(folder: Path) -> tuple[Path, Path]:
    """vgg_normalised.pth and decoder.pth with random weights, as torch.save did in 2017."""
    torch.manual_seed(0)
    paths = folder / "vgg_normalised.pth", folder / "decoder.pth"
    for path, layers in zip(paths, (VGG, DECODER), strict=True):
        torch.save(sequential(layers), path, _use_new_zipfile_serialization=False)
    return paths
