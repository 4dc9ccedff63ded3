"""Generators of ajbrock's BigGAN-PyTorch (`G_ema.pth`, `G.pth`) → our implementation."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from velatura.export.checkpoints.plain_tensors import fill
from velatura.export.checkpoints.spectral import bake_by_iteration
from velatura.export.errors import CheckpointError
from velatura.export.networks.biggan_pytorch import BigGan, BigGanConfig

_BLOCK = re.compile(r"blocks\.(\d+)\.0\.conv1\.weight")
_ATTENTION = re.compile(r"blocks\.(\d+)\.1\.theta\.weight")


def is_biggan_pytorch(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are this format's."""
    return "blocks.0.0.conv1.weight" in state and "output_layer.2.weight" in state


def biggan_of(state: dict[str, Tensor]) -> BigGan:
    """In eval mode, divided by its spectral norm; classes are named by their numbers.

    Takes the tensors by name and changes the dictionary. Raises CheckpointError naming the tensor
    that is missing, left over or does not fit.
    """
    if not is_biggan_pytorch(state):
        raise CheckpointError("has no blocks.0.0.conv1.weight; is it a G of BigGAN-PyTorch?")
    if "blocks.0.0.conv3.weight" in state:
        raise CheckpointError(
            "is BigGANdeep of BigGAN-PyTorch, which is not supported; BigGAN of that project and "
            "the deep one of pytorch-pretrained-BigGAN are"
        )
    bake_by_iteration(state)
    _unify_statistics(state)
    if "shared.weight" not in state:
        _classes_first(state)
    config = _config(state)
    with torch.device("meta"):  # nothing is drawn at random only to be overwritten
        network = BigGan(config)
    fill(network, state, "BigGAN-PyTorch's generator")
    return network


def _unify_statistics(state: dict[str, Tensor]) -> None:
    """The project's three kinds of batch norm keep the same numbers under different names."""
    for name in [n for n in state if n.endswith((".bn.running_mean", ".bn.running_var"))]:
        state[name.replace(".bn.running_", ".stored_")] = state.pop(name)
    for name in [n for n in state if n.endswith(".bn.num_batches_tracked")]:
        del state[name]
    for name in [n for n in state if n.endswith((".bn.stored_mean", ".bn.stored_var"))]:
        norm = name.rpartition(".")[0]
        # Standing statistics are sums until they are divided by the number of batches.
        count = float(state.get(f"{norm}.accumulation_counter", torch.zeros(1)).reshape(-1)[0])
        state[name.replace(".bn.stored_", ".stored_")] = state.pop(name) / max(count, 1)
    for name in [n for n in state if n.endswith(".bn.accumulation_counter")]:
        del state[name]


def _classes_first(state: dict[str, Tensor]) -> None:
    """Without a shared embedding each norm looks its row up in a table [classes, channels]."""
    for name, table in state.items():
        if re.fullmatch(r"blocks\.\d+\.0\.bn[12]\.(gain|bias)\.weight", name):
            state[name] = table.T.contiguous()


def _config(state: Mapping[str, Tensor]) -> BigGanConfig:
    found = {int(m[1]): state[m[0]].shape for name in state if (m := _BLOCK.fullmatch(name))}
    if sorted(found) != list(range(len(found))) or any(len(s) != 4 for s in found.values()):
        raise CheckpointError(f"there are blocks {sorted(found)}, expected 0, 1, … of convolutions")
    channels = (found[0][1], *(found[i][0] for i in range(len(found))))
    linear, gain = (_matrix(state, n) for n in ("linear.weight", "blocks.0.0.bn1.gain.weight"))
    bottom = math.isqrt(linear.shape[0] // channels[0])
    if bottom**2 * channels[0] != linear.shape[0]:
        raise CheckpointError(
            f"linear.weight has {linear.shape[0]} rows, no square of {channels[0]} channels"
        )
    embedding = classes = 0
    if "shared.weight" in state:
        classes, embedding = _matrix(state, "shared.weight").shape
    # What a norm takes besides the class is its block's part of z.
    chunk = gain.shape[1] - embedding if embedding else 0
    if chunk not in (0, linear.shape[1]):
        raise CheckpointError(
            f"blocks.0.0.bn1.gain.weight takes {gain.shape[1]} numbers, of which {embedding} are "
            f"the class; the rest is neither nothing nor the {linear.shape[1]} of linear.weight"
        )
    return BigGanConfig(
        classes=tuple(str(i) for i in range(classes or gain.shape[1])),
        z_dim=chunk * (len(found) + 1) if chunk else linear.shape[1],
        chunk_dim=chunk,
        embedding_dim=embedding,
        channels=channels,
        attention=tuple(sorted(int(m[1]) for n in state if (m := _ATTENTION.fullmatch(n)))),
        bottom=bottom,
    )


def _matrix(state: Mapping[str, Tensor], name: str) -> Tensor:
    tensor = state.get(name)
    if tensor is None or tensor.ndim != 2:
        raise CheckpointError(f"has no matrix {name}")
    return tensor
