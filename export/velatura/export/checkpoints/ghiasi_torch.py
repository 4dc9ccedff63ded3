"""Ghiasi's style networks in torch: tensors named as in `networks.ghiasi`, after `predictor.` and
`transformer.`, in one file of torch.save or safetensors.

There is no port to PyTorch that many use, so the layout is this project's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from velatura.export.checkpoints.plain_tensors import fill, read_tensors
from velatura.export.errors import CheckpointError
from velatura.export.networks.ghiasi import StylePredictor, StyleTransformer

_PARTS = ("predictor", "transformer")


def load_ghiasi(path: Path) -> tuple[StylePredictor, StyleTransformer]:
    """Both networks in eval mode; widths, depth and the code's length are read off the tensors.

    Raises CheckpointError naming the file and the tensor that is missing, left over or does not
    fit.
    """
    try:
        state = read_tensors(path)
        parts = {part: _part(state, part) for part in _PARTS}
        strangers = sorted(n for n in state if n.partition(".")[0] not in _PARTS)
        if strangers:
            raise CheckpointError(f"tensors are left over: {', '.join(strangers[:5])}")
        predictor, transformer = _networks(parts["predictor"], parts["transformer"])
        fill(predictor, parts["predictor"], "the style predictor")
        fill(transformer, parts["transformer"], "the style transformer")
    except CheckpointError as error:
        raise type(error)(f"--style-networks {path}: {error}") from error
    return predictor, transformer


def _part(state: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    found = {n.removeprefix(f"{part}."): t for n, t in state.items() if n.startswith(f"{part}.")}
    if not found:
        raise CheckpointError(f"has no tensors {part}.…")
    return found


def _networks(
    predictor: Mapping[str, Tensor], transformer: Mapping[str, Tensor]
) -> tuple[StylePredictor, StyleTransformer]:
    code, last = _shape(predictor, "to_code.weight", 2)
    widths = [_shape(transformer, f"contract{i}.weight", 4)[0] for i in (1, 2, 3)]
    residuals = 0
    while f"residuals.{residuals}.conv1.conv.weight" in transformer:
        residuals += 1
    with torch.device("meta"):
        return (
            StylePredictor(code_dim=code, last_channels=last),
            StyleTransformer((widths[0], widths[1], widths[2]), residuals, code),
        )


def _shape(state: Mapping[str, Tensor], name: str, axes: int) -> torch.Size:
    tensor = state.get(name)
    if tensor is None or tensor.ndim != axes:
        raise CheckpointError(f"has no tensor {name} of {axes} axes")
    return tensor.shape
