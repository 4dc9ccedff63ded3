"""Checkpoints of rosinality's stylegan2-pytorch (`.pt`) → our generator.

Both scale the weights at run time in the same way. Names and a few leading axes differ, and the
up-sampling layers' kernels are stored for a true convolution, so they are mirrored here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from velatura.export.checkpoints.assembly import assemble, channels_of, filter_taps
from velatura.export.checkpoints.inert import StoredTensor
from velatura.export.checkpoints.pickle_machine import Limits
from velatura.export.checkpoints.torch_archive import load_archive
from velatura.export.errors import CheckpointError
from velatura.export.networks.stylegan2 import Generator, GeneratorConfig


def load_generator(path: Path, network: str = "g_ema", limits: Limits | None = None) -> Generator:
    """The averaged generator, or with "g" the one as trained, in eval mode.

    Where the file has no `latent_avg` the average is taken of 10,000 samples. Raises
    CheckpointError naming the file and the tensor that is missing, left over or does not fit.
    """
    checkpoint = load_archive(path, limits)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get(network), dict):
        found = sorted(map(str, checkpoint)) if isinstance(checkpoint, dict) else "no dictionary"
        raise CheckpointError(f"{path}: holds no {network!r}; found {found}")
    try:
        return from_state(checkpoint[network], checkpoint.get("latent_avg"))
    except CheckpointError as error:
        raise type(error)(f"{path}: {network}: {error}") from error


def from_state(values: Mapping[object, object], latent_avg: object) -> Generator:
    """The same from a state dict as it was read; None for `latent_avg` where there is none."""
    return _convert(_tensors(values), latent_avg)


def _tensors(values: Mapping[object, object]) -> dict[str, Tensor]:
    """All of them in float32; the file's size bounds how much that is."""
    tensors = {}
    for name, value in values.items():
        if not isinstance(value, StoredTensor):
            raise CheckpointError(f"{name} is no tensor")
        tensors[str(name)] = value.tensor().float()
    return tensors


def _convert(stored: dict[str, Tensor], latent_avg: object) -> Generator:
    layers = _layers(stored)
    kernels = {n: stored.pop(n) for n in list(stored) if n.endswith(".kernel")}
    if not kernels:
        raise CheckpointError("has no up-sampling kernels; is it a generator of stylegan2-pytorch?")
    state: dict[str, Tensor] = {}
    depth = sum(n.startswith("style.") and n.endswith(".weight") for n in stored)
    for i in range(depth):
        state[f"mapping.fc{i}.weight"] = _take(stored, f"style.{i + 1}.weight", 2)
        state[f"mapping.fc{i}.bias"] = _take(stored, f"style.{i + 1}.bias", 1)
    if not depth:
        raise CheckpointError("has no mapping network style.1, style.2, …")
    w_dim = state[f"mapping.fc{depth - 1}.weight"].shape[0]
    hidden, z_dim = state["mapping.fc0.weight"].shape
    shapes = {r: stored[f"{source}.conv.weight"].shape[1:] for source, r, up in layers if not up}
    taps = filter_taps(kernels, gain=4)
    config = GeneratorConfig(
        resolution=max(shapes),
        z_dim=z_dim,
        w_dim=w_dim,
        mapping_layers=depth,
        mapping_width=hidden if depth > 1 and hidden != w_dim else 0,
        channels=channels_of(shapes),
        resample_filter=taps,
        rgb_filter=taps,
    )
    _synthesis(stored, layers, state)
    if stored:
        raise CheckpointError(f"tensors are left over: {', '.join(sorted(stored)[:5])}")
    if latent_avg is not None:
        state["mapping.w_avg"] = _average(latent_avg, w_dim)
    return assemble(config, state)


def _layers(stored: Mapping[str, Tensor]) -> list[tuple[str, int, bool]]:
    """Styled convolutions in order: name, resolution of the output, whether it doubles the size."""
    layers = [("conv1", 4, False)]
    while f"convs.{len(layers) - 1}.conv.weight" in stored:
        i = len(layers) - 1
        layers.append((f"convs.{i}", 8 << (i // 2), i % 2 == 0))
    for name, _, _ in layers:
        weight = stored.get(f"{name}.conv.weight")
        if weight is None or weight.ndim != 5:
            raise CheckpointError(f"has no {name}.conv.weight of five axes")
    return layers


def _synthesis(
    stored: dict[str, Tensor], layers: list[tuple[str, int, bool]], state: dict[str, Tensor]
) -> None:
    """Move every tensor of the synthesis network from `stored` to `state`, under our names."""
    state["synthesis.b4.const"] = _take(stored, "input.input", 4)[0]
    noisy = any(name.startswith("noises.") for name in stored)
    for i, (source, resolution, up) in enumerate(layers):
        target = f"synthesis.b{resolution}.conv{0 if up else 1}"
        weight = _take(stored, f"{source}.conv.weight", 5)[0]  # [out, in, 3, 3]
        state[f"{target}.weight"] = weight.flip((2, 3)) if up else weight
        _affine(stored, source, state, target)
        state[f"{target}.bias"] = _take(stored, f"{source}.activate.bias", 1)
        state[f"{target}.noise_strength"] = _take(stored, f"{source}.noise.weight", 1).reshape([])
        # Early checkpoints draw the noise anew for each image and keep none: then there is none.
        state[f"{target}.noise_const"] = (
            _take(stored, f"noises.noise_{i}", 4)[0, 0]
            if noisy
            else torch.zeros(resolution, resolution)
        )
        if not up:
            rgb = "to_rgb1" if resolution == 4 else f"to_rgbs.{i // 2 - 1}"
            target = f"synthesis.b{resolution}.torgb"
            state[f"{target}.weight"] = _take(stored, f"{rgb}.conv.weight", 5)[0]
            _affine(stored, rgb, state, target)
            state[f"{target}.bias"] = _take(stored, f"{rgb}.bias", 4)[0, :, 0, 0]


def _affine(stored: dict[str, Tensor], source: str, state: dict[str, Tensor], target: str) -> None:
    state[f"{target}.affine.weight"] = _take(stored, f"{source}.conv.modulation.weight", 2)
    state[f"{target}.affine.bias"] = _take(stored, f"{source}.conv.modulation.bias", 1)


def _take(stored: dict[str, Tensor], name: str, axes: int) -> Tensor:
    if name not in stored:
        raise CheckpointError(f"has no tensor {name}")
    tensor = stored.pop(name)
    if tensor.ndim != axes or 0 in tensor.shape:
        raise CheckpointError(f"{name} has shape {list(tensor.shape)}, expected {axes} axes")
    return tensor


def _average(value: object, w_dim: int) -> Tensor:
    """[w_dim], [1, w_dim], or one such row a layer, all equal."""
    if not isinstance(value, StoredTensor):
        raise CheckpointError("latent_avg is no tensor")
    rows = value.tensor().float()
    if rows.numel() == 0 or rows.shape[-1:] != (w_dim,):
        raise CheckpointError(f"latent_avg has shape {list(rows.shape)}, expected [{w_dim}]")
    rows = rows.reshape(-1, w_dim)
    if not torch.equal(rows, rows[:1].expand_as(rows)):
        raise CheckpointError("latent_avg differs from layer to layer; one average is expected")
    return rows[0].clone()
