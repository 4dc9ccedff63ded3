"""Checkpoints of a training run: one safetensors file, written atomically, that never needs pickle.

Tensors (weights, optimiser moments, random-generator states) are stored under dotted names; plain
values (step, ADA's p, the configuration) as JSON in the file's own header.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

_STATE_KEY = "velatura_state"


def flatten_module(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """The module's state dict with every name under `prefix.`; tensors are copied."""
    return {f"{prefix}.{name}": t.detach().clone() for name, t in module.state_dict().items()}


def restore_module(prefix: str, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Strictly load what `flatten_module` wrote; RuntimeError when names or shapes differ."""
    module.load_state_dict(_under(prefix, tensors), strict=True)


def flatten_optimizer(prefix: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Per-parameter optimiser tensors as `prefix.INDEX.NAME`; hyperparameters are not stored."""
    return {
        f"{prefix}.{index}.{name}": value.detach().clone()
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(
    prefix: str, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> None:
    """Put the stored moments back; learning rate and betas stay those of `optimizer`."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under(prefix, tensors).items():
        index, field = name.split(".", 1)
        state.setdefault(int(index), {})[field] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def save_checkpoint(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write both under a temporary name and rename, so that a kill leaves the older file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(
        {name: t.detach().contiguous() for name, t in tensors.items()},
        partial,
        metadata={_STATE_KEY: json.dumps(state)},
    )
    partial.replace(path)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of `save_checkpoint`; ValueError when the file is not such a checkpoint."""
    state = read_state(path)
    return load_file(path), state


def read_state(path: Path) -> dict[str, Any]:
    """The state alone, without reading any tensor; ValueError as above."""
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file ({error})") from error
    if _STATE_KEY not in metadata:
        raise ValueError(
            f"{path}: weights only, no training state; give a checkpoint-*.safetensors"
        )
    state: dict[str, Any] = json.loads(metadata[_STATE_KEY])
    return state


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the highest step in `folder`, named checkpoint-STEP.safetensors."""
    found = sorted(folder.glob("checkpoint-*.safetensors"))
    return found[-1] if found else None


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"checkpoint-{step:08d}.safetensors"


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}
