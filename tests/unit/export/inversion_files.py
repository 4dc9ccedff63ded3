"""Writes files in the layout of pSp, e4e and ReStyle, and says in float64 what they compute.

Names, shapes and nesting are those of the official training scripts; the widths are small. The
formulas are written out from the papers, apart from the networks under test.
"""

from __future__ import annotations

import argparse
import math
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import rosinality_files
from .rosinality_files import W_DIM, State

NUM_WS = 8  # of rosinality_files' 32 px
PYRAMID = ("GradualStyleEncoder", "Encoder4Editing", "ResNetGradualStyleEncoder")
DELTAS = ("Encoder4Editing", "ProgressiveBackboneEncoder", "ResNetProgressiveBackboneEncoder")


@dataclass(frozen=True)
class Shape:
    """The official ones are widths 64 to 512 and (3, 4, 14, 3) units, for ResNet (3, 4, 6, 3)."""

    widths: tuple[int, ...] = (16, 32, 48, 64)
    units: tuple[int, ...] = (1, 2, 1, 1)
    num_ws: int = NUM_WS
    w_dim: int = W_DIM


def build(encoder_type: str, channels: int = 3, shape: Shape | None = None, seed: int = 0) -> State:
    """The encoder's state dict, in the order in which its modules register."""
    torch.manual_seed(seed)
    shape = shape or Shape()
    state: State = OrderedDict()
    resnet = encoder_type.startswith("ResNet")
    first = shape.widths[0]
    if resnet:
        state["conv1.weight"] = _weight(first, channels, 7)
        _norm(state, "bn1", first)
        state["relu.weight"] = torch.full((first,), 0.25) + torch.randn(first) * 0.05
    else:
        state["input_layer.0.weight"] = _weight(first, channels, 3)
        _norm(state, "input_layer.1", first)
        state["input_layer.2.weight"] = torch.full((first,), 0.25) + torch.randn(first) * 0.05
    inputs, index = first, 0
    for stage, (width, count) in enumerate(zip(shape.widths, shape.units, strict=True)):
        for i in range(count):
            unit = _basic if resnet else _improved
            halves = i == 0 and (stage > 0 or not resnet)
            unit(state, f"body.{index}", inputs, width, halves)
            inputs, index = width, index + 1
    for i in range(shape.num_ws):
        size = 16 if encoder_type not in PYRAMID or i < 3 else 32 if i < 7 else 64
        for j in range(int(math.log2(size))):
            source = inputs if j == 0 else shape.w_dim
            state[f"styles.{i}.convs.{2 * j}.weight"] = _weight(shape.w_dim, source, 3)
            state[f"styles.{i}.convs.{2 * j}.bias"] = torch.randn(shape.w_dim) * 0.1
        state[f"styles.{i}.linear.weight"] = torch.randn(shape.w_dim, shape.w_dim)
        state[f"styles.{i}.linear.bias"] = torch.randn(shape.w_dim) * 0.1
    if encoder_type in PYRAMID:
        for name, source in (("latlayer1", shape.widths[2]), ("latlayer2", shape.widths[1])):
            state[f"{name}.weight"] = _weight(inputs, source, 1)
            state[f"{name}.bias"] = torch.randn(inputs) * 0.1
    return state


def _weight(outputs: int, inputs: int, kernel: int) -> Tensor:
    return torch.randn(outputs, inputs, kernel, kernel) / math.sqrt(inputs * kernel**2)


def _norm(state: State, name: str, channels: int) -> None:
    state[f"{name}.weight"] = 0.5 + torch.rand(channels)
    state[f"{name}.bias"] = torch.randn(channels) * 0.1
    state[f"{name}.running_mean"] = torch.randn(channels) * 0.1
    state[f"{name}.running_var"] = 0.5 + torch.rand(channels)
    state[f"{name}.num_batches_tracked"] = torch.tensor(1000)


def _improved(state: State, name: str, inputs: int, width: int, _halves: bool) -> None:
    if inputs != width:
        state[f"{name}.shortcut_layer.0.weight"] = _weight(width, inputs, 1)
        _norm(state, f"{name}.shortcut_layer.1", width)
    _norm(state, f"{name}.res_layer.0", inputs)
    state[f"{name}.res_layer.1.weight"] = _weight(width, inputs, 3)
    state[f"{name}.res_layer.2.weight"] = torch.full((width,), 0.25) + torch.randn(width) * 0.05
    state[f"{name}.res_layer.3.weight"] = _weight(width, width, 3)
    _norm(state, f"{name}.res_layer.4", width)
    state[f"{name}.res_layer.5.fc1.weight"] = _weight(width // 16, width, 1)
    state[f"{name}.res_layer.5.fc2.weight"] = _weight(width, width // 16, 1)


def _basic(state: State, name: str, inputs: int, width: int, halves: bool) -> None:
    state[f"{name}.conv1.weight"] = _weight(width, inputs, 3)
    _norm(state, f"{name}.bn1", width)
    state[f"{name}.conv2.weight"] = _weight(width, width, 3)
    _norm(state, f"{name}.bn2", width)
    if halves:
        state[f"{name}.downsample.0.weight"] = _weight(width, inputs, 1)
        _norm(state, f"{name}.downsample.1", width)


def write(
    path: Path,
    encoder: State,
    encoder_type: str,
    *,
    decoder: State | None = None,
    latent_avg: Tensor | None = None,
    modern: bool = True,
    namespace: bool = False,
    **options: Any,
) -> Path:
    """One file with both networks, as the training scripts save it."""
    decoder = rosinality_files.build() if decoder is None else decoder
    chosen = {
        "encoder_type": encoder_type,
        "dataset_type": "ffhq_encode",
        "device": "cuda:0",
        "start_from_latent_avg": True,
        "learning_rate": 0.0001,
        "optim_name": "ranger",
        "progressive_steps": None,
        **options,
    }
    contents: dict[str, Any] = {
        "state_dict": OrderedDict(
            [(f"encoder.{name}", tensor) for name, tensor in encoder.items()]
            + [(f"decoder.{name}", tensor) for name, tensor in decoder.items()]
        ),
        "opts": argparse.Namespace(**chosen) if namespace else chosen,
    }
    if latent_avg is not None:
        contents["latent_avg"] = latent_avg
    torch.save(contents, path, _use_new_zipfile_serialization=modern)
    return path


def average(num_ws: int = NUM_WS, seed: int = 3) -> Tensor:
    """[num_ws, W_DIM], the same row for each layer, as the scripts make it."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(1, W_DIM, generator=rng).repeat(num_ws, 1)


def expected(state: State, encoder_type: str, image: Tensor) -> Tensor:
    """[N, num_ws, w_dim] of images [N, C, 256, 256], in float64."""
    s = {name: tensor.double() for name, tensor in state.items()}
    resnet = encoder_type.startswith("ResNet")
    x = image.double()
    if resnet:
        x = F.conv2d(x, s["conv1.weight"], stride=2, padding=3)
        x = _prelu(_normed(s, "bn1", x), s["relu.weight"])
    else:
        x = F.conv2d(x, s["input_layer.0.weight"], padding=1)
        x = _prelu(_normed(s, "input_layer.1", x), s["input_layer.2.weight"])
    by_size: dict[int, Tensor] = {}
    index = 0
    while any(name.startswith(f"body.{index}.") for name in s):
        unit = _basic_unit if resnet else _improved_unit
        x = unit(s, f"body.{index}", x, first=index == 0)
        by_size[x.shape[-1]] = x  # the last map of each size stays
        index += 1
    coarse = by_size[16]
    maps = [coarse] * 99
    if encoder_type in PYRAMID:
        middle = _lateral(s, "latlayer1", by_size[32]) + _stretched(coarse)
        fine = _lateral(s, "latlayer2", by_size[64]) + _stretched(middle)
        maps = [coarse] * 3 + [middle] * 4 + [fine] * 99
    latents: list[Tensor] = []
    while f"styles.{len(latents)}.linear.weight" in s:
        name = f"styles.{len(latents)}"
        y, j = maps[len(latents)], 0
        while f"{name}.convs.{j}.weight" in s:
            y = F.conv2d(y, s[f"{name}.convs.{j}.weight"], s[f"{name}.convs.{j}.bias"], 2, 1)
            y, j = torch.where(y >= 0, y, 0.01 * y), j + 2
        weight = s[f"{name}.linear.weight"]
        y = y[:, :, 0, 0] @ weight.T / math.sqrt(weight.shape[1]) + s[f"{name}.linear.bias"]
        latents.append(y + latents[0] if latents and encoder_type in DELTAS else y)
    return torch.stack(latents, dim=1)


def _normed(s: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    scale = s[f"{name}.weight"] / (s[f"{name}.running_var"] + 1e-5).sqrt()
    shift = s[f"{name}.bias"] - s[f"{name}.running_mean"] * scale
    return x * scale[:, None, None] + shift[:, None, None]


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x >= 0, x, x * slope[:, None, None])


def _improved_unit(s: dict[str, Tensor], name: str, x: Tensor, *, first: bool) -> Tensor:
    wider = f"{name}.shortcut_layer.0.weight" in s
    stride = 2 if wider or first else 1
    shortcut = x[:, :, ::stride, ::stride]
    if wider:
        shortcut = F.conv2d(shortcut, s[f"{name}.shortcut_layer.0.weight"])
        shortcut = _normed(s, f"{name}.shortcut_layer.1", shortcut)
    y = F.conv2d(_normed(s, f"{name}.res_layer.0", x), s[f"{name}.res_layer.1.weight"], padding=1)
    y = _prelu(y, s[f"{name}.res_layer.2.weight"])
    y = F.conv2d(y, s[f"{name}.res_layer.3.weight"], stride=stride, padding=1)
    y = _normed(s, f"{name}.res_layer.4", y)
    gate = y.flatten(2).mean(dim=2)  # [N, C]
    gate = (gate @ s[f"{name}.res_layer.5.fc1.weight"][:, :, 0, 0].T).clamp(min=0)
    gate = 1 / (1 + torch.exp(-gate @ s[f"{name}.res_layer.5.fc2.weight"][:, :, 0, 0].T))
    return y * gate[:, :, None, None] + shortcut


def _basic_unit(s: dict[str, Tensor], name: str, x: Tensor, *, first: bool) -> Tensor:
    wider = f"{name}.downsample.0.weight" in s
    stride = 2 if wider else 1
    shortcut = x
    if wider:
        shortcut = F.conv2d(x[:, :, ::2, ::2], s[f"{name}.downsample.0.weight"])
        shortcut = _normed(s, f"{name}.downsample.1", shortcut)
    y = F.conv2d(x, s[f"{name}.conv1.weight"], stride=stride, padding=1)
    y = _normed(s, f"{name}.bn1", y).clamp(min=0)
    y = _normed(s, f"{name}.bn2", F.conv2d(y, s[f"{name}.conv2.weight"], padding=1))
    return (y + shortcut).clamp(min=0)


def _lateral(s: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.conv2d(x, s[f"{name}.weight"], s[f"{name}.bias"])


def _stretched(x: Tensor) -> Tensor:
    """Twice the size, bilinear with the corners' samples on each other: a matrix for each axis."""
    source = x.shape[-1]
    at = torch.arange(2 * source, dtype=x.dtype) * (source - 1) / (2 * source - 1)
    low = at.floor().long().clamp(max=source - 2)
    matrix = torch.zeros(2 * source, source, dtype=x.dtype)
    rows = torch.arange(2 * source)
    matrix[rows, low] = 1 - (at - low)
    matrix[rows, low + 1] += at - low
    return matrix @ x @ matrix.T
