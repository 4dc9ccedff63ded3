"""DeepLabv3 (arXiv:1706.05587) and DeepLabv3+ (Chen et al. 2018, arXiv:1802.02611) as VainF names
them: `backbone`, `classifier.aspp`, `classifier.project`, `classifier.classifier`.

The pyramid of dilated convolutions is torchvision's, which has the same names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import ASPP

from velatura.export.networks import padded_mobilenet
from velatura.export.networks.padded_mobilenet import PaddedMobileNet
from velatura.export.networks.resnet_features import ResNetFeatures

Backbone = Literal["resnet50", "resnet101", "mobilenet"]

_ASPP = 256  # feature maps of the pyramid and the decoder
_PROJECTED = 48  # and of the low-level features
_RATES = {8: (12, 24, 36), 16: (6, 12, 18)}  # by output stride
_RESNET_CHANNELS = (256, 2048)  # low-level, last


@dataclass(frozen=True)
class DeepLabConfig:
    """What rebuilds the network. `output_stride` shows in no weight."""

    backbone: Backbone
    classes: int
    output_stride: int = 16  # or 8
    plus: bool = True  # DeepLabv3+, or DeepLabv3 without the low-level features
    separable: bool = False  # the decoder's 3×3 convolutions, each a map and then a point at a time


class PlusHead(nn.Module):
    """Features at stride 4 and at the output stride → logits at stride 4."""

    def __init__(
        self, low_channels: int, channels: int, classes: int, rates: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.project = nn.Sequential(
            nn.Conv2d(low_channels, _PROJECTED, 1, bias=False),
            nn.BatchNorm2d(_PROJECTED),
            nn.ReLU(),
        )
        self.aspp = ASPP(channels, rates)
        self.classifier = nn.Sequential(
            nn.Conv2d(_PROJECTED + _ASPP, _ASPP, 3, padding=1, bias=False),
            nn.BatchNorm2d(_ASPP),
            nn.ReLU(),
            nn.Conv2d(_ASPP, classes, 1),
        )

    def forward(self, low: Tensor, last: Tensor) -> Tensor:
        low = self.project(low)  # [N, 48, H/4, W/4]
        context = self.aspp(last)  # [N, 256, H/s, W/s]
        size = low.shape[2:]
        context = F.interpolate(context, size=size, mode="bilinear", align_corners=False)
        return cast("Tensor", self.classifier(torch.cat([low, context], dim=1)))


class PlainHead(nn.Module):
    """Features at the output stride → logits there; the low-level ones are not used."""

    def __init__(self, channels: int, classes: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.classifier = nn.Sequential(
            ASPP(channels, rates),
            nn.Conv2d(_ASPP, _ASPP, 3, padding=1, bias=False),
            nn.BatchNorm2d(_ASPP),
            nn.ReLU(),
            nn.Conv2d(_ASPP, classes, 1),
        )

    def forward(self, low: Tensor, last: Tensor) -> Tensor:
        del low
        return cast("Tensor", self.classifier(last))


class SeparableConv(nn.Module):
    """A convolution of each map by itself, then one of single points across maps."""

    def __init__(self, like: nn.Conv2d) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(
                like.in_channels,
                like.in_channels,
                3,
                padding=like.dilation[0],
                dilation=like.dilation[0],
                groups=like.in_channels,
                bias=False,
            ),
            nn.Conv2d(like.in_channels, like.out_channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.body(x))


def _separate(module: nn.Module) -> None:
    """Put separable convolutions in the place of all that are larger than 1×1."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and child.kernel_size != (1, 1):
            setattr(module, name, SeparableConv(child))
        else:
            _separate(child)


class DeepLab(nn.Module):
    """RGB [N, 3, H, W], normalised as for ImageNet → logits [N, C, H, W]."""

    def __init__(self, config: DeepLabConfig) -> None:
        super().__init__()
        low, last = _RESNET_CHANNELS
        if config.backbone == "mobilenet":
            self.backbone: nn.Module = PaddedMobileNet(config.output_stride)
            low, last = padded_mobilenet.LOW_LEVEL_CHANNELS, padded_mobilenet.OUT_CHANNELS
        else:
            depth = int(config.backbone.removeprefix("resnet"))
            self.backbone = ResNetFeatures(depth, (False, config.output_stride == 8, True))
        rates = _RATES[config.output_stride]
        self.classifier: nn.Module = (
            PlusHead(low, last, config.classes, rates)
            if config.plus
            else PlainHead(last, config.classes, rates)
        )
        if config.separable:
            _separate(self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        features = self.backbone(x)  # the low-level ones first, the last ones last
        logits = self.classifier(features[0], features[-1])
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)
