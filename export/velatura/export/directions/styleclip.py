"""Directions of StyleSpace, such as StyleCLIP's global ones (Patashnik et al. 2021,
arXiv:2103.17249; Wu et al. 2021, arXiv:2011.12799), carried over to W+.

S are the styles: what the affine layers make of a row of W+. They come in the network's order, as
StyleCLIP lists them: of each resolution its convolutions, then its layer to RGB. StyleCLIP edits
the convolutions only, and its vectors often leave the others out. An RGB layer and the first
convolution of the next resolution read the same row, so that not every change of S can be had.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from velatura.export.directions.arrays import npz_names, read_npy, read_npz
from velatura.export.directions.entries import FloatArray, Layers, entry, require_layers
from velatura.export.errors import CheckpointError
from velatura.export.networks.stylegan2 import FullyConnected, Generator
from velatura.v1 import bundle_pb2

MAX_RESIDUAL = 0.5
_STRENGTH = 10.0  # the ends of StyleCLIP's slider
# Nothing but these layers sees a row of W+, so a long step that the styles do not show does no
# harm; only what float32 could not carry is cut off.
_CONDITION = 1e-5


@dataclass(frozen=True)
class StyleLayer:
    """One affine layer: δstyles [channels] = weight [channels, w_dim] · δw of its row."""

    name: str
    row: int
    weight: FloatArray

    @property
    def rgb(self) -> bool:
        return self.name.endswith("torgb")

    @property
    def channels(self) -> int:
        return len(self.weight)


def load_direction(
    path: Path, generator: Generator, *, layers: Layers | None = None, limit: float = MAX_RESIDUAL
) -> bundle_pb2.DirectionEntry:
    """A direction of S as one of W+, named as the file; strength 1 is the change as given.

    `.npy` of all styles or of the convolutions' in order, [channels] or [1, channels]. `.npz` with
    an array a layer: arr_0, arr_1, … of all layers or of the convolutions (as `numpy.savez` names a
    list), or named b4.conv1, b8.torgb and so on, where layers that are left out stay. Each row of
    W+ is found by least squares. The share of the change's squared length that W+ cannot give is a
    figure; CheckpointError when it is more than `limit`, or the vector is another generator's.
    """
    styles = style_layers(generator)
    changes = _changes(path, styles)
    start, end = require_layers(f"direction {path.stem!r}", layers, generator.config)
    inside = [layer for layer in styles if start <= layer.row < end]
    moved = [layer for layer in inside if changes[layer.name].any()]
    if not moved or any(not np.isfinite(change).all() for change in changes.values()):
        raise CheckpointError(
            f"{path}: has numbers that are not finite, or changes no style of layers {start}:{end}"
        )
    rows = np.zeros((generator.config.num_ws, generator.config.w_dim))
    missed = wanted = 0.0
    for row in range(start, end):
        readers = [layer for layer in inside if layer.row == row]
        matrix = np.concatenate([layer.weight for layer in readers])  # [channels, w_dim]
        change = np.concatenate([changes[layer.name] for layer in readers])  # [channels]
        rows[row] = np.linalg.lstsq(matrix, change, rcond=_CONDITION)[0]
        missed += float(np.square(matrix @ rows[row] - change).sum())
        wanted += float(np.square(change).sum())
    residual = missed / wanted
    if residual > limit:
        raise CheckpointError(
            f"{path}: W+ cannot give {residual:.0%} of this change of S (of its squared length), "
            f"more than {limit:.0%}; choose --layers that can, or raise --max-residual"
        )
    return _entry(path, rows, generator, (start, end), moved, residual)


def style_layers(generator: Generator) -> list[StyleLayer]:
    """All affine layers of the synthesis network in its order, each with its row of W+."""
    found: list[StyleLayer] = []
    row = 0
    for resolution in generator.synthesis.resolutions:
        block = getattr(generator.synthesis, f"b{resolution}")
        for name in ("conv1",) if resolution == 4 else ("conv0", "conv1"):
            found.append(_layer(f"b{resolution}.{name}", row, getattr(block, name).affine))
            row += 1
        # The RGB layer reads the row of the next block's first convolution.
        found.append(_layer(f"b{resolution}.torgb", row, block.torgb.affine))
    return found


def _layer(name: str, row: int, affine: FullyConnected) -> StyleLayer:
    weight = affine.weight.detach().double() * affine.weight_gain
    return StyleLayer(name, row, weight.numpy())


def _changes(path: Path, styles: list[StyleLayer]) -> dict[str, FloatArray]:
    """δstyles [channels] by layer, zeros where the file leaves a layer out."""
    if path.suffix == ".npy":
        given = _split(path, read_npy(path), styles)
    elif path.suffix == ".npz":
        given = _arrays(path, styles)
    else:
        raise CheckpointError(f"{path}: directions of S come as .npy or .npz")
    return {layer.name: given.get(layer.name, np.zeros(layer.channels)) for layer in styles}


def _split(path: Path, vector: FloatArray, styles: list[StyleLayer]) -> dict[str, FloatArray]:
    convolutions = [layer for layer in styles if not layer.rgb]
    totals = {sum(each.channels for each in kind): kind for kind in (convolutions, styles)}
    if vector.ndim == 2 and len(vector) in totals and vector.shape[1] > 1:
        raise CheckpointError(
            f"{path}: shape {list(vector.shape)} is that of StyleCLIP's table of all channels "
            "(fs3); multiply it with the difference of two texts' CLIP vectors, and with the "
            "channels' deviations, and save that vector"
        )
    flat = vector.reshape(-1)
    if vector.shape not in (flat.shape, (1, *flat.shape)) or len(flat) not in totals:
        raise CheckpointError(
            f"{path}: shape {list(vector.shape)}; this generator has "
            f"{' or '.join(map(str, totals))} styles (of the convolutions, of all layers)"
        )
    kind = totals[len(flat)]
    ends = np.cumsum([layer.channels for layer in kind])
    parts = np.split(flat, ends[:-1])
    return {layer.name: part for layer, part in zip(kind, parts, strict=True)}


def _arrays(path: Path, styles: list[StyleLayer]) -> dict[str, FloatArray]:
    names = npz_names(path)
    known = {layer.name: layer for layer in styles}
    convolutions = [layer for layer in styles if not layer.rgb]
    if names and set(names) <= set(known):
        placed = {name: known[name] for name in names}
    else:
        kind = convolutions if len(names) == len(convolutions) else styles
        placed = {f"arr_{index}": layer for index, layer in enumerate(kind)}
        if set(names) != set(placed):
            raise CheckpointError(
                f"{path}: holds {len(names)} arrays ({', '.join(names[:5])}, …); give arr_0 to "
                f"arr_{len(styles) - 1} of all layers, arr_0 to arr_{len(convolutions) - 1} of the "
                f"convolutions, or some of {', '.join(known)}"
            )
    arrays = read_npz(path, tuple(placed))
    changes = {}
    for name, layer in placed.items():
        if arrays[name].shape not in ((layer.channels,), (1, layer.channels)):
            raise CheckpointError(
                f"{path}: {name} has shape {list(arrays[name].shape)}; {layer.name} has "
                f"{layer.channels} styles"
            )
        changes[layer.name] = arrays[name].reshape(-1)
    return changes


def _entry(
    path: Path,
    rows: FloatArray,
    generator: Generator,
    layers: Layers,
    moved: list[StyleLayer],
    residual: float,
) -> bundle_pb2.DirectionEntry:
    found = entry(
        path.stem,
        rows,
        generator.config,
        layers=layers,
        method="imported",
        description=f"Direction of S that changes {', '.join(layer.name for layer in moved)}, "
        f"carried over to W+ by least squares; {residual:.1%} of it is lost.",
        max_strength=_STRENGTH,
    )
    found.figures.append(
        bundle_pb2.Figure(
            name="residual of S",
            value=round(residual, 4),
            unit="share of squared length",
            measured_on="the styles of all layers that are moved",
        )
    )
    return found
