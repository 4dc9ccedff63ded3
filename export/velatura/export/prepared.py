"""Synthesis with its constants computed and its passes over the pictures counted, for tracing.

What the paper's formula does at run time to every sample and channel is moved, exactly, to where it
costs nothing: the leaky ReLU's gain into norms, noise and bias (positive factors pass through it),
an up-sampling layer's bias into its filter and another's into its noise, RGB's styles from the
pictures into the 3 × C weights.
The network under training stays as the paper writes it; the graph is compared with that one.

For onnxruntime's CPU kernels the convolutions are written in other ways besides
(`rewritten_convolutions.py`), which providers with fast kernels for the plain ones run slower.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velatura.export.formats import Provider
from velatura.export.networks.parameters import fixed
from velatura.export.networks.rewritten_convolutions import PhasedUpsampling, WinogradConvolution
from velatura.export.networks.stylegan2 import (
    FullyConnected,
    SynthesisLayer,
    SynthesisNetwork,
    ToRGB,
    UpsampledRGB,
)
from velatura.export.networks.upsampling import UpsamplingForm, filter_kernel, upsample_convolve

_GAIN = math.sqrt(2)
# What Winograd's sums cost grows with the samples, what they save with samples and channels. Under
# these numbers of channels, and of channels times pixels of a row, they were not worth it.
_WINOGRAD_CHANNELS = 128
_WINOGRAD_ROW = 4096
# Products of whole rows grow with the third power of the picture's size.
_SKIP_RESOLUTION = 256
# Noise and bias are one constant of out × R × R numbers up to this many, a MiB of the file; beyond,
# reading it costs what a second pass costs.
_SHIFT_NUMBERS = 2**18


def prepared(synthesis: SynthesisNetwork, provider: Provider = Provider.CPU) -> SynthesisNetwork:
    """A copy that gives the same images up to rounding, and runs in fewer passes on `provider`."""
    on_cpu = provider is Provider.CPU
    result = copy.deepcopy(synthesis)
    with torch.no_grad():
        for resolution in result.resolutions:
            block: Any = getattr(result, f"b{resolution}")
            for name in ("conv0", "conv1"):
                layer = getattr(block, name, None)
                if isinstance(layer, SynthesisLayer):
                    setattr(block, name, _prepared(layer, on_cpu))
            if 4 < resolution <= _SKIP_RESOLUTION:
                block.skip = _PreparedSkip(block.skip, resolution // 2, block.torgb.weight)
            block.torgb = _PreparedToRGB(block.torgb)
    return result.eval()


def written_for(synthesis: SynthesisNetwork, provider: Provider) -> str:
    """The provider that `prepared` writes this network for otherwise than for the others; empty
    where its form for `provider` is everybody's."""
    layers = [each for each in synthesis.modules() if isinstance(each, SynthesisLayer)]
    rewritten = any(_is_phased(layer) or _is_winograd(layer) for layer in layers)
    return provider if provider is Provider.CPU and rewritten else ""


def _is_phased(layer: SynthesisLayer) -> bool:
    """With two taps, the places' convolutions would be cut out of larger ones."""
    return layer.form is None and layer.up_taps is not None and len(layer.up_taps) > 2


def _is_winograd(layer: SynthesisLayer) -> bool:
    channels, resolution = layer.weight.shape[0], layer.noise_const.shape[-1]
    wide = channels >= _WINOGRAD_CHANNELS and channels * resolution >= _WINOGRAD_ROW
    return layer.up_taps is None and wide


def _affine(layer: FullyConnected, gain: float = 1.0) -> nn.Linear:
    """The layer's scaled weights, times `gain`, as an ordinary linear layer."""
    linear = nn.Linear(layer.weight.shape[1], layer.weight.shape[0])
    linear.weight = fixed(layer.weight * (layer.weight_gain * gain))
    linear.bias = fixed(layer.bias * (layer.bias_gain * gain))
    return linear


class _PreparedLayer(nn.Module, ABC):
    """`SynthesisLayer`: x [N, in, H, W], w [N, w_dim] → [N, out, R, R]. `weight` [out, in, 3, 3] is
    the layer's at the scale that it is used at; where `bias_within`, `convolve` adds the bias."""

    def __init__(self, layer: SynthesisLayer, weight: Tensor, *, bias_within: bool = False) -> None:
        super().__init__()
        self.affine = _affine(layer.affine)
        self.energy = fixed(weight.square().sum(dim=(2, 3)).t())  # [in, out]
        noise = layer.noise_const * (layer.noise_strength * _GAIN)  # [R, R]
        bias = (layer.bias * _GAIN)[:, None, None]  # [out, 1, 1]
        together = not bias_within and len(bias) * noise.numel() <= _SHIFT_NUMBERS
        self.noise = fixed(noise + bias if together else noise)  # [R, R] or [out, R, R]
        self.bias = None if together or bias_within else fixed(bias)
        self.clamp = layer.conv_clamp

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles = self.affine(w)  # [N, in]
        norm = torch.rsqrt(styles.square() @ self.energy + 1e-8) * _GAIN  # [N, out]
        x = self.convolve(x * styles[:, :, None, None], norm[:, :, None, None])
        x = x if self.bias is None else x + self.bias
        x = F.leaky_relu(x + self.noise, 0.2)
        return x.clamp(-self.clamp, self.clamp) if self.clamp else x

    @abstractmethod
    def convolve(self, x: Tensor, norm: Tensor) -> Tensor:
        """x [N, in, H, W], norm [N, out, 1, 1] → [N, out, R, R], demodulated."""


def _prepared(layer: SynthesisLayer, on_cpu: bool) -> _PreparedLayer:
    weight = layer.weight * layer.weight_gain
    if on_cpu and _is_winograd(layer):
        return _Winograd(layer, weight)
    if layer.up_taps is None:
        return _Plain(layer, weight)
    if on_cpu and _is_phased(layer):
        return _Phased(layer, weight, layer.up_taps)
    if layer.form in (None, UpsamplingForm.FILTERED):
        return _Filtered(layer, weight, layer.up_taps)
    return _Formed(layer, weight, layer.up_taps, layer.form)


class _Plain(_PreparedLayer):
    def __init__(self, layer: SynthesisLayer, weight: Tensor) -> None:
        super().__init__(layer, weight)
        self.weight = fixed(weight)

    def convolve(self, x: Tensor, norm: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, padding=1) * norm


class _Winograd(_PreparedLayer):
    def __init__(self, layer: SynthesisLayer, weight: Tensor) -> None:
        super().__init__(layer, weight)
        self.convolution = WinogradConvolution(weight)

    def convolve(self, x: Tensor, norm: Tensor) -> Tensor:
        x = self.convolution(x) * norm.permute(0, 2, 3, 1)  # [N, R, R, out]
        return x.permute(0, 3, 1, 2)


class _Phased(_PreparedLayer):
    def __init__(self, layer: SynthesisLayer, weight: Tensor, taps: Sequence[int]) -> None:
        super().__init__(layer, weight, bias_within=True)
        self.convolution = PhasedUpsampling(weight, layer.bias * _GAIN, taps)

    def convolve(self, x: Tensor, norm: Tensor) -> Tensor:
        result: Tensor = self.convolution(x, norm)
        return result


class _Filtered(_PreparedLayer):
    """A transposed convolution with the kernel as it is, and the filter on each channel."""

    def __init__(self, layer: SynthesisLayer, weight: Tensor, taps: Sequence[int]) -> None:
        super().__init__(layer, weight, bias_within=True)
        self.weight = fixed(weight.flip((2, 3)).transpose(0, 1))
        self.filter_bias = fixed(layer.bias * _GAIN)
        kernel = filter_kernel(weight, taps).flip((2, 3))
        self.filter = fixed(kernel.expand(weight.shape[0], 1, -1, -1))
        self.margin = (len(taps) - 2) // 2

    def convolve(self, x: Tensor, norm: Tensor) -> Tensor:
        x = F.conv_transpose2d(x, self.weight, stride=2) * norm  # [N, out, 2H + 1, 2W + 1]
        channels = self.filter.shape[0]
        return F.conv2d(x, self.filter, self.filter_bias, padding=self.margin, groups=channels)


class _Formed(_PreparedLayer):
    def __init__(
        self, layer: SynthesisLayer, weight: Tensor, taps: Sequence[int], form: UpsamplingForm
    ) -> None:
        super().__init__(layer, weight)
        self.weight = fixed(weight)
        self.taps, self.form = taps, form

    def convolve(self, x: Tensor, norm: Tensor) -> Tensor:
        return upsample_convolve(x, self.weight, self.taps, self.form) * norm


class _PreparedToRGB(nn.Module):
    """`ToRGB`: x [N, in, R, R], w [N, w_dim] → [N, 3, R, R], as one product for each sample."""

    def __init__(self, layer: ToRGB) -> None:
        super().__init__()
        self.affine = _affine(layer.affine, layer.weight_gain)
        self.weight = fixed(layer.weight[:, :, 0, 0])  # [3, in]
        self.bias = fixed(layer.bias[:, None])
        self.clamp = layer.conv_clamp

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        weight = self.weight * self.affine(w)[:, None]  # [N, 3, in]
        out = weight @ x.flatten(2) + self.bias  # [N, 3, R · R]
        out = out.clamp(-self.clamp, self.clamp) if self.clamp else out
        picture: Tensor = out.unflatten(2, x.shape[2:])  # [N, 3, R, R]
        return picture


class _PreparedSkip(nn.Module):
    """`UpsampledRGB` of pictures of one size as a product along each axis: [N, 3, R, R] →
    [N, 3, 2R, 2R]. Of three channels, a convolution has too little to compute at once."""

    def __init__(self, skip: UpsampledRGB, size: int, like: Tensor) -> None:
        super().__init__()
        taps = like.new_tensor(skip.taps) * (2 / sum(skip.taps))
        margin = (len(taps) - 2) // 2
        apart = torch.eye(size, dtype=like.dtype)[:, None]  # [R, 1, R], a sample each
        spread = F.conv_transpose1d(apart, taps[None, None], stride=2, padding=margin)[:, 0]
        self.across, self.down = fixed(spread), fixed(spread.t())  # [R, 2R], [2R, R]

    def forward(self, rgb: Tensor) -> Tensor:
        wide: Tensor = self.down @ (rgb @ self.across)
        return wide
