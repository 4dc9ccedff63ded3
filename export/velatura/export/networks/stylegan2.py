"""StyleGAN2 generator (Karras et al. 2020, arXiv:1912.04958; ADA: arXiv:2006.06676).

The state-dict names are those of published checkpoints: `mapping.fc{i}`, `mapping.w_avg`,
`synthesis.b{r}.conv{0,1}`, `synthesis.b{r}.torgb`. Weights are stored at unit variance and scaled
at run time (equalised learning rate, Karras et al. 2018, arXiv:1710.10196).

Modulated convolution is written for batching: the activations are scaled, convolved with the one
shared weight, then demodulated. It equals the paper's per-sample weights and accepts any batch.
Noise is a constant buffer, so that the same latents give the same image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velatura.export.networks.upsampling import (
    UpsamplingForm,
    filter_kernel,
    upsample_convolve,
)

_LEAKY_SLOPE = 0.2
_LEAKY_GAIN = math.sqrt(2)  # keeps the variance of a leaky ReLU's output near one


@dataclass(frozen=True)
class GeneratorConfig:
    """What rebuilds a generator from its weights."""

    resolution: int = 128
    z_dim: int = 128
    w_dim: int = 128
    mapping_layers: int = 4
    mapping_width: int = 0  # of the hidden layers; 0 stands for w_dim
    # Feature maps by resolution, from 4 up to `resolution`.
    channels: Mapping[int, int] = field(
        default_factory=lambda: {4: 128, 8: 128, 16: 128, 32: 64, 64: 32, 128: 16}
    )
    # Taps of the separable low-pass filter of the up-sampling layers; (1, 3, 3, 1) in the paper.
    resample_filter: Sequence[int] = (1, 1)
    # The same for the RGB skips, where longer filters cost next to nothing.
    rgb_filter: Sequence[int] = (1, 3, 3, 1)
    # Classes of a conditional generator; 0 where there are none.
    classes: int = 0
    # Points of W that truncation pulls towards, each w to its nearest; 0: all to the average.
    truncation_centres: int = 0
    # Layers' outputs and RGB are cut to ±conv_clamp, as in networks trained in float16; 0: not.
    conv_clamp: float = 0.0
    # Resolutions that were trained in float16, and so can be run in it. Nothing here depends on it.
    fp16_resolutions: Sequence[int] = ()

    @property
    def num_ws(self) -> int:
        """Layers of W+: two a resolution; 4×4 has one, and the last RGB layer one of its own."""
        return 2 * int(math.log2(self.resolution)) - 2


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, _LEAKY_SLOPE) * _LEAKY_GAIN


def _clamped(x: Tensor, limit: float) -> Tensor:
    return x.clamp(-limit, limit) if limit else x


def _normalised(x: Tensor) -> Tensor:
    """Rows [N, D] scaled to a mean square of one."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


class FullyConnected(nn.Module):
    """Linear layer with equalised learning rate: [N, in] → [N, out]."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias_init: float = 0.0,
        lr_multiplier: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init / lr_multiplier))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)


class MappingNetwork(nn.Module):
    """z [N, z_dim] → w [N, w_dim], pulled towards the average by `truncation_psi` [N].

    With `truncation_centres` it is pulled towards the nearest of them instead: images of many kinds
    have no one average that looks like any of them (multi-modal truncation, Mokady et al. 2022,
    arXiv:2202.12211). A class-conditional network also takes `class_weights` [N, classes]: one-hot
    rows, or a mixture.
    """

    w_avg: Tensor
    w_centres: Tensor

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.num_layers = config.mapping_layers
        self.z_dim, self.classes = config.z_dim, config.classes
        entry = config.z_dim
        if config.classes:
            self.embed = FullyConnected(config.classes, config.w_dim)
            entry += config.w_dim
        for i in range(config.mapping_layers):
            first, last = i == 0, i == config.mapping_layers - 1
            hidden = config.mapping_width or config.w_dim
            inputs, outputs = entry if first else hidden, config.w_dim if last else hidden
            setattr(self, f"fc{i}", FullyConnected(inputs, outputs, lr_multiplier=0.01))
        self.register_buffer("w_avg", torch.zeros(config.w_dim))
        self.centres = config.truncation_centres
        if self.centres:
            self.register_buffer("w_centres", torch.zeros(self.centres, config.w_dim))

    def forward(
        self, z: Tensor, truncation_psi: Tensor, class_weights: Tensor | None = None
    ) -> Tensor:
        x = _normalised(z)  # [N, z_dim]
        if self.classes:
            if class_weights is None:
                raise ValueError(f"class_weights [N, {self.classes}] are missing")
            x = torch.cat([x, _normalised(self.embed(class_weights))], dim=1)  # [N, z_dim + w_dim]
        for i in range(self.num_layers):
            x = _leaky(getattr(self, f"fc{i}")(x))  # [N, w_dim]
        centre = self._nearest_centre(x) if self.centres else self.w_avg
        return centre + truncation_psi[:, None] * (x - centre)

    def _nearest_centre(self, w: Tensor) -> Tensor:
        """Of each w [N, w_dim]: [N, w_dim]."""
        # Squared distances less |w|², which is the same for all centres.
        distance = self.w_centres.square().sum(dim=1) - 2 * w @ self.w_centres.t()  # [N, centres]
        return self.w_centres[distance.argmin(dim=1)]


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    demodulate: bool,
    up_taps: Sequence[int] | None,
    form: UpsamplingForm | None = None,
) -> Tensor:
    """Convolution whose input channels are scaled by the styles (Karras et al. 2020, section 2.2).

    x [N, in, H, W], weight [out, in, k, k], styles [N, in] → [N, out, H, W], or twice the size with
    `up_taps`, written in `form`.
    """
    scaled = x * styles[:, :, None, None]  # [N, in, H, W]
    if up_taps is None:
        out = F.conv2d(scaled, weight, padding=weight.shape[2] // 2)
    else:
        out = upsample_convolve(scaled, weight, up_taps, form)
    if not demodulate:
        return out
    energy = weight.square().sum(dim=(2, 3))  # [out, in]
    norm = torch.rsqrt(styles.square() @ energy.t() + 1e-8)  # [N, out]
    return out * norm[:, :, None, None]


class SynthesisLayer(nn.Module):
    """Modulated 3×3 convolution, noise, bias and leaky ReLU."""

    noise_const: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        resolution: int,
        config: GeneratorConfig,
        *,
        up: bool,
    ) -> None:
        super().__init__()
        self.affine = FullyConnected(config.w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.weight_gain = 1 / math.sqrt(in_channels * 9)
        self.up_taps = tuple(config.resample_filter) if up else None
        self.form: UpsamplingForm | None = None
        self.conv_clamp = config.conv_clamp

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x = modulated_conv2d(
            x,
            self.weight * self.weight_gain,
            self.affine(w),
            demodulate=True,
            up_taps=self.up_taps,
            form=self.form,
        )
        x = x + self.noise_const * self.noise_strength + self.bias[:, None, None]
        return _clamped(_leaky(x), self.conv_clamp)  # [N, out, R, R]


class ToRGB(nn.Module):
    """1×1 modulated convolution to RGB, without demodulation."""

    def __init__(self, in_channels: int, config: GeneratorConfig) -> None:
        super().__init__()
        self.affine = FullyConnected(config.w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(3, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))
        self.weight_gain = 1 / math.sqrt(in_channels)
        self.conv_clamp = config.conv_clamp

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles = self.affine(w) * self.weight_gain
        out = modulated_conv2d(x, self.weight, styles, demodulate=False, up_taps=None)
        return _clamped(out + self.bias[:, None, None], self.conv_clamp)  # [N, 3, R, R]


class UpsampledRGB(nn.Module):
    """The picture so far at twice the size, low-pass filtered: [N, 3, H, W] → [N, 3, 2H, 2W]."""

    def __init__(self, taps: Sequence[int]) -> None:
        super().__init__()
        self.taps = tuple(taps)

    def forward(self, rgb: Tensor) -> Tensor:
        kernel = filter_kernel(rgb, self.taps).expand(3, 1, -1, -1)  # [3, 1, t, t]
        margin = (len(self.taps) - 2) // 2
        return F.conv_transpose2d(rgb, kernel, stride=2, padding=margin, groups=3)


class SynthesisBlock(nn.Module):
    """One resolution: an up-sampling layer (but at 4×4), a second layer, and the skip to RGB."""

    def __init__(self, resolution: int, config: GeneratorConfig) -> None:
        super().__init__()
        out_channels = config.channels[resolution]
        self.first = resolution == 4
        self.skip: nn.Module = UpsampledRGB(config.rgb_filter)
        if self.first:
            self.const = nn.Parameter(torch.randn(out_channels, 4, 4))
        else:
            in_channels = config.channels[resolution // 2]
            self.conv0 = SynthesisLayer(in_channels, out_channels, resolution, config, up=True)
        self.conv1 = SynthesisLayer(out_channels, out_channels, resolution, config, up=False)
        self.torgb = ToRGB(out_channels, config)

    def forward(self, x: Tensor | None, rgb: Tensor | None, ws: Tensor) -> tuple[Tensor, Tensor]:
        """ws [N, 2 or 3, w_dim]: the layers of this block, the last one for RGB."""
        if x is None or rgb is None:
            x = self.const.expand(ws.shape[0], -1, -1, -1)  # [N, C, 4, 4]
            x = self.conv1(x, ws[:, 0])
            return x, self.torgb(x, ws[:, 1])
        x = self.conv1(self.conv0(x, ws[:, 0]), ws[:, 1])
        return x, self.skip(rgb) + self.torgb(x, ws[:, 2])


class SynthesisNetwork(nn.Module):
    """W+ latents [N, num_ws, w_dim] → image [N, 3, R, R], about [-1, 1]."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.resolutions = [2**i for i in range(2, int(math.log2(config.resolution)) + 1)]
        for resolution in self.resolutions:
            setattr(self, f"b{resolution}", SynthesisBlock(resolution, config))

    def write_upsampling_as(self, form: UpsamplingForm | None) -> None:
        """How the up-sampling layers compute from now on; None: the fastest on CPUs."""
        for module in self.modules():
            if isinstance(module, SynthesisLayer):
                module.form = form

    def forward(self, w_plus: Tensor) -> Tensor:
        x: Tensor | None = None
        rgb: Tensor | None = None
        start = 0
        for resolution in self.resolutions:
            count = 1 if resolution == 4 else 2
            # The RGB layer reads the latent of the next block's first layer.
            x, rgb = getattr(self, f"b{resolution}")(x, rgb, w_plus[:, start : start + count + 1])
            start += count
        if rgb is None:  # for the type checker: there is always a 4×4 block
            raise AssertionError("no resolutions")
        return rgb


class Generator(nn.Module):
    """Mapping and synthesis under the names of published checkpoints."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.mapping = MappingNetwork(config)
        self.synthesis = SynthesisNetwork(config)

    def forward(
        self, z: Tensor, truncation_psi: Tensor, class_weights: Tensor | None = None
    ) -> Tensor:
        w = self.mapping(z, truncation_psi, class_weights)
        w_plus = w[:, None].expand(-1, self.config.num_ws, -1)
        image: Tensor = self.synthesis(w_plus)
        return image
