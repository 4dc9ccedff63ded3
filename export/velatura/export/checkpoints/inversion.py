"""Checkpoints of pSp, e4e and ReStyle (`.pt`): one layout, told apart by `opts.encoder_type`.

`state_dict` holds `encoder.*` and `decoder.*`, the latter a generator of stylegan2-pytorch;
`latent_avg` is the latent that the encoder's output is relative to, and `opts` the options of the
training run, a dictionary or an argparse.Namespace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from velatura.export.checkpoints import rosinality
from velatura.export.checkpoints.inert import Record, StoredTensor
from velatura.export.checkpoints.pickle_machine import Limits
from velatura.export.checkpoints.safe_pickle import map_file
from velatura.export.checkpoints.torch_archive import is_archive, load_archive
from velatura.export.errors import CheckpointError
from velatura.export.networks.gradual_style import StyleEncoder, StyleEncoderConfig
from velatura.export.networks.ir_se50 import BackboneConfig
from velatura.export.networks.stylegan2 import Generator

# By the name that opts give: whether there is a feature pyramid, and offsets to the first latent.
_TYPES = {
    "GradualStyleEncoder": (True, False),
    "Encoder4Editing": (True, True),
    "ResNetGradualStyleEncoder": (True, False),
    "BackboneEncoder": (False, False),
    "ResNetBackboneEncoder": (False, False),
    "ProgressiveBackboneEncoder": (False, True),
    "ResNetProgressiveBackboneEncoder": (False, True),
}
_RGB, _TWO_IMAGES = 3, 6
_LETTERBOXED = "cars_encode"  # the data set that was cut to 4:3


@dataclass(frozen=True)
class LoadedEncoder:
    """`network` in eval mode; `average` [num_ws, w_dim] is added to what it gives."""

    network: StyleEncoder
    average: Tensor
    encoder_type: str
    letterboxed: bool
    """Whether it sees the middle three quarters of the rows only, as those for cars."""

    @property
    def iterative(self) -> bool:
        """ReStyle: takes the image and the current reconstruction, six channels."""
        return self.network.config.backbone.image_channels == _TWO_IMAGES


def is_inversion(root: object) -> bool:
    """Whether a torch archive's content has this layout."""
    state = root.get("state_dict") if isinstance(root, dict) else None
    return isinstance(state, dict) and any(
        str(name).startswith(("encoder.", "decoder.")) for name in state
    )


def load_encoder(path: Path, limits: Limits | None = None) -> LoadedEncoder:
    """Raises CheckpointError naming the file and the tensor or option that does not fit."""
    if not is_archive(map_file(path, limits or Limits())):
        raise CheckpointError(
            f"{path}: no archive of torch.save; encoders are our NAME.safetensors, or the .pt of "
            "pSp, e4e or ReStyle"
        )
    root = load_archive(path, limits)
    try:
        options = _options(root)
        encoder_type = _encoder_type(options)
        state = _part(root, "encoder")
        config = _configuration(state, encoder_type)
        network = _assemble(config, state)
        average = _average(root, options, config, encoder_type)
    except CheckpointError as error:
        raise type(error)(f"{path}: encoder: {error}") from error
    letterboxed = options.get("dataset_type") == _LETTERBOXED
    return LoadedEncoder(network, average, encoder_type, letterboxed)


def load_decoder(path: Path, limits: Limits | None = None) -> Generator:
    """The generator that the encoder was trained with. Raises CheckpointError as above."""
    root = load_archive(path, limits)
    try:
        values = _part(root, "decoder")
        average = root.get("latent_avg") if isinstance(root, dict) else None
        return rosinality.from_state(values, average)
    except CheckpointError as error:
        raise type(error)(f"{path}: decoder: {error}") from error


def _part(root: object, part: str) -> dict[object, object]:
    """One network's entries, by their names in it."""
    state = root.get("state_dict") if isinstance(root, dict) else None
    if not isinstance(state, dict):
        raise CheckpointError("the file has no state_dict; is it one of pSp, e4e or ReStyle?")
    prefix = f"{part}."
    found: dict[object, object] = {
        str(name).removeprefix(prefix): value
        for name, value in state.items()
        if str(name).startswith(prefix)
    }
    if not found:
        raise CheckpointError(f"state_dict has no {prefix}* tensors")
    return found


def _options(root: object) -> Mapping[str, object]:
    options = root.get("opts") if isinstance(root, dict) else None
    if isinstance(options, Record):
        return options.fields
    if isinstance(options, dict):
        return options
    raise CheckpointError("the file has no opts; they say which kind of encoder it is")


def _encoder_type(options: Mapping[str, object]) -> str:
    name = options.get("encoder_type")
    if not isinstance(name, str) or name not in _TYPES:
        raise CheckpointError(
            f"opts.encoder_type is {name!r}; supported are {', '.join(sorted(_TYPES))}"
        )
    return name


def _configuration(state: Mapping[object, object], encoder_type: str) -> StyleEncoderConfig:
    """Widths and counts from the tensors' shapes."""
    resnet = encoder_type.startswith("ResNet")
    first = _shape(state, "conv1.weight" if resnet else "input_layer.0.weight", 4)
    if first[1] not in (_RGB, _TWO_IMAGES):
        raise CheckpointError(
            f"the image has {first[1]} channels; encoders of RGB images (3) and of ReStyle (6) are "
            "supported, those of sketches and label maps are not"
        )
    last = "conv2" if resnet else "res_layer.3"
    outputs: list[int] = []
    while f"body.{len(outputs)}.{last}.weight" in state:
        outputs.append(_shape(state, f"body.{len(outputs)}.{last}.weight", 4)[0])
    widths = tuple(dict.fromkeys(outputs))
    if len(widths) != 4 or outputs != sorted(outputs) or widths[0] != first[0]:
        raise CheckpointError(
            f"the units have {widths} channels after a first layer of {first[0]}; four rising "
            "widths are expected that begin with it"
        )
    squeeze = 0
    if "body.0.res_layer.5.fc1.weight" in state:
        squeeze = widths[0] // max(1, _shape(state, "body.0.res_layer.5.fc1.weight", 4)[0])
    backbone = BackboneConfig(
        kind="resnet" if resnet else "ir",
        widths=widths,
        units=tuple(outputs.count(width) for width in widths),
        image_channels=first[1],
        squeeze=squeeze,
    )
    layers = 0
    while f"styles.{layers}.linear.weight" in state:
        layers += 1
    w_dim = _shape(state, "styles.0.linear.weight", 2)[0]
    pyramid, deltas = _TYPES[encoder_type]
    return StyleEncoderConfig(backbone, layers, w_dim, pyramid, deltas)


def _shape(state: Mapping[object, object], name: str, axes: int) -> tuple[int, ...]:
    tensor = state.get(name)
    if not isinstance(tensor, StoredTensor) or len(tensor.shape) != axes or 0 in tensor.shape:
        raise CheckpointError(f"has no tensor {name} of {axes} axes")
    return tensor.shape


def _assemble(config: StyleEncoderConfig, state: Mapping[object, object]) -> StyleEncoder:
    """In eval mode and float32, from all of the tensors and no others."""
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if not isinstance(value, StoredTensor):
            raise CheckpointError(f"{name} is no tensor")
        tensor = value.tensor()
        tensors[str(name)] = tensor.float() if tensor.is_floating_point() else tensor
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{name} holds numbers that are not finite")
    with torch.device("meta"):  # nothing is drawn at random only to be overwritten
        network = StyleEncoder(config)
    try:
        network.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"the tensors are not those of its encoder_type: {error}") from error
    return network.eval().requires_grad_(False)


def _average(
    root: object, options: Mapping[str, object], config: StyleEncoderConfig, encoder_type: str
) -> Tensor:
    """[num_ws, w_dim]; zeros for encoders that were trained to give whole latents."""
    shape = (config.num_ws, config.w_dim)
    iterative = config.backbone.image_channels == _TWO_IMAGES
    if not iterative and options.get("start_from_latent_avg", True) is False:
        return torch.zeros(shape)
    value = root.get("latent_avg") if isinstance(root, dict) else None
    if not isinstance(value, StoredTensor):
        raise CheckpointError(
            f"the file has no latent_avg, which what {encoder_type} gives is relative to"
        )
    average = value.tensor().float()
    if average.shape[-1:] != shape[1:] or average.numel() not in (shape[1], shape[0] * shape[1]):
        raise CheckpointError(
            f"latent_avg has shape {list(average.shape)}, expected {list(shape)} or [{shape[1]}]"
        )
    if not torch.isfinite(average).all():
        raise CheckpointError("latent_avg holds numbers that are not finite")
    return average.reshape(-1, shape[1]).expand(shape).clone()
