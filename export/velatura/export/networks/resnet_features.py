"""ResNet without its classifier (He et al. 2016, arXiv:1512.03385), as segmenters use it.

The layers are torchvision's, so that the state-dict names are those of everybody's checkpoints:
`conv1`, `bn1`, `layer1` … `layer4`.
"""

from __future__ import annotations

import torchvision.models
from torch import Tensor, nn


class ResNetFeatures(nn.Module):
    """[N, 3, H, W] → the outputs of the four stages, at strides 4, 8, 16 and 32.

    `dilated` keeps the size in stages 2, 3 and 4, and dilates their convolutions instead (from
    depth 50 on).
    """

    def __init__(
        self, depth: int, dilated: tuple[bool, bool, bool] = (False, False, False)
    ) -> None:
        super().__init__()
        build = getattr(torchvision.models, f"resnet{depth}")
        whole = build(weights=None, replace_stride_with_dilation=list(dilated))
        self.conv1: nn.Module = whole.conv1
        self.bn1: nn.Module = whole.bn1
        self.relu: nn.Module = whole.relu
        self.maxpool: nn.Module = whole.maxpool
        self.layer1: nn.Module = whole.layer1
        self.layer2: nn.Module = whole.layer2
        self.layer3: nn.Module = whole.layer3
        self.layer4: nn.Module = whole.layer4

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.relu(self.bn1(self.conv1(x)))  # [N, 64, H/2, W/2]
        x = self.maxpool(x)
        stages = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            stages.append(x)
        return stages
