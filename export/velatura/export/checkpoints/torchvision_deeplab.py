"""torchvision's `deeplabv3_resnet50` and `deeplabv3_resnet101`: a bare state dict."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from torch import Tensor, nn
from torchvision.models import segmentation

from velatura.export.checkpoints.loaded_segmenter import VOC, LoadedSegmenter
from velatura.export.checkpoints.state_dicts import StateDict, channels, load_strictly
from velatura.export.errors import CheckpointError

_MARK = "classifier.0.convs.0.0.weight"
_LOGITS = "classifier.4.weight"
# A second head that only training uses.
_AUXILIARY = "aux_classifier."
_BUILDERS = {
    "resnet50": segmentation.deeplabv3_resnet50,
    "resnet101": segmentation.deeplabv3_resnet101,
}


class _Logits(nn.Module):
    """torchvision's networks return a dictionary."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.network(x)["out"])


def matches(state: StateDict) -> bool:
    """Whether the names are those of this format."""
    return _MARK in state.tensors


def load(state: StateDict) -> LoadedSegmenter:
    """The network without its auxiliary head. Raises CheckpointError as `load_strictly`."""
    kept = {n: t for n, t in state.tensors.items() if not n.startswith(_AUXILIARY)}
    if "backbone.layer4.0.conv3.weight" not in kept:
        raise CheckpointError(
            f"{state.path}: a DeepLabv3 of torchvision, but on no ResNet with bottlenecks; "
            f"supported are {', '.join(_BUILDERS)}"
        )
    backbone = "resnet101" if "backbone.layer3.22.conv1.weight" in kept else "resnet50"
    classes = channels(state, _LOGITS)

    def build() -> nn.Module:
        network: nn.Module = _BUILDERS[backbone](
            weights=None, weights_backbone=None, num_classes=classes, aux_loss=False
        )
        return network

    network = load_strictly(build, replace(state, tensors=kept), f"deeplabv3_{backbone}")
    return LoadedSegmenter(
        network=_Logits(network).eval(),
        kind=f"DeepLabv3 on {backbone}",
        channels=classes,
        stride=8,
        papers=("Chen et al. 2017, arXiv:1706.05587",),
        names=VOC if classes == len(VOC) else (),
    )
