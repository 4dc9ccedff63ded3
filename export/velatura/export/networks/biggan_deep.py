"""BigGAN-deep (Brock et al. 2018, arXiv:1809.11096, appendix B) with the names of
pytorch-pretrained-BigGAN's state dicts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velatura.export.networks.biggan_layers import (
    PlainStandingNorm,
    PooledAttention,
    StandingNorm,
    doubled,
    repeated,
)

_BOTTOM = 4  # px of the first feature maps


@dataclass(frozen=True)
class BlockShape:
    """One residual block: [N, inputs, H, W] → [N, outputs, H, W], or twice the size."""

    inputs: int
    middle: int
    outputs: int
    up: bool


@dataclass(frozen=True)
class BigGanDeepConfig:
    """What rebuilds the network; read off the tensors' shapes."""

    classes: tuple[str, ...]
    z_dim: int
    embedding_dim: int
    layers: tuple[BlockShape | None, ...]
    """Residual blocks, None for the self-attention."""
    rgb_channels: int
    """Outputs of the last convolution, of which the first three are the image."""
    eps: float = 1e-4

    @property
    def blocks(self) -> list[BlockShape]:
        return [layer for layer in self.layers if layer is not None]

    @property
    def resolution(self) -> int:
        return _BOTTOM << sum(block.up for block in self.blocks)


class _Block(nn.Module):
    """Bottleneck of four convolutions beside a skip that drops channels instead of mixing them."""

    def __init__(self, shape: BlockShape, condition_dim: int, eps: float) -> None:
        super().__init__()
        self.shape = shape
        inputs, middle = shape.inputs, shape.middle
        self.bn_0 = StandingNorm(inputs, condition_dim, eps)
        self.conv_0 = nn.Conv2d(inputs, middle, 1)
        self.bn_1 = StandingNorm(middle, condition_dim, eps)
        self.conv_1 = nn.Conv2d(middle, middle, 3, padding=1)
        self.bn_2 = StandingNorm(middle, condition_dim, eps)
        self.conv_2 = nn.Conv2d(middle, middle, 3, padding=1)
        self.bn_3 = StandingNorm(middle, condition_dim, eps)
        self.conv_3 = nn.Conv2d(middle, shape.outputs, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.conv_0(F.relu(self.bn_0(x, condition)))  # [N, middle, H, W]
        h = F.relu(self.bn_1(h, condition))
        h = doubled(self.conv_1, h) if self.shape.up else self.conv_1(h)  # [N, middle, 2H, 2W]
        h = self.conv_2(F.relu(self.bn_2(h, condition)))
        h = self.conv_3(F.relu(self.bn_3(h, condition)))  # [N, outputs, 2H, 2W]
        skip = x[:, : self.shape.outputs]
        out: Tensor = h + (repeated(skip) if self.shape.up else skip)
        return out


class _Generator(nn.Module):
    """condition [N, D] → image [N, 3, R, R] in [-1, 1]."""

    def __init__(self, config: BigGanDeepConfig) -> None:
        super().__init__()
        condition_dim = config.z_dim + config.embedding_dim
        blocks = config.blocks
        self.gen_z = nn.Linear(condition_dim, _BOTTOM * _BOTTOM * blocks[0].inputs)
        self.layers = nn.ModuleList()
        width = blocks[0].inputs
        for shape in config.layers:
            if shape is None:
                self.layers.append(PooledAttention(width))
            else:
                self.layers.append(_Block(shape, condition_dim, config.eps))
                width = shape.outputs
        self.bn = PlainStandingNorm(width, config.eps)
        self.conv_to_rgb = nn.Conv2d(width, config.rgb_channels, 3, padding=1)

    def forward(self, condition: Tensor) -> Tensor:
        x = self.gen_z(condition).unflatten(1, (_BOTTOM, _BOTTOM, -1))  # [N, 4, 4, C]
        x = x.permute(0, 3, 1, 2)  # [N, C, 4, 4]
        for layer in self.layers:
            x = layer(x, condition) if isinstance(layer, _Block) else layer(x)
        x = F.relu(self.bn(x))
        rgb = self.conv_to_rgb
        bias = None if rgb.bias is None else rgb.bias[:3]
        return F.conv2d(x, rgb.weight[:3], bias, padding=1).tanh()  # [N, 3, R, R]


class BigGanDeep(nn.Module):
    """z [N, z_dim], class_weights [N, C] (one-hot rows, or a mixture) → image [N, 3, R, R] in
    [-1, 1]."""

    def __init__(self, config: BigGanDeepConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = nn.Linear(len(config.classes), config.embedding_dim, bias=False)
        self.generator = _Generator(config)

    def forward(self, z: Tensor, class_weights: Tensor) -> Tensor:
        image: Tensor = self.generator(torch.cat([z, self.embeddings(class_weights)], dim=1))
        return image
