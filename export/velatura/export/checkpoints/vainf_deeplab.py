"""DeepLabv3+ and DeepLabv3 of VainF's DeepLabV3Plus-Pytorch: {"model_state": …, and the trainer's}.

The output stride is in no weight: it is taken from `os8` or `os16` in the file's name, as the
project calls its files, and is 16, the project's default, without.
"""

from __future__ import annotations

import re
from pathlib import Path

from velatura.export.checkpoints.loaded_segmenter import VOC, LoadedSegmenter
from velatura.export.checkpoints.state_dicts import StateDict, channels, load_strictly
from velatura.export.errors import CheckpointError
from velatura.export.networks.deeplab import Backbone, DeepLab, DeepLabConfig

_PLUS = "classifier.aspp.convs.0.0.weight"
_PLAIN = "classifier.classifier.0.convs.0.0.weight"
_STRIDE = re.compile(r"(?<![a-z])os(8|16)(?!\d)")
_PAPERS = {
    True: ("Chen et al. 2018, arXiv:1802.02611",),
    False: ("Chen et al. 2017, arXiv:1706.05587",),
}


def matches(state: StateDict) -> bool:
    """Whether the names are those of this format."""
    return _PLUS in state.tensors or _PLAIN in state.tensors


def load(state: StateDict) -> LoadedSegmenter:
    """The network. Raises CheckpointError as `load_strictly`, and for a backbone of HRNet."""
    plus = _PLUS in state.tensors
    config = DeepLabConfig(
        backbone=_backbone(state),
        classes=channels(state, f"classifier.classifier.{3 if plus else 4}.weight"),
        output_stride=output_stride(state.path),
        plus=plus,
        separable=f"{'classifier.' if plus else 'classifier.classifier.0.'}"
        f"{'aspp.' if plus else ''}convs.1.0.body.0.weight" in state.tensors,
    )
    version = "v3+" if plus else "v3"
    kind = f"DeepLab{version} on {config.backbone}"
    return LoadedSegmenter(
        network=load_strictly(lambda: DeepLab(config), state, kind),
        kind=f"{kind} at output stride {config.output_stride}",
        channels=config.classes,
        stride=config.output_stride,
        papers=_PAPERS[plus],
        names=VOC if config.classes == len(VOC) else (),
    )


def output_stride(path: Path) -> int:
    """From the file's name, or 16."""
    found = _STRIDE.search(path.name.lower())
    return int(found.group(1)) if found else 16


def _backbone(state: StateDict) -> Backbone:
    if "backbone.low_level_features.0.0.weight" in state.tensors:
        return "mobilenet"
    if "backbone.layer3.22.conv1.weight" in state.tensors:
        return "resnet101"
    if "backbone.layer3.5.conv1.weight" in state.tensors:
        return "resnet50"
    raise CheckpointError(
        f"{state.path}: the backbone is none of resnet50, resnet101 and mobilenet, which are "
        "supported"
    )
