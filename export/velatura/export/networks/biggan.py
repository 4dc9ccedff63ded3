"""BigGAN generator (Brock et al. 2018, arXiv:1809.11096), class-conditional, at small sizes.

z is cut into one chunk for the first layer and one for each block (hierarchical latents); every
block's batch norms take their gain and bias from its chunk and the shared class embedding. Residual
up-blocks, one self-attention block (Zhang et al. 2018, arXiv:1805.08318), spectral normalisation
(Miyato et al. 2018, arXiv:1802.05957) of every convolution and of the first layer.

Spectral normalisation is a reparametrisation while training; `baked` turns it into plain weights,
so that the graph holds W/σ and nothing else. In eval mode batch norm uses its standing statistics:
an image depends on its own z and class only, at any batch size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from velatura.export.networks.upsampling import upsample_convolve

_NEAREST = (1, 1)  # taps of the filter that repeats every sample: nearest-neighbour up-sampling


@dataclass(frozen=True)
class ClassGeneratorConfig:
    """What rebuilds a class-conditional generator from its weights; written beside them as JSON."""

    classes: tuple[str, ...]
    resolution: int = 64
    chunk_dim: int = 12
    embedding_dim: int = 32
    # Feature maps by resolution, from 4 up to `resolution`.
    channels: Mapping[int, int] = field(
        default_factory=lambda: {4: 256, 8: 192, 16: 128, 32: 64, 64: 32}
    )
    attention_resolution: int = 16
    # Whether the weights are stored with their normalisation; False for baked ones.
    spectral_norm: bool = True

    def __post_init__(self) -> None:
        sizes = [2**i for i in range(2, self.resolution.bit_length())]
        if self.resolution < 8 or sizes[-1] != self.resolution:
            raise ValueError(
                f"resolution: {self.resolution} is not 8, 16, 32 or another such power"
            )
        if sorted(self.channels) != sizes:
            raise ValueError(
                f"channels: widths for {sorted(self.channels)} px, "
                f"a generator of {self.resolution} px needs {sizes}"
            )
        if self.attention_resolution not in sizes[1:]:
            raise ValueError(
                f"attention_resolution: {self.attention_resolution} is none of {sizes[1:]}"
            )
        if not self.classes:
            raise ValueError("classes: name at least one")

    @property
    def blocks(self) -> int:
        """Up-blocks: each doubles the size, from 4 to `resolution`."""
        return int(math.log2(self.resolution)) - 2

    @property
    def z_dim(self) -> int:
        """One chunk for the first layer and one for each block."""
        return self.chunk_dim * (self.blocks + 1)


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose gain 1 + G·c and bias B·c are linear in the condition c [N, D].

    Both maps are plain: normalised ones could move a channel by no more than |c|/√channels, too
    little for a colour. They start near zero, as an unconditional batch norm.
    """

    def __init__(self, channels: int, condition_dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False, eps=1e-4)
        self.gain = nn.Linear(condition_dim, channels, bias=False)
        self.bias = nn.Linear(condition_dim, channels, bias=False)
        nn.init.normal_(self.gain.weight, std=0.02)
        nn.init.normal_(self.bias.weight, std=0.02)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gain = 1 + self.gain(condition)[:, :, None, None]  # [N, C, 1, 1]
        bias = self.bias(condition)[:, :, None, None]
        return torch.addcmul(bias, gain, self.norm(x))  # [N, C, H, W]


class SelfAttention(nn.Module):
    """x + γ · O(softmax(QKᵀ/√d) V) over all places of x [N, C, H, W]; γ starts at 0.

    Q, K [N, HW, d] with d = C/8, V [N, HW, C/2]; Q, K, V and O are 1×1 convolutions.
    """

    def __init__(self, channels: int, *, normalised: bool = True) -> None:
        super().__init__()
        self.depth = max(channels // 8, 1)
        self.query = _conv(channels, self.depth, 1, normalised, bias=False)
        self.key = _conv(channels, self.depth, 1, normalised, bias=False)
        self.value = _conv(channels, channels // 2, 1, normalised, bias=False)
        self.out = _conv(channels // 2, channels, 1, normalised, bias=False)
        self.gamma = nn.Parameter(torch.zeros([]))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        query = self.query(x).flatten(2)  # [N, d, HW]
        key = self.key(x).flatten(2)  # [N, d, HW]
        value = self.value(x).flatten(2)  # [N, C/2, HW]
        scores = query.transpose(1, 2) @ key / math.sqrt(self.depth)  # [N, HW, HW]
        mixed = value @ scores.softmax(dim=2).transpose(1, 2)  # [N, C/2, HW]
        out: Tensor = self.out(mixed.unflatten(2, (height, width)))  # [N, C, H, W]
        return x + self.gamma * out


class UpBlock(nn.Module):
    """Residual block that doubles the size: [N, in, H, W] → [N, out, 2H, 2W]."""

    def __init__(
        self, in_channels: int, out_channels: int, condition_dim: int, normalised: bool
    ) -> None:
        super().__init__()
        self.norm0 = ConditionalBatchNorm(in_channels, condition_dim)
        self.conv0 = _conv(in_channels, out_channels, 3, normalised)
        self.norm1 = ConditionalBatchNorm(out_channels, condition_dim)
        self.conv1 = _conv(out_channels, out_channels, 3, normalised)
        self.skip = _conv(in_channels, out_channels, 1, normalised)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = F.relu(self.norm0(x, condition))
        # Repeating the samples and convolving, as one transposed convolution: less than half the
        # operations.
        h = upsample_convolve(h, self.conv0.weight, _NEAREST)  # [N, out, 2H, 2W]
        if self.conv0.bias is not None:
            h = h + self.conv0.bias[:, None, None]
        h = self.conv1(F.relu(self.norm1(h, condition)))
        # A 1×1 convolution and the repetition commute; convolving first is a quarter of the work.
        skip = F.interpolate(self.skip(x), scale_factor=2.0, mode="nearest")
        out: Tensor = h + skip  # [N, out, 2H, 2W]
        return out


class ClassGenerator(nn.Module):
    """z [N, z_dim], class_weights [N, C] (one-hot rows, or a mixture) → image [N, 3, R, R] in
    [-1, 1]."""

    def __init__(self, config: ClassGeneratorConfig) -> None:
        super().__init__()
        self.config = config
        normalised = config.spectral_norm
        widths = [config.channels[size] for size in sorted(config.channels)]
        condition_dim = config.embedding_dim + config.chunk_dim
        self.embed = nn.Linear(len(config.classes), config.embedding_dim, bias=False)
        self.first = nn.Linear(config.chunk_dim, widths[0] * 16)
        nn.init.orthogonal_(self.first.weight)
        nn.init.normal_(self.embed.weight)
        if normalised:
            spectral_norm(self.first)
        self.blocks = nn.ModuleList(
            UpBlock(narrow, wide, condition_dim, normalised) for narrow, wide in pairwise(widths)
        )
        self.attention = SelfAttention(
            config.channels[config.attention_resolution], normalised=normalised
        )
        self.last_norm = nn.BatchNorm2d(widths[-1], eps=1e-4)
        self.to_rgb = _conv(widths[-1], 3, 3, normalised)

    def forward(self, z: Tensor, class_weights: Tensor) -> Tensor:
        chunks = torch.split(z, self.config.chunk_dim, dim=1)  # blocks + 1 of [N, chunk_dim]
        classes = self.embed(class_weights)  # [N, embedding_dim]
        x = self.first(chunks[0]).unflatten(1, (-1, 4, 4))  # [N, C, 4, 4]
        for index, block in enumerate(self.blocks):
            x = block(x, torch.cat([classes, chunks[index + 1]], dim=1))
            if 8 << index == self.config.attention_resolution:
                x = self.attention(x)
        image: Tensor = self.to_rgb(F.relu(self.last_norm(x)))  # [N, 3, R, R]
        return image.tanh()


def _conv(
    in_channels: int, out_channels: int, size: int, normalised: bool, *, bias: bool = True
) -> nn.Conv2d:
    """Orthogonally initialised convolution that keeps the size, spectrally normalised if asked."""
    conv = nn.Conv2d(in_channels, out_channels, size, padding=size // 2, bias=bias)
    nn.init.orthogonal_(conv.weight)
    if bias and conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return cast("nn.Conv2d", spectral_norm(conv)) if normalised else conv


def baked(network: ClassGenerator) -> ClassGenerator:
    """The same generator in eval mode with plain weights W/σ; `network` stays as it is."""
    training = network.training
    network.eval()  # in training mode each look at a weight moves its σ
    state = {
        name: value
        for name, value in network.state_dict().items()
        if ".parametrizations." not in name
    }
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            state[f"{name}.weight"] = module.weight.detach()
    network.train(training)
    plain = ClassGenerator(replace(network.config, spectral_norm=False))
    plain.load_state_dict(state)
    return plain.eval()
