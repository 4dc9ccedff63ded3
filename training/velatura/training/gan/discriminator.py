"""StyleGAN2's residual discriminator (Karras et al. 2020, arXiv:1912.04958).

Weights are stored at unit variance and scaled at run time (equalised learning rate), as in the
generator, or divided by their largest singular value (spectral normalisation, Miyato et al. 2018,
arXiv:1802.05957). Down-sampling folds its low-pass filter into the convolution's kernel, so that
one strided convolution does both. Everything can be differentiated twice, as R1 needs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from velatura.export.networks.stylegan2 import FullyConnected
from velatura.export.networks.upsampling import fold_filter

_LEAKY_SLOPE = 0.2
_SIZES = (32, 64, 128, 256)


@dataclass(frozen=True)
class DiscriminatorConfig:
    """What rebuilds a discriminator from its weights. Raises ValueError that names the field."""

    resolution: int = 64
    # Feature maps by resolution, from 4 up to `resolution`.
    channels: Mapping[int, int] = field(
        default_factory=lambda: {4: 128, 8: 128, 16: 128, 32: 64, 64: 32, 128: 16, 256: 16}
    )
    # Taps of the separable low-pass filter before each halving; (1, 3, 3, 1) in the paper, which
    # takes 2.25 times the multiplications of the box filter here.
    resample_filter: Sequence[int] = (1, 1)
    # Classes to judge by projection (Miyato and Koyama 2018, arXiv:1802.05637); 0: none.
    classes: int = 0
    embedding: int = 64  # width of the classes' embedding
    stddev_group: int = 4  # images whose spread is shown to the last layers; 1: none
    spectral_norm: bool = False

    def __post_init__(self) -> None:
        if self.resolution not in _SIZES:
            raise ValueError(f"resolution: {self.resolution}; choose one of {_SIZES}")
        missing = [size for size in self.sizes if size not in self.channels]
        if missing:
            raise ValueError(f"channels: no width for the resolutions {missing}")
        if len(self.resample_filter) % 2:
            raise ValueError(
                f"resample_filter: {len(self.resample_filter)} taps; halving needs an even number"
            )
        if self.stddev_group < 1:
            raise ValueError(f"stddev_group: {self.stddev_group}; give 1 or more")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Resolutions from 4 up to the images'."""
        return tuple(2**i for i in range(2, int(math.log2(self.resolution)) + 1))


class EqualizedConv2d(nn.Module):
    """Convolution with equalised learning rate: [N, in, H, W] → [N, out, H, W], or half the size.

    `down_taps` are those of the low-pass filter that is folded into the kernel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        bias: bool = True,
        down_taps: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.weight_gain = 1 / math.sqrt(in_channels * kernel**2)
        self.down_taps = tuple(down_taps) if down_taps else None

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.weight_gain
        if self.down_taps is None:
            return F.conv2d(x, weight, self.bias, padding=weight.shape[2] // 2)
        # The folded filter keeps the brightness when up-sampling; halving wants a quarter of it.
        folded = fold_filter(weight, self.down_taps) / 4  # [out, in, k + t - 1, k + t - 1]
        return F.conv2d(x, folded, self.bias, stride=2, padding=(folded.shape[2] - 2) // 2)


def downsample(x: Tensor, taps: Sequence[int]) -> Tensor:
    """[N, C, H, W] → [N, C, H/2, W/2], low-pass filtered by the separable `taps`."""
    if tuple(taps) == (1, 1):
        return F.avg_pool2d(x, 2)
    filter_1d = torch.tensor(taps, dtype=x.dtype, device=x.device)
    filter_1d = filter_1d / filter_1d.sum()
    channels = x.shape[1]
    kernel = torch.outer(filter_1d, filter_1d).expand(channels, 1, -1, -1)  # [C, 1, t, t]
    return F.conv2d(x, kernel, stride=2, padding=(len(taps) - 2) // 2, groups=channels)


def minibatch_stddev(x: Tensor, group: int) -> Tensor:
    """Append one map: the spread over a group of images, averaged over features and pixels.

    x [N, C, H, W] → [N, C + 1, H, W]. The group is the largest divisor of N up to `group`, and
    takes every (N / group)-th image. Collapsed fakes show a spread of nearly nothing.
    """
    count, _, height, width = x.shape
    size = next(g for g in range(min(group, count), 0, -1) if count % g == 0)
    grouped = _widened(x).reshape(size, count // size, *x.shape[1:])  # [G, M, C, H, W]
    spread = (grouped.var(dim=0, unbiased=False) + 1e-8).sqrt()  # [M, C, H, W]
    mean = spread.mean(dim=(1, 2, 3)).to(x.dtype)  # [M]
    maps = mean.repeat(size)[:, None, None, None].expand(-1, 1, height, width)  # [N, 1, H, W]
    return torch.cat([x, maps], dim=1)


class DiscriminatorBlock(nn.Module):
    """Two convolutions beside a linear shortcut: [N, in, H, W] → [N, out, H/2, W/2]."""

    def __init__(self, in_channels: int, out_channels: int, taps: Sequence[int]) -> None:
        super().__init__()
        self.taps = tuple(taps)
        self.conv0 = EqualizedConv2d(in_channels, in_channels, 3)
        self.conv1 = EqualizedConv2d(in_channels, out_channels, 3, down_taps=taps)
        self.skip = EqualizedConv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor, gain: float) -> Tensor:
        shortcut = self.skip(downsample(x, self.taps))
        x = _leaky(self.conv1(_leaky(self.conv0(x), gain)), gain)
        out: Tensor = (x + shortcut) * math.sqrt(0.5)  # keeps the variance
        return out


class Discriminator(nn.Module):
    """Images [N, 3, R, R] in [-1, 1] → logits float32 [N]: positive for what it takes for real.

    A class-conditional one also takes `class_weights` [N, classes]: one-hot rows, or a mixture.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.channels
        # √2 keeps a leaky ReLU's variance; spectral normalisation wants no layer to amplify.
        self.gain = 1.0 if config.spectral_norm else math.sqrt(2)
        self.from_rgb = EqualizedConv2d(3, width[config.resolution], 1)
        self.blocks = nn.ModuleDict(
            {
                f"b{size}": DiscriminatorBlock(
                    width[size], width[size // 2], config.resample_filter
                )
                for size in reversed(config.sizes[1:])
            }
        )
        last = width[4]
        maps = 1 if config.stddev_group > 1 else 0
        self.conv = EqualizedConv2d(last + maps, last, 3)
        self.fc = FullyConnected(last * 16, last)
        self.out = FullyConnected(last, config.embedding if config.classes else 1)
        if config.classes:
            self.embed = FullyConnected(config.classes, config.embedding)
        if config.spectral_norm:
            _normalise_spectra(self)

    def forward(self, images: Tensor, class_weights: Tensor | None = None) -> Tensor:
        config = self.config
        expected = (3, config.resolution, config.resolution)
        if tuple(images.shape[1:]) != expected:
            raise ValueError(f"images: shape {list(images.shape)}; expected [N, {expected}]")
        x = _leaky(self.from_rgb(images), self.gain)  # [N, C, R, R]
        for block in self.blocks.values():
            x = block(x, self.gain)  # halves the size, down to [N, C, 4, 4]
        if config.stddev_group > 1:
            x = minibatch_stddev(x, config.stddev_group)  # [N, C + 1, 4, 4]
        x = _leaky(self.conv(x), self.gain)  # [N, C, 4, 4]
        x = _leaky(self.fc(x.flatten(1)), self.gain)  # [N, C]
        x = self.out(x)  # [N, 1] or [N, embedding]
        if not config.classes:
            return _widened(x[:, 0])
        if class_weights is None:
            raise ValueError(f"class_weights [N, {config.classes}] are missing")
        embedded = _widened(self.embed(class_weights))  # [N, embedding]
        embedded = embedded * torch.rsqrt(embedded.square().mean(dim=1, keepdim=True) + 1e-8)
        return (_widened(x) * embedded).sum(dim=1) / math.sqrt(config.embedding)  # [N]


def _widened(x: Tensor) -> Tensor:
    """bfloat16 → float32; float32 and float64 stay."""
    return x.float() if x.dtype == torch.bfloat16 else x


def _leaky(x: Tensor, gain: float) -> Tensor:
    activated = F.leaky_relu(x, _LEAKY_SLOPE)
    return activated if gain == 1 else activated * gain


def _normalise_spectra(network: nn.Module) -> None:
    """Divide every weight by its largest singular value instead of scaling it by its fan-in."""
    for layer in list(network.modules()):
        if isinstance(layer, EqualizedConv2d | FullyConnected):
            layer.weight_gain = 1.0
            spectral_norm(layer)
