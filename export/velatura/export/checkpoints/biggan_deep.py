"""pytorch-pretrained-BigGAN (`pytorch_model.bin` with its `config.json`) → our implementation."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from velatura.export.checkpoints.plain_tensors import fill
from velatura.export.checkpoints.spectral import bake_stored
from velatura.export.errors import CheckpointError
from velatura.export.networks.biggan_deep import BigGanDeep, BigGanDeepConfig, BlockShape

_LAYER = re.compile(r"generator\.layers\.(\d+)\.")
_RENAMED = {
    ".scale.weight": ".gain.weight",
    ".offset.weight": ".bias.weight",
    ".snconv1x1_o_conv.": ".o.",
    ".snconv1x1_": ".",
    "generator.bn.weight": "generator.bn.gain",
}


def is_biggan_deep(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are this format's."""
    return "generator.gen_z.weight_orig" in state or "generator.gen_z.weight" in state


def biggan_deep_of(
    state: dict[str, Tensor], truncation: float, settings: Mapping[str, object]
) -> BigGanDeep:
    """In eval mode, divided by its spectral norm, with the batch norms' statistics for one
    truncation (0 to 1); classes are named by their numbers.

    Takes the tensors by name, and changes the dictionary, and `read_settings` of the file. Raises
    CheckpointError naming the tensor that is missing, left over or does not fit.
    """
    if not is_biggan_deep(state):
        raise CheckpointError("has no generator.gen_z; is it of pytorch-pretrained-BigGAN?")
    bake_stored(state)
    choose_statistics(state, truncation)
    for name in list(state):
        renamed = name
        for old, new in _RENAMED.items():
            renamed = renamed.replace(old, new)
        value = state.pop(name)
        state[renamed] = value.reshape([]) if renamed.endswith(".gamma") else value
    config = _config(state, settings)
    with torch.device("meta"):
        network = BigGanDeep(config)
    fill(network, state, "pytorch-pretrained-BigGAN's generator")
    return network


def choose_statistics(state: dict[str, Tensor], truncation: float) -> None:
    """Replace the rows of each norm, for truncations 0, 1/(rows - 1), … 1, by the one wanted.

    Between two rows they are mixed in proportion. (The project swaps the two shares there, so that
    a truncation just above a row's gets its neighbour; on the rows themselves both agree.)
    """
    if not 0 <= truncation <= 1:
        raise CheckpointError(f"the truncation is {truncation}, it must lie in 0 to 1")
    for name in [n for n in state if n.endswith((".running_means", ".running_vars"))]:
        rows = state.pop(name)
        if rows.ndim != 2 or len(rows) < 2:
            raise CheckpointError(f"{name} has shape {list(rows.shape)}, expected [rows, channels]")
        place = truncation * (len(rows) - 1)
        below = min(int(place + 1e-6), len(rows) - 2)
        chosen = torch.lerp(rows[below], rows[below + 1], place - below)
        kind = "mean" if name.endswith("means") else "var"
        state[f"{name.rpartition('.')[0]}.stored_{kind}"] = chosen.contiguous()


def _config(state: Mapping[str, Tensor], settings: Mapping[str, object]) -> BigGanDeepConfig:
    indices = sorted({int(m[1]) for name in state if (m := _LAYER.match(name))})
    if not indices or indices != list(range(len(indices))):
        raise CheckpointError(f"there are layers {indices}, expected 0, 1, …")
    ups = _ups(settings)
    layers: list[BlockShape | None] = []
    for index in indices:
        name = f"generator.layers.{index}"
        if f"{name}.theta.weight" in state:
            layers.append(None)
            continue
        first, last = (_kernel(state, f"{name}.conv_{i}.weight") for i in (0, 3))
        order = sum(layer is not None for layer in layers)
        # All published sizes alternate: a block that keeps the size, one that doubles it.
        up = ups[order] if order < len(ups) else order % 2 == 1
        layers.append(BlockShape(first[1], first[0], last[0], up))
    if not any(layers):
        raise CheckpointError("has no residual blocks")
    embedding, gen_z = (state.get(f"{n}.weight") for n in ("embeddings", "generator.gen_z"))
    if embedding is None or gen_z is None or embedding.ndim != 2 or gen_z.ndim != 2:
        raise CheckpointError("has no matrices embeddings.weight and generator.gen_z.weight")
    eps = settings.get("eps", 1e-4)
    return BigGanDeepConfig(
        classes=tuple(str(i) for i in range(embedding.shape[1])),
        z_dim=gen_z.shape[1] - embedding.shape[0],
        embedding_dim=embedding.shape[0],
        layers=tuple(layers),
        rgb_channels=_kernel(state, "generator.conv_to_rgb.weight")[0],
        eps=eps if isinstance(eps, float) else 1e-4,
    )


def _kernel(state: Mapping[str, Tensor], name: str) -> torch.Size:
    tensor = state.get(name)
    if tensor is None or tensor.ndim != 4:
        raise CheckpointError(f"has no convolution {name}")
    return tensor.shape


def _ups(settings: Mapping[str, object]) -> list[bool]:
    """Which blocks double the size, as config.json says; empty where it does not."""
    layers = settings.get("layers", [])
    match layers:
        case list() if all(isinstance(row, list) and len(row) == 3 for row in layers):
            return [bool(row[0]) for row in layers]
    raise CheckpointError("config.json: layers is no list of [up-sampling, inputs, outputs]")


def read_settings(path: Path) -> Mapping[str, object]:
    """config.json beside the weights, as the project writes it; empty where there is none."""
    named = path.with_name(path.name.replace("pytorch_model.bin", "config.json"))
    beside = named if named != path else path.with_name("config.json")
    if not beside.is_file():
        return {}
    try:
        values = json.loads(beside.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{beside}: not JSON: {error}") from error
    if not isinstance(values, dict) or "layers" not in values:
        return {}  # some other project's
    return values
