"""Spectral normalisation (Miyato et al. 2018, arXiv:1802.05957) baked into weights: W becomes W/σ.

σ is what the checkpoint's own project uses in eval mode, an estimate from stored vectors; the
matrix's true largest singular value would be a slightly other network.
"""

from __future__ import annotations

import re

import torch.nn.functional as F
from torch import Tensor

from velatura.export.checkpoints.plain_tensors import take
from velatura.export.errors import CheckpointError

_SINGULAR = re.compile(r"(.+)\.(?:u|sv)\d+")
_SMALLEST = 1e-12


def bake_by_iteration(state: dict[str, Tensor]) -> None:
    """BigGAN-PyTorch: `X.weight` with `X.u0` [1, out] and `X.sv0`; in place.

    Its layers take one step of the power iteration from u0 at every call, in eval mode from the
    same u0, so that σ = |W v| with v = Wᵀu0 / |Wᵀu0|. Further vectors (u1, …) only watch.
    """
    names = {found[1] for name in state if (found := _SINGULAR.fullmatch(name))}
    for name in sorted(names):
        weight = _weight(state, f"{name}.weight")
        matrix = weight.flatten(1).double()  # [out, in·k·k]
        u = take(state, f"{name}.u0", 2).double()  # [1, out]
        if u.shape != (1, matrix.shape[0]):
            raise CheckpointError(f"{name}.u0 has shape {list(u.shape)}, expected [1, out]")
        v = F.normalize(u @ matrix, eps=_SMALLEST)  # [1, in·k·k]
        _divide(state, f"{name}.weight", weight, (v @ matrix.T).norm())
    for name in [n for n in state if _SINGULAR.fullmatch(n)]:
        del state[name]


def bake_stored(state: dict[str, Tensor]) -> None:
    """torch.nn.utils.spectral_norm: `X.weight_orig` with `X.weight_u` [out] and `X.weight_v`, so
    that σ = uᵀ W v; in place. An `X.weight` beside them, which old versions kept, is dropped."""
    for name in [n.removesuffix("_orig") for n in state if n.endswith(".weight_orig")]:
        weight = _weight(state, f"{name}_orig")
        u, v = take(state, f"{name}_u", 1).double(), take(state, f"{name}_v", 1).double()
        matrix = weight.flatten(1).double()  # [out, in·k·k]
        if (u.numel(), v.numel()) != tuple(matrix.shape):
            raise CheckpointError(
                f"{name}_u and {name}_v have {u.numel()} and {v.numel()} numbers, the matrix is "
                f"{list(matrix.shape)}"
            )
        del state[f"{name}_orig"]
        _divide(state, name, weight, u @ matrix @ v)


def _weight(state: dict[str, Tensor], name: str) -> Tensor:
    if name not in state or state[name].ndim < 2:
        raise CheckpointError(f"has no matrix {name} beside its singular vectors")
    return state[name]


def _divide(state: dict[str, Tensor], name: str, weight: Tensor, sigma: Tensor) -> None:
    if not abs(float(sigma)) > _SMALLEST:
        raise CheckpointError(f"{name}: its spectral norm is 0, so the weights cannot be divided")
    state[name] = (weight.double() / sigma).float()
