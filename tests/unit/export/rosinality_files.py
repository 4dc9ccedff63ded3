"""Writes files in the layout of rosinality's stylegan2-pytorch: names, shapes, nesting."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import stylegan2_reference as reference

W_DIM, DEPTH = 8, 3
CHANNELS = {4: 6, 8: 5, 16: 4, 32: 3}
State = OrderedDict[str, Tensor]


def build(seed: int = 0, *, noises: bool = True) -> State:
    """The generator's state dict, in the order in which its modules register."""
    torch.manual_seed(seed)
    state: State = OrderedDict()
    for i in range(1, DEPTH + 1):
        state[f"style.{i}.weight"] = torch.randn(W_DIM, W_DIM) / 0.01
        state[f"style.{i}.bias"] = torch.randn(W_DIM) * 10
    state["input.input"] = torch.randn(1, CHANNELS[4], 4, 4)
    _styled(state, "conv1", CHANNELS[4], CHANNELS[4], up=False)
    _to_rgb(state, "to_rgb1", CHANNELS[4], up=False)
    resolutions = list(CHANNELS)[1:]
    for i, r in enumerate(resolutions):
        _styled(state, f"convs.{2 * i}", CHANNELS[r // 2], CHANNELS[r], up=True)
        _styled(state, f"convs.{2 * i + 1}", CHANNELS[r], CHANNELS[r], up=False)
    for i, r in enumerate(resolutions):
        _to_rgb(state, f"to_rgbs.{i}", CHANNELS[r], up=True)
    for i in range(2 * len(resolutions) + 1 if noises else 0):
        size = 2 ** ((i + 5) // 2)
        state[f"noises.noise_{i}"] = torch.randn(1, 1, size, size)
    return state


def _kernel() -> Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = taps[None, :] * taps[:, None]
    return kernel / kernel.sum() * 4


def _modulation(state: State, name: str, inputs: int) -> None:
    state[f"{name}.conv.modulation.weight"] = torch.randn(inputs, W_DIM)
    state[f"{name}.conv.modulation.bias"] = torch.ones(inputs) + torch.randn(inputs) * 0.1


def _styled(state: State, name: str, inputs: int, outputs: int, *, up: bool) -> None:
    state[f"{name}.conv.weight"] = torch.randn(1, outputs, inputs, 3, 3)
    if up:
        state[f"{name}.conv.blur.kernel"] = _kernel()
    _modulation(state, name, inputs)
    state[f"{name}.noise.weight"] = torch.randn(1) * 0.3
    state[f"{name}.activate.bias"] = torch.randn(outputs) * 0.1


def _to_rgb(state: State, name: str, inputs: int, *, up: bool) -> None:
    state[f"{name}.bias"] = torch.randn(1, 3, 1, 1) * 0.1
    if up:
        state[f"{name}.upsample.kernel"] = _kernel()
    state[f"{name}.conv.weight"] = torch.randn(1, 3, inputs, 1, 1)
    _modulation(state, name, inputs)


def write(path: Path, state: State, *, modern: bool = True, **entries: Any) -> Path:
    """A converted checkpoint: `g_ema`, perhaps `latent_avg`, in either form of torch.save."""
    torch.save({"g_ema": state, **entries}, path, _use_new_zipfile_serialization=modern)
    return path


def training_entries(state: State) -> dict[str, Any]:
    """What the training script keeps beside: the trained networks, optimisers and options."""
    return {
        "g": state,
        "d": OrderedDict({"final_conv.0.weight": torch.zeros(2, 2)}),
        "g_optim": {
            "state": {0: {"step": torch.tensor(5.0), "exp_avg": torch.zeros(2)}},
            "param_groups": [{"lr": 0.0016, "betas": (0.0, 0.99), "params": [0, 1]}],
        },
        "args": argparse.Namespace(path="data", size=32, lr=0.002, channel_multiplier=2),
        "ada_aug_p": 0.1,
    }


def expected(state: State, z: Tensor) -> tuple[Tensor, Tensor]:
    """w [N, W_DIM] and images by the formulas, in float64."""
    layers = [(state[f"style.{i}.weight"], state[f"style.{i}.bias"]) for i in range(1, DEPTH + 1)]
    w = reference.mapping(z, layers, 0.01)
    blocks = {}
    for i, r in enumerate(CHANNELS):
        first = i == 0
        blocks[r] = reference.Block(
            None if first else _conv(state, f"convs.{2 * i - 2}", 2 * i - 1),
            _conv(state, "conv1" if first else f"convs.{2 * i - 1}", 2 * i),
            _conv(state, "to_rgb1" if first else f"to_rgbs.{i - 1}", None),
        )
    rows = 2 * len(CHANNELS)
    images = [
        reference.synthesis(
            v.expand(rows, -1), state["input.input"][0], blocks, clamp=0, scaled=True
        )
        for v in w
    ]
    return w, torch.stack(images)


def _conv(state: State, name: str, noise: int | None) -> reference.Conv:
    rgb = noise is None
    kept = state.get(f"noises.noise_{noise}")
    return reference.Conv(
        state[f"{name}.conv.weight"][0],
        state[f"{name}.conv.modulation.weight"],
        state[f"{name}.conv.modulation.bias"],
        state[f"{name}.bias"].flatten() if rgb else state[f"{name}.activate.bias"],
        None if kept is None else kept[0, 0],
        0.0 if rgb else float(state[f"{name}.noise.weight"]),
    )
