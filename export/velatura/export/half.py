"""Synthesis in float16, written so that it cannot overflow.

After StyleGAN2-ADA (Karras et al. 2020, arXiv:2006.06676, appendix on mixed precision): before the
product, each output channel's weights and each sample's styles are divided by their largest value,
which demodulation cancels. With activations cut to ±256, sums stay under 256 · √(9 · channels),
17,400 for 512 channels, where float16 ends at 65,504. Styles, demodulation and RGB stay in float32.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velatura.export.errors import ExportError
from velatura.export.networks.parameters import fixed
from velatura.export.networks.stylegan2 import (
    SynthesisBlock,
    SynthesisLayer,
    SynthesisNetwork,
    ToRGB,
)
from velatura.export.networks.upsampling import (
    UpsamplingForm,
    fastest_form,
    filter_kernel,
    fold_filter,
)

CLAMP = 256.0  # where the networks trained in float16 cut as well
_HALVED = 4  # of the largest resolutions, where the checkpoint does not say which
_GAIN = math.sqrt(2)


def in_half(synthesis: SynthesisNetwork) -> SynthesisNetwork:
    """A copy whose largest resolutions run in float16; inputs and outputs stay float32.

    Those that the checkpoint was trained with in float16, or else the four largest. Raises
    ExportError when none is above 4 px or they are not the largest ones.
    """
    config = synthesis.config
    above = [r for r in synthesis.resolutions if r > 4]
    chosen = sorted(r for r in config.fp16_resolutions if r > 4) or above[-_HALVED:]
    if not chosen or chosen != above[-len(chosen) :]:
        raise ExportError(
            f"fp16_resolutions: {chosen} of {synthesis.resolutions}; float16 takes the largest "
            "resolutions, and 4 px stays in float32"
        )
    result = copy.deepcopy(synthesis)
    with torch.no_grad():
        for resolution in chosen:
            name = f"b{resolution}"
            setattr(result, name, _HalfBlock(getattr(result, name)))
    return result.eval()


class _Styles(nn.Module):
    """w [N, w_dim] in float32 → styles [N, in] of magnitude one, and what they were divided by."""

    def __init__(self, layer: SynthesisLayer | ToRGB) -> None:
        super().__init__()
        affine = layer.affine
        self.weight = fixed(affine.weight * affine.weight_gain)
        self.bias = fixed(affine.bias * affine.bias_gain)

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        styles = F.linear(w, self.weight, self.bias)  # [N, in]
        largest = styles.abs().amax(dim=1, keepdim=True).clamp(min=1e-8)  # [N, 1]
        return styles / largest, largest


class _HalfLayer(nn.Module):
    """`SynthesisLayer` with its constants computed: x float16 [N, in, H, W] → [N, out, R, R]."""

    def __init__(self, layer: SynthesisLayer) -> None:
        super().__init__()
        weight: Tensor = layer.weight
        largest = weight.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-30)
        weight = weight / largest / math.sqrt(weight[0].numel())  # [out, in, 3, 3]
        self.styles = _Styles(layer)
        self.energy = fixed(weight.square().sum(dim=(2, 3)).t())  # [in, out]
        # Positive gains pass through a leaky ReLU; this one costs nothing in the constants.
        self.noise = fixed((layer.noise_const * layer.noise_strength * _GAIN).half())
        self.bias = fixed((layer.bias * _GAIN).half()[:, None, None])
        self.clamp = layer.conv_clamp or CLAMP
        self.up = layer.up_taps is not None
        self.filter: nn.Parameter | None = None
        if layer.up_taps is None:
            self.weight = fixed(weight.half())
            return
        form = layer.form or fastest_form(layer.up_taps)
        turned = weight.flip((2, 3))
        if form is UpsamplingForm.FILTERED:
            kernel = filter_kernel(weight, layer.up_taps).flip((2, 3))
            self.filter = fixed(kernel.expand(weight.shape[0], 1, -1, -1).half())
            self.margin = (len(layer.up_taps) - weight.shape[2] + 1) // 2
        else:  # sub-pixel convolutions are the CPU's affair, where nothing runs in float16
            turned = fold_filter(turned, layer.up_taps)
            self.margin = (turned.shape[2] - 2) // 2
        self.weight = fixed(turned.transpose(0, 1).half())

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles, _ = self.styles(w)
        norm = torch.rsqrt(styles.square() @ self.energy + 1e-8) * _GAIN  # [N, out], float32
        x = self._convolve(x * styles.half()[:, :, None, None])
        x = x * norm.half()[:, :, None, None] + self.noise + self.bias
        return F.leaky_relu(x, 0.2).clamp(-self.clamp, self.clamp)

    def _convolve(self, x: Tensor) -> Tensor:
        if not self.up:
            return F.conv2d(x, self.weight, padding=self.weight.shape[2] // 2)
        if self.filter is None:
            return F.conv_transpose2d(x, self.weight, stride=2, padding=self.margin)
        x = F.conv_transpose2d(x, self.weight, stride=2)
        return F.conv2d(x, self.filter, padding=self.margin, groups=self.filter.shape[0])


class _HalfToRGB(nn.Module):
    """`ToRGB`, to [N, 3, R, R]: the product in float16, its scale, bias and sum in float32."""

    def __init__(self, layer: ToRGB) -> None:
        super().__init__()
        weight = layer.weight * layer.weight_gain
        largest = weight.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-30)
        fan_in = math.sqrt(weight.shape[1])
        self.styles = _Styles(layer)
        self.weight = fixed((weight / largest / fan_in).half())
        self.scale = fixed((largest * fan_in)[:, 0])  # [3, 1, 1]
        self.bias = fixed(layer.bias[:, None, None])
        self.clamp = layer.conv_clamp or CLAMP

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles, largest = self.styles(w)
        out: Tensor = F.conv2d(x * styles.half()[:, :, None, None], self.weight).float()
        out = out * (self.scale * largest[:, :, None, None]) + self.bias  # float32
        return out.clamp(-self.clamp, self.clamp)


class _HalfBlock(SynthesisBlock):
    """One resolution above 4 px in float16; the picture that it adds to is float32."""

    def __init__(self, block: SynthesisBlock) -> None:
        nn.Module.__init__(self)
        self.first = False
        self.skip = block.skip
        self.conv0: Any = _HalfLayer(block.conv0)
        self.conv1: Any = _HalfLayer(block.conv1)
        self.torgb: Any = _HalfToRGB(block.torgb)

    def forward(self, x: Tensor | None, rgb: Tensor | None, ws: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(x if x is None else x.half(), rgb, ws)
