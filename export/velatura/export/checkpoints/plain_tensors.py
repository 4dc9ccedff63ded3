"""A file's tensors by name, for loaders that rename or bake before they load strictly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from velatura.export.checkpoints.state_dicts import StateDict, read_state, unwrapped
from velatura.export.errors import CheckpointError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Of a .safetensors file, or a state dict of torch.save, bare or wrapped; floats as float32.

    Raises CheckpointError naming the file and what in it is no tensor or not finite; runs nothing.
    """
    state = _safetensors(path) if path.suffix == ".safetensors" else read_state(path)
    if state.others:
        raise CheckpointError(
            f"{path}: {', '.join(sorted(state.others)[:5])}: no tensor; save the network's "
            "state_dict() by itself"
        )
    for name, tensor in state.tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: {name} holds numbers that are not finite")
    return dict(state.tensors)


def fill(network: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load strictly, then switch to eval mode without gradients. The network may be on "meta".

    Raises CheckpointError that names the tensors which are missing, left over or of another shape.
    """
    try:
        network.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"the tensors are not those of {what}: {error}") from error
    network.eval().requires_grad_(False)


def take(state: dict[str, Tensor], name: str, axes: int) -> Tensor:
    """Remove and return a tensor. Raises CheckpointError when it is missing or of other axes."""
    if name not in state:
        raise CheckpointError(f"has no tensor {name}")
    tensor = state.pop(name)
    if tensor.ndim != axes or 0 in tensor.shape:
        raise CheckpointError(f"{name} has shape {list(tensor.shape)}, expected {axes} axes")
    return tensor


def _safetensors(path: Path) -> StateDict:
    try:
        return unwrapped(path, load_file(path))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; give a checkpoint's file") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file: {error}") from error
