"""Models of segmentation_models_pytorch: the folder of `save_pretrained`, or a state dict (`.pth`)
with a small NAME.json beside it that says what to build.

    {"architecture": "Unet", "encoder_name": "resnet34", "classes": 4}

Other fields are arguments of the architecture. "mean" and "std" are those that training normalised
pictures in [0, 1] by (ImageNet's without), "class_names" names the classes.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from velatura.export.checkpoints.loaded_segmenter import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Channels,
    LoadedSegmenter,
)
from velatura.export.checkpoints.state_dicts import StateDict, load_strictly, unwrapped
from velatura.export.errors import CheckpointError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
_MARK = "segmentation_head.0.weight"
# A second head, for labels of whole pictures.
_AUXILIARY = "classification_head."
_ARCHITECTURES: dict[str, Callable[..., nn.Module]] = smp.MODEL_ARCHITECTURES_MAPPING
_LARGEST = 1 << 20  # bytes of the JSON
_CLASSES = 256


def read_folder(folder: Path) -> StateDict:
    """The weights that `save_pretrained` wrote. Raises CheckpointError for any other folder."""
    path = folder / WEIGHTS
    try:
        return unwrapped(path, load_file(path))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder}: has no {WEIGHTS}; give a folder of save_pretrained, or a file"
        ) from error
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a safetensors file: {error}") from error


def matches(state: StateDict) -> bool:
    """Whether the names are those of this format."""
    return _MARK in state.tensors


def load(state: StateDict) -> LoadedSegmenter:
    """The network that the JSON describes, without its head for labels; nothing is downloaded.

    Raises CheckpointError as `load_strictly`, and naming the JSON's field that is at fault.
    """
    path = _config_path(state.path)
    config = _read(path)
    architecture = config.pop("_model_class", None) or config.pop("architecture", None)
    if not isinstance(architecture, str) or architecture.lower() not in _ARCHITECTURES:
        raise CheckpointError(
            f"{path}: architecture {architecture!r}; give one of "
            f"{', '.join(sorted(each.__name__ for each in _ARCHITECTURES.values()))}"
        )
    mean = _triple(path, "mean", config.pop("mean", None), IMAGENET_MEAN)
    std = _triple(path, "std", config.pop("std", None), IMAGENET_STD)
    if min(std) <= 0:
        raise CheckpointError(f"{path}: std {list(std)}; give numbers above 0")
    names = config.pop("class_names", ())
    if not isinstance(names, (list, tuple)) or any(not isinstance(name, str) for name in names):
        raise CheckpointError(f"{path}: class_names is no list of names")
    arguments = _arguments(path, config)
    kept = {n: t for n, t in state.tensors.items() if not n.startswith(_AUXILIARY)}
    network = load_strictly(
        lambda: _build(path, architecture, arguments),
        StateDict(state.path, kept, state.others),
        f"{architecture} on {arguments.get('encoder_name')} as {path.name} describes it",
        on_meta=False,  # encoders of timm compute buffers that no state dict holds
    )
    return LoadedSegmenter(
        network=network,
        kind=f"{_ARCHITECTURES[architecture.lower()].__name__} of segmentation_models_pytorch on "
        f"{arguments.get('encoder_name')}",
        channels=int(arguments["classes"]),
        stride=_stride(network),
        papers=(),
        names=tuple(names),
        mean=mean,
        std=std,
    )


def _config_path(weights: Path) -> Path:
    if weights.name == WEIGHTS and (weights.parent / CONFIG).exists():
        return weights.parent / CONFIG
    return weights.with_suffix(".json")


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            raise CheckpointError(f"{path}: has more than {_LARGEST} bytes")
        config = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: no such file; weights of segmentation_models_pytorch need it to say what to "
            'build: {"architecture": "Unet", "encoder_name": "resnet34", "classes": 4}'
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: not an object with named fields")
    return config


def _triple(path: Path, name: str, value: object, default: Channels) -> Channels:
    if value is None:
        return default
    if (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(v, (int, float)) and abs(v) < 1e6 for v in value)
    ):
        return (float(value[0]), float(value[1]), float(value[2]))
    raise CheckpointError(f"{path}: {name} is {value!r}; give three numbers, for R, G and B")


def _arguments(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The constructor's, with all that would fetch something or change the logits taken out."""
    arguments = {name: value for name, value in config.items() if not name.startswith("_")}
    arguments.setdefault("classes", 1)
    arguments.setdefault("encoder_name", "resnet34")
    encoder, classes = arguments["encoder_name"], arguments["classes"]
    # timm takes "hf-hub:owner/name" and fetches it.
    if not isinstance(encoder, str) or ":" in encoder or "/" in encoder:
        raise CheckpointError(f"{path}: encoder_name {encoder!r}; give the name of a known encoder")
    if not isinstance(classes, int) or not 1 <= classes <= _CLASSES:
        raise CheckpointError(f"{path}: classes is {classes!r}; give 1 to {_CLASSES}")
    if arguments.get("in_channels", 3) != 3:
        raise CheckpointError(f"{path}: in_channels is {arguments['in_channels']!r}; RGB has three")
    return arguments | {"encoder_weights": None, "activation": None, "aux_params": None}


def _build(path: Path, architecture: str, arguments: dict[str, Any]) -> nn.Module:
    build = _ARCHITECTURES[architecture.lower()]
    known = inspect.signature(build).parameters
    unknown = sorted(set(arguments) - set(known))
    if unknown and not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values()):
        raise CheckpointError(f"{path}: {architecture} has no argument {', '.join(unknown)}")
    try:
        return build(**arguments)
    except Exception as error:  # the constructors raise many kinds, all about their arguments
        raise CheckpointError(f"{path}: {architecture} cannot be built: {error}") from error


def _stride(network: nn.Module) -> int:
    needs = getattr(network, "requires_divisible_input_shape", True)
    return int(network.encoder.output_stride) if needs else 1  # type: ignore[union-attr,arg-type]
