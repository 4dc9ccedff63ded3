"""Classifiers cut down to their feature maps: VGG (arXiv:1409.1556) and ResNet (arXiv:1512.03385).

Names of the tensors are torchvision's. Pictures come in [0, 1]; ImageNet's normalisation is inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

# Of ImageNet's pictures in [0, 1], by red, green and blue.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """[N, 3, H, W] in [0, 1] → what networks that were trained on ImageNet take."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, values in (("mean", _MEAN), ("deviation", _DEVIATION)):
            # Not of a checkpoint, so there even when the rest is still on "meta".
            constant = torch.tensor(values, device="cpu")[:, None, None]
            self.register_buffer(name, constant, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.deviation


@dataclass(frozen=True)
class VggLayer:
    """One convolution: its number in torchvision's `features`, its name, what follows it."""

    position: int
    name: str  # "relu4_1" of the activation after it
    channels: int
    norm: bool
    pool: bool


class VggFeatures(nn.Module):
    """Picture [N, 3, H, W] → the activations named in `wanted`, [N, C, H/2ⁱ, W/2ⁱ] each."""

    def __init__(self, plan: Sequence[VggLayer], wanted: Sequence[str]) -> None:
        super().__init__()
        self.normalise = Normalise()
        # A Sequential would be followed to the end; here the numbers are kept and some are left.
        self.features = nn.ModuleDict()
        self.plan = tuple(plan)
        self.wanted = tuple(wanted)
        inputs = 3
        for layer in plan:
            conv = nn.Conv2d(inputs, layer.channels, 3, padding=1)
            self.features[str(layer.position)] = conv
            if layer.norm:
                self.features[str(layer.position + 1)] = nn.BatchNorm2d(layer.channels)
            inputs = layer.channels

    @property
    def outputs(self) -> dict[str, int]:
        """Names of the maps in order, and their channels."""
        widths = {layer.name: layer.channels for layer in self.plan}
        return {name: widths[name] for name in self.wanted}

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x = self.normalise(image)
        found: dict[str, Tensor] = {}
        for layer in self.plan:
            x = self.features[str(layer.position)](x)
            if layer.norm:
                x = self.features[str(layer.position + 1)](x)
            x = found[layer.name] = torch.relu(x)
            if layer.pool:
                x = nn.functional.max_pool2d(x, 2)
        return tuple(found[name] for name in self.wanted)


class ResNetFeatures(nn.Module):
    """Picture [N, 3, H, W] → outputs of layer1 … layer4, at 1/4, 1/8, 1/16 and 1/32 of its size."""

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.network = network

    @property
    def outputs(self) -> dict[str, int]:
        """Names of the maps in order, and their channels."""
        net = self.network
        stages = {"layer1": net.layer1, "layer2": net.layer2}
        stages |= {"layer3": net.layer3, "layer4": net.layer4}
        return {name: _width(stage[-1]) for name, stage in stages.items()}

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        net = self.network
        x = net.maxpool(net.relu(net.bn1(net.conv1(self.normalise(image)))))  # [N, 64, H/4, W/4]
        maps = []
        for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
            x = layer(x)
            maps.append(x)
        return tuple(maps)


def _width(block: BasicBlock | Bottleneck) -> int:
    """Outputs of a residual block."""
    last = block.bn3 if isinstance(block, Bottleneck) else block.bn2
    return int(last.num_features)
