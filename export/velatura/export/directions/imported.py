"""Published directions: InterFaceGAN's boundaries, e4e's tensors, GANSpace's components."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from velatura.export.directions.arrays import read_npy, read_npz, read_tensor, read_tensors
from velatura.export.directions.entries import FloatArray, Layers, entry
from velatura.export.errors import CheckpointError
from velatura.export.networks.stylegan2 import GeneratorConfig
from velatura.v1 import bundle_pb2

_GANSPACE_NPZ = ("lat_comp", "lat_stdev")
_GANSPACE_PT = ("comp", "std")


def load_interfacegan(
    path: Path, config: GeneratorConfig, *, layers: Layers | None = None, space: str = "W"
) -> bundle_pb2.DirectionEntry:
    """A boundary's normal, `.npy` of [1, w_dim] (arXiv:2005.09635), named as the file.

    `space` is what the boundary was trained in. The file does not say; one of Z bends on its way
    through the mapping network, so it has no offsets in W and is refused.
    """
    if space not in ("W", "W+"):
        raise CheckpointError(
            f"{path}: a boundary of space {space!r} has no offsets in W; use one trained in W or W+"
        )
    found = entry(path.stem, read_npy(path), config, layers=layers, method="imported")
    if found.space != space:
        raise CheckpointError(f"{path}: the shape is that of {found.space}, not of {space}")
    return found


def load_e4e(
    path: Path, config: GeneratorConfig, *, layers: Layers | None = None
) -> bundle_pb2.DirectionEntry:
    """One tensor of W or W+, `.pt` (arXiv:2102.02766), named as the file."""
    return entry(path.stem, read_tensor(path), config, layers=layers, method="imported")


def load_ganspace(
    path: Path, config: GeneratorConfig, *, layers: Layers | None = None, count: int = 0
) -> list[bundle_pb2.DirectionEntry]:
    """Principal components of W (arXiv:2004.02546), `ganspace-0` first; `count` 0 takes all.

    `.npz` as GANSpace writes it (lat_comp [K, 1, w_dim], lat_stdev [K]) or `.pt` with comp and std.
    Strength 1 is one standard deviation.
    """
    if path.suffix == ".npz":
        arrays = read_npz(path, _GANSPACE_NPZ)
        components, deviations = (arrays[name] for name in _GANSPACE_NPZ)
    else:
        arrays = read_tensors(path, _GANSPACE_PT)
        components, deviations = (arrays[name] for name in _GANSPACE_PT)
    if components.ndim not in (2, 3) or deviations.shape != components.shape[:1]:
        raise CheckpointError(
            f"{path}: components of shape {list(components.shape)} with deviations of "
            f"{list(deviations.shape)}; expected [K, 1, {config.w_dim}] and [K]"
        )
    kept = components[: count or None]
    return [_component(i, c, deviations[i], config, layers) for i, c in enumerate(kept)]


def _component(
    index: int,
    component: FloatArray,
    deviation: np.float64,
    config: GeneratorConfig,
    layers: Layers | None,
) -> bundle_pb2.DirectionEntry:
    return entry(
        f"ganspace-{index}",
        component * deviation,
        config,
        layers=layers,
        method="ganspace",
        description=f"Principal component {index} of W.",
    )
