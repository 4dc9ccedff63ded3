"""State dicts of other projects: read as data, unwrapped, and loaded strictly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from velatura.export.checkpoints.inert import StoredTensor
from velatura.export.checkpoints.pickle_machine import Limits
from velatura.export.checkpoints.torch_archive import load_archive
from velatura.export.errors import CheckpointError

# What training scripts put the weights under, beside optimisers and counters.
_WRAPPERS = ("model_state", "state_dict", "model_state_dict", "model")
# What DataParallel, torch.compile and Lightning put before every name.
_PREFIXES = ("module.", "_orig_mod.", "model.")


@dataclass(frozen=True)
class StateDict:
    """Tensors by name, and what else lay among them (milesial's `mask_values`)."""

    path: Path
    tensors: dict[str, Tensor]
    others: dict[str, object]


def read_state(path: Path, limits: Limits | None = None) -> StateDict:
    """The weights of a `.pt` or `.pth` file, bare or wrapped, floats in float32.

    Raises CheckpointError for a file without any, and RefusedPickleError as `load_archive`.
    """
    root = load_archive(path, limits)
    if isinstance(root, dict):
        for wrapper in _WRAPPERS:
            if _holds_tensors(root.get(wrapper)):
                return unwrapped(path, root[wrapper])
        if _holds_tensors(root):
            return unwrapped(path, root)
    found = sorted(map(str, root))[:20] if isinstance(root, dict) else type(root).__name__
    raise CheckpointError(
        f"{path}: holds no state dict, bare or as {', '.join(_WRAPPERS)}; found {found}"
    )


def unwrapped(path: Path, values: Mapping[str, object]) -> StateDict:
    """Separate the tensors (read, or still stored) and take off a prefix that all names share."""
    tensors = {
        str(name): value.tensor() if isinstance(value, StoredTensor) else value
        for name, value in values.items()
        if isinstance(value, (StoredTensor, Tensor))
    }
    others = {str(name): value for name, value in values.items() if str(name) not in tensors}
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    widened = {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
    return StateDict(path, widened, others)


def load_strictly(
    build: Callable[[], nn.Module], state: StateDict, kind: str, *, on_meta: bool = True
) -> nn.Module:
    """`build()` in eval mode with exactly these tensors.

    `on_meta` builds without memory or random numbers; a module that computes buffers which its
    state dict lacks must be built for real. Raises CheckpointError naming the file and the tensors
    that are missing, left over, of another shape or not finite.
    """
    if state.others:
        raise CheckpointError(f"{state.path}: {', '.join(sorted(state.others)[:5])}: no tensor")
    with torch.device("meta" if on_meta else "cpu"):
        network = build()
    try:
        network.load_state_dict(dict(state.tensors), strict=True, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{state.path}: the tensors are not those of {kind}: {error}") from (
            error
        )
    for name, tensor in state.tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{state.path}: {name} holds numbers that are not finite")
    return network.eval().requires_grad_(False)


def _holds_tensors(value: object) -> bool:
    return isinstance(value, dict) and any(isinstance(v, StoredTensor) for v in value.values())


def channels(state: StateDict, name: str, axis: int = 0) -> int:
    """The extent of a convolution's weight [out, in, h, w] along `axis`.

    Raises CheckpointError when it is missing or has another number of axes.
    """
    weight = state.tensors.get(name)
    if weight is None or weight.ndim != 4 or 0 in weight.shape:
        found = "missing" if weight is None else f"of shape {list(weight.shape)}"
        raise CheckpointError(f"{state.path}: {name} is {found}; expected [out, in, height, width]")
    return weight.shape[axis]
