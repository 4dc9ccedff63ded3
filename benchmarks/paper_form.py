"""StyleGAN2 synthesis computed as its paper puts it, in eager torch: every sample has a weight of
its own, and a grouped convolution runs a batch of them (Karras et al. 2020, arXiv:1912.04958,
section 2.2 and appendix B). It is what users of published checkpoints run today.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from velatura.export.networks.stylegan2 import SynthesisLayer, SynthesisNetwork, ToRGB


class PaperForm:
    """`synthesis` with its parameters: W+ [N, num_ws, w_dim] → image [N, 3, R, R]."""

    def __init__(self, synthesis: SynthesisNetwork) -> None:
        self._synthesis = synthesis

    @torch.inference_mode()
    def __call__(self, w_plus: Tensor) -> Tensor:
        picture: Tensor | None = None
        x: Tensor | None = None
        start = 0
        for resolution in self._synthesis.resolutions:
            block: Any = getattr(self._synthesis, f"b{resolution}")
            if x is None:
                x = block.const.expand(len(w_plus), -1, -1, -1)  # [N, C, 4, 4]
            else:
                x = _layer(block.conv0, x, w_plus[:, start])  # [N, C, R, R]
                start += 1
            x = _layer(block.conv1, x, w_plus[:, start])  # [N, C, R, R]
            start += 1
            # Without a latent of its own: the next block's first layer reads it, too.
            new = _to_rgb(block.torgb, x, w_plus[:, start])  # [N, 3, R, R]
            picture = new if picture is None else _doubled(picture, block.skip.taps) + new
        if picture is None:  # for the type checker: there is always a 4×4 block
            raise AssertionError("no resolutions")
        return picture


def _modulated(x: Tensor, weight: Tensor, styles: Tensor, demodulate: bool, up: bool) -> Tensor:
    """x [N, in, H, W], weight [out, in, k, k], styles [N, in] → [N, out, H, W]; with `up`, between
    zeros: [N, out, 2H + k - 2, …]."""
    items, ins, height, width = x.shape
    outs, k = weight.shape[0], weight.shape[2]
    own = weight[None] * styles[:, None, :, None, None]  # [N, out, in, k, k]
    if demodulate:
        own = own * torch.rsqrt(own.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8)
    x = x.reshape(1, items * ins, height, width)  # samples beside each other
    if up:
        own = own.flip((3, 4)).transpose(1, 2).reshape(items * ins, outs, k, k)
        x = F.conv_transpose2d(x, own, stride=2, groups=items)
    else:
        x = F.conv2d(x, own.reshape(items * outs, ins, k, k), padding=k // 2, groups=items)
    return x.reshape(items, outs, *x.shape[2:])


def _layer(layer: SynthesisLayer, x: Tensor, w: Tensor) -> Tensor:
    weight, taps = layer.weight * layer.weight_gain, layer.up_taps
    x = _modulated(x, weight, layer.affine(w), True, taps is not None)
    if taps is not None:
        x = _filtered(x, taps, (len(taps) - weight.shape[2] + 1) // 2)
    x = x + layer.noise_const * layer.noise_strength
    x = F.leaky_relu(x + layer.bias[:, None, None], 0.2) * math.sqrt(2)
    return x.clamp(-layer.conv_clamp, layer.conv_clamp) if layer.conv_clamp else x


def _to_rgb(layer: ToRGB, x: Tensor, w: Tensor) -> Tensor:
    styles = layer.affine(w) * layer.weight_gain
    x = _modulated(x, layer.weight, styles, False, False) + layer.bias[:, None, None]
    return x.clamp(-layer.conv_clamp, layer.conv_clamp) if layer.conv_clamp else x


def _filtered(x: Tensor, taps: tuple[int, ...], margin: int) -> Tensor:
    """Low-pass filter of gain four; `margin` zeros around, or samples fewer where negative."""
    row = torch.tensor(taps, dtype=x.dtype) * (2 / sum(taps))
    kernel = torch.outer(row, row).expand(x.shape[1], 1, -1, -1)
    return F.conv2d(F.pad(x, [margin] * 4), kernel, groups=x.shape[1])


def _doubled(picture: Tensor, taps: tuple[int, ...]) -> Tensor:
    """[N, 3, H, W] → [N, 3, 2H, 2W]: zeros between the samples, then the filter."""
    items, channels, height, width = picture.shape
    spread = picture.new_zeros(items, channels, 2 * height, 2 * width)
    spread[:, :, ::2, ::2] = picture
    t = len(taps)
    row = torch.tensor(taps, dtype=picture.dtype) * (2 / sum(taps))
    kernel = torch.outer(row, row).expand(channels, 1, -1, -1)
    return F.conv2d(F.pad(spread, [t // 2, t // 2 - 1] * 2), kernel, groups=channels)
