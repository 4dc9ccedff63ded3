"""Our own weights: `NAME.safetensors` and, beside it, `NAME.json` that rebuilds the network."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf import json_format
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from velatura.export.errors import CheckpointError
from velatura.export.networks.encoder import Encoder, EncoderConfig
from velatura.export.networks.segmenter import SegmenterConfig, build_segmenter
from velatura.export.networks.stylegan2 import Generator, GeneratorConfig
from velatura.v1 import bundle_pb2

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")


def load_generator(weights: Path) -> Generator:
    """Mapping and synthesis in eval mode. Raises CheckpointError when the files do not fit."""
    config = read_config(weights, GeneratorConfig, _generator_fields)
    return load_state(Generator(config), weights)


def load_encoder(weights: Path) -> Encoder:
    """W+ encoder in eval mode with its deltas on. Raises CheckpointError as above."""
    config = read_config(weights, EncoderConfig)
    return load_state(Encoder(config), weights)


def load_segmenter(weights: Path) -> tuple[nn.Module, SegmenterConfig]:
    """Segmenter in eval mode and its configuration. Raises CheckpointError as above."""
    config = read_config(weights, SegmenterConfig)
    return load_state(build_segmenter(config), weights), config


def save_weights(
    weights: Path, network: nn.Module, config: DataclassInstance, *, half: bool = False
) -> None:
    """Write both files under temporary names and rename; `half` stores float16."""
    weights.parent.mkdir(parents=True, exist_ok=True)
    state = {
        name: (t.half() if half and t.is_floating_point() else t).detach().contiguous()
        for name, t in network.state_dict().items()
    }
    partial = weights.with_suffix(".partial")
    save_file(state, partial)
    partial.replace(weights)
    partial.write_text(json.dumps(asdict(config), indent=2) + "\n")
    partial.replace(weights.with_suffix(".json"))


def load_directions(path: Path, num_ws: int, w_dim: int) -> bundle_pb2.DirectionSet:
    """Named directions; raises CheckpointError when one does not fit W+ of [num_ws, w_dim]."""
    try:
        found = json_format.Parse(path.read_text(), bundle_pb2.DirectionSet())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; find the directions first") from error
    except json_format.ParseError as error:
        raise CheckpointError(f"{path}: not the JSON of a DirectionSet: {error}") from error
    names = [direction.name for direction in found.directions]
    if len(set(names)) != len(names):
        raise CheckpointError(f"{path}: a direction's name occurs twice among {names}")
    for direction in found.directions:
        one_row = direction.space == "W" and len(direction.offsets) == w_dim
        if not one_row and len(direction.offsets) != num_ws * w_dim:
            raise CheckpointError(
                f"{path}: direction {direction.name!r} has {len(direction.offsets)} offsets, "
                f"the generator takes {num_ws} × {w_dim} = {num_ws * w_dim}"
            )
        if not 0 <= direction.layer_start < direction.layer_end <= num_ws:
            raise CheckpointError(
                f"{path}: direction {direction.name!r} moves layers {direction.layer_start} to "
                f"{direction.layer_end}; they must lie in 0 to {num_ws} and not be empty"
            )
    return found


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}


def read_config(
    weights: Path,
    kind: type[Config],
    adapt: Callable[[dict[str, Any]], dict[str, Any]] = _tuples,
) -> Config:
    """The configuration beside `weights`; `adapt` undoes what JSON does to its types.

    Raises CheckpointError when the file is missing or does not fit `kind`.
    """
    path = weights.with_suffix(".json")
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; it belongs beside {weights.name}") from error
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: a {kind.__name__} is an object with named fields")
    unknown = sorted(set(values) - {field.name for field in fields(kind)})
    if unknown:
        raise CheckpointError(f"{path}: {kind.__name__} has no field {', '.join(unknown)}")
    try:
        return kind(**adapt(values))
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a {kind.__name__}: {error}") from error


def _generator_fields(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has only strings as keys; the channels are by resolution."""
    adapted = _tuples(values)
    if "channels" in adapted:
        adapted["channels"] = {int(size): width for size, width in adapted["channels"].items()}
    return adapted


Network = TypeVar("Network", bound=nn.Module)


def load_state(network: Network, weights: Path) -> Network:
    """`network` in eval mode with these weights. Raises CheckpointError when they do not fit."""
    try:
        state: dict[str, Tensor] = load_file(weights)
    except FileNotFoundError as error:
        raise CheckpointError(f"{weights}: no such file; train the network first") from error
    except SafetensorError as error:
        raise CheckpointError(f"{weights}: not a safetensors file: {error}") from error
    widened = {n: t.float() if t.is_floating_point() else t for n, t in state.items()}
    try:
        network.load_state_dict(widened, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"{weights}: weights and configuration differ: {error}") from error
    return network.eval()
