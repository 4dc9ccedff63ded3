"""Picks the source of directions by its name or file type, and writes a DirectionSet."""

from __future__ import annotations

from pathlib import Path

from velatura.export.checkpoints.inert import StoredTensor
from velatura.export.checkpoints.torch_archive import load_archive
from velatura.export.convert import open_generator
from velatura.export.directions import ganspace, sefa, styleclip
from velatura.export.directions.entries import Layers
from velatura.export.directions.imported import load_e4e, load_ganspace, load_interfacegan
from velatura.export.directions.text import weights_sha256, write_direction_set
from velatura.export.errors import CheckpointError
from velatura.export.networks.stylegan2 import Generator, GeneratorConfig
from velatura.v1 import bundle_pb2

_COMPUTED = {"sefa": sefa.find_directions, "ganspace": ganspace.find_directions}
# As Generate's style mixing calls them; one past the last is cut to the generator's.
_BANDS = {"coarse": (0, 4), "middle": (4, 8), "fine": (8, 64)}


def write_directions(
    source: str,
    weights: Path,
    out: Path,
    *,
    layers: str = "",
    count: int = 5,
    space: str = "W",
    max_residual: float = styleclip.MAX_RESIDUAL,
) -> list[str]:
    """Write the JSON that `native.load_directions` and the bundle's writer take; returns the names.

    They carry the weights' hash, and are refused for other weights; the bundle's writer binds them
    to the hash of the written synthesis network. Raises CheckpointError as the sources.
    """
    generator = open_generator(weights)
    chosen = parse_layers(layers, generator.config)
    found = find(source, generator, chosen, count, space, max_residual)
    message = bundle_pb2.DirectionSet(generator_sha256=weights_sha256(weights), directions=found)
    write_direction_set(out, message)
    return [direction.name for direction in found]


def find(
    source: str,
    generator: Generator,
    layers: Layers | None,
    count: int,
    space: str,
    max_residual: float = styleclip.MAX_RESIDUAL,
) -> list[bundle_pb2.DirectionEntry]:
    """Directions of "sefa" or "ganspace", computed, or of a file, for this generator.

    `max_residual` is for directions of S. Raises CheckpointError as the sources, and for
    directions of Z.
    """
    if source in _COMPUTED:
        return _COMPUTED[source](generator, count, layers=layers)
    path, config = Path(source), generator.config
    _require_space(path, space)
    if space == "S":
        return [styleclip.load_direction(path, generator, layers=layers, limit=max_residual)]
    if path.suffix == ".npy":
        return [load_interfacegan(path, config, layers=layers, space=space)]
    if path.suffix == ".npz":
        return load_ganspace(path, config, layers=layers, count=count)
    if path.suffix == ".pt":
        if isinstance(load_archive(path), StoredTensor):
            return [load_e4e(path, config, layers=layers)]
        return load_ganspace(path, config, layers=layers, count=count)
    raise CheckpointError(f"{source}: give sefa, ganspace, or a .npy, .npz or .pt file")


def _require_space(path: Path, space: str) -> None:
    if space == "Z":
        raise CheckpointError(
            f"{path}: a direction of space 'Z' has no offsets in W: it bends on its way through "
            "the mapping network. Use one found in W, W+ or S"
        )
    if space not in ("W", "W+", "S"):
        raise CheckpointError(f"--space {space!r}: give W, W+ or S")


def parse_layers(text: str, config: GeneratorConfig) -> Layers | None:
    """ "4:8" → (4, 8); coarse, middle and fine → theirs; empty → all layers."""
    if not text:
        return None
    if text in _BANDS:
        first, limit = _BANDS[text]
        if first >= config.num_ws:
            raise CheckpointError(f"layers {text!r} start at {first}; there are {config.num_ws}")
        return first, min(limit, config.num_ws)
    start, colon, end = text.partition(":")
    if not (colon and start.isdecimal() and end.isdecimal()):
        raise CheckpointError(
            f"layers {text!r}: give coarse, middle, fine, or the first and one past the last, "
            "as 4:8"
        )
    return int(start), int(end)
