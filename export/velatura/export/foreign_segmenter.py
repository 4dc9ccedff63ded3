"""Segmenters of other projects → the network that the server's role asks for.

A file is recognised by its tensors' names. Whatever the project's own conventions, the graph takes
an image in [-1, 1], normalises it inside, and gives logits of the image's size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from velatura.export.checkpoints import (
    bisenet,
    milesial_unet,
    smp_model,
    torchvision_deeplab,
    vainf_deeplab,
)
from velatura.export.checkpoints.loaded_segmenter import LoadedSegmenter
from velatura.export.checkpoints.state_dicts import StateDict, read_state
from velatura.export.double_precision import float64_reference
from velatura.export.errors import CheckpointError
from velatura.export.generator_networks import Origin, picture
from velatura.export.specification import NetworkSpec, Port
from velatura.v1 import bundle_pb2

DEFAULT_SIZE = 256
LARGEST = 1024
_LARGEST_IN_EIGHTS = 256  # px; beyond, a batch of 8 takes gigabytes
_TOLERANCE = 2e-4  # of deep networks whose outputs have magnitude one
_CLASSES = 256  # label maps are of bytes


class Loader(Protocol):
    """One module a format."""

    def matches(self, state: StateDict, /) -> bool: ...

    def load(self, state: StateDict, /) -> LoadedSegmenter: ...


FORMATS: Mapping[str, Loader] = {
    "BiSeNet face parsing": bisenet,
    "U-Net of milesial": milesial_unet,
    "DeepLabv3 of torchvision": torchvision_deeplab,
    "DeepLab of VainF": vainf_deeplab,
    "segmentation_models_pytorch": smp_model,
}


class PreparedSegmenter(nn.Module):
    """Image [N, 3, S, S] in [-1, 1] → logits [N, C, S, S], C at least two."""

    scale: Tensor
    shift: Tensor

    def __init__(self, loaded: LoadedSegmenter) -> None:
        super().__init__()
        self.network = loaded.network
        self.binary = loaded.channels == 1
        mean, std = torch.tensor([loaded.mean, loaded.std], dtype=torch.float64)
        # ((image + 1) / 2 - mean) / std in one multiplication and one addition.
        scale, shift = 0.5 / std, (0.5 - mean) / std
        self.register_buffer("scale", scale.float()[:, None, None])
        self.register_buffer("shift", shift.float()[:, None, None])

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(image * self.scale + self.shift)  # [N, C, S, S]
        if self.binary:
            # sigmoid(x) > 1/2 is x > 0: the background's logit is 0.
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)  # [N, 2, S, S]
        return logits


def load_foreign_segmenter(path: Path) -> LoadedSegmenter:
    """A file, or the folder of smp's `save_pretrained` or its `model.safetensors`.

    Raises CheckpointError when no format fits, and as the loaders.
    """
    if path.is_dir():
        return recognised(smp_model.read_folder(path))
    if path.name == smp_model.WEIGHTS:
        return recognised(smp_model.read_folder(path.parent))
    return recognised(read_state(path))


def recognised(state: StateDict) -> LoadedSegmenter:
    """The segmenter of a state dict, by its names. Raises CheckpointError as the loaders."""
    for loader in FORMATS.values():
        if loader.matches(state):
            return loader.load(state)
    raise CheckpointError(
        f"{state.path}: a state dict of no segmenter that is known ({', '.join(FORMATS)}); its "
        f"first tensors are {', '.join(sorted(state.tensors)[:5])}"
    )


def foreign_segmenter_spec(
    name: str,
    loaded: LoadedSegmenter,
    origin: Origin,
    *,
    size: int = DEFAULT_SIZE,
    class_names: Sequence[str] = (),
) -> NetworkSpec:
    """The network at `size` px, checked at another size as well.

    Classes are called as `class_names`, or as the format names them, or by number. Raises
    CheckpointError for a size that the network cannot have, and for names that are too few.
    """
    labels = _labels(name, loaded, class_names)
    module = PreparedSegmenter(loaded).eval().requires_grad_(False)
    spec = _spec(name, module, labels, size, loaded, origin)
    other = _other_size(size, loaded.stride)
    for each in (size, other):
        _require_size(name, loaded, module, len(labels), each)
    return replace(spec, twins=(_spec(name, module, labels, other, loaded, origin),))


def _spec(
    name: str,
    module: nn.Module,
    labels: tuple[str, ...],
    size: int,
    loaded: LoadedSegmenter,
    origin: Origin,
) -> NetworkSpec:
    inputs = (picture("image", size),)
    outputs = (Port("logits", (-1, len(labels), size, size), layout="NCHW"),)
    return NetworkSpec(
        name=name,
        role=bundle_pb2.ROLE_SEGMENTER,
        module=module,
        inputs=inputs,
        outputs=outputs,
        background=origin.background(
            f"{loaded.kind}: one of {len(labels)} regions for each pixel of an {origin.subject}. "
            "The image is normalised inside the graph.",
            "Limiting an edit or a style to named regions.",
            loaded.papers,
        ),
        labels=labels,
        tolerance=_TOLERANCE,
        batch_sizes=(1, 3, 8) if size <= _LARGEST_IN_EIGHTS else (1, 2, 3),
        references=(float64_reference(module, inputs, outputs, _TOLERANCE),),
    )


def _labels(name: str, loaded: LoadedSegmenter, given: Sequence[str]) -> tuple[str, ...]:
    count = max(loaded.channels, 2)
    if count > _CLASSES:
        raise CheckpointError(f"{name}: {count} classes; label maps hold {_CLASSES} at most")
    labels = tuple(given or loaded.names)
    if not labels:
        numbered = tuple(str(index) for index in range(count))
        return ("background", "foreground") if loaded.channels == 1 else numbered
    if len(labels) != count or len(set(labels)) != count:
        raise CheckpointError(
            f"{name}: {len(labels)} class names, {len(set(labels))} of them different; the "
            f"segmenter has {count} classes{' with the background' if count == 2 else ''}, so give "
            f"{count} names"
        )
    return labels


def _other_size(size: int, stride: int) -> int:
    """About half of it where the network can have that, so that checking it costs little."""
    half = size // 2 // stride * stride
    return half if half >= 2 * stride else size + stride


def _require_size(
    name: str, loaded: LoadedSegmenter, module: nn.Module, classes: int, size: int
) -> None:
    least = max(loaded.stride, 16)
    if not least <= size <= LARGEST or size % loaded.stride:
        raise CheckpointError(
            f"{name}: {size} px; {loaded.kind} takes {least} to {LARGEST} px in multiples of "
            f"{loaded.stride}"
        )
    try:
        with torch.inference_mode():
            shape = list(module(torch.zeros(1, 3, size, size)).shape)
    except Exception as error:  # networks raise many kinds; whichever, they cannot run at this size
        raise CheckpointError(
            f"{name}: {loaded.kind} does not run at {size} px: {error}"
        ) from error
    if shape != [1, classes, size, size]:
        raise CheckpointError(
            f"{name}: {loaded.kind} gives logits of {shape} at {size} px; expected "
            f"[1, {classes}, {size}, {size}]. Give another --segmenter-size"
        )
