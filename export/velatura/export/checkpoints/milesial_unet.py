"""U-Nets of milesial's Pytorch-UNet (`checkpoint_epoch5.pth`), bilinear or transposed."""

from __future__ import annotations

from dataclasses import replace

from velatura.export.checkpoints.loaded_segmenter import LoadedSegmenter
from velatura.export.checkpoints.state_dicts import StateDict, channels, load_strictly
from velatura.export.errors import CheckpointError
from velatura.export.networks.unet import UNet, UNetConfig

_MARK = "inc.double_conv.0.weight"
_LOGITS = "outc.conv.weight"
# The mask images' grey levels (or colours), a class each; no weights.
_MASK_VALUES = "mask_values"


def matches(state: StateDict) -> bool:
    """Whether the names are those of this format."""
    return _MARK in state.tensors


def load(state: StateDict) -> LoadedSegmenter:
    """The network, for pictures in [0, 1]. Raises CheckpointError as `load_strictly`."""
    others = {name: value for name, value in state.others.items() if name != _MASK_VALUES}
    seen = channels(state, _MARK, axis=1)
    if seen != 3:
        raise CheckpointError(f"{state.path}: the U-Net takes {seen} channels; RGB has three")
    config = UNetConfig(
        classes=channels(state, _LOGITS),
        width=channels(state, _MARK),
        bilinear="up1.up.weight" not in state.tensors,
        bias="inc.double_conv.0.bias" in state.tensors,
    )
    return LoadedSegmenter(
        network=load_strictly(lambda: UNet(config), replace(state, others=others), "this U-Net"),
        kind=f"U-Net with {'bilinear' if config.bilinear else 'transposed'} up-sampling",
        channels=config.classes,
        stride=16,
        papers=("Ronneberger et al. 2015, arXiv:1505.04597",),
        mean=(0, 0, 0),
        std=(1, 1, 1),
    )
