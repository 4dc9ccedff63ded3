"""StyleGAN2 in float64, sample by sample and from the papers' formulas, with kernels as stored.

Independent of the network under test: weights are modulated instead of activations, and an
up-sampling layer is zeros put between samples, a true convolution, and the low-pass filter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TAPS = (1.0, 3.0, 3.0, 1.0)


@dataclass
class Conv:
    """One modulated convolution: weight [out, in, k, k], affine [in, w_dim] and [in]."""

    weight: Tensor
    affine_weight: Tensor
    affine_bias: Tensor
    bias: Tensor
    noise: Tensor | None = None
    noise_strength: float = 0.0


@dataclass
class Block:
    conv0: Conv | None
    conv1: Conv
    rgb: Conv


def normalise(x: Tensor) -> Tensor:
    return x / (x.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()


def mapping(
    z: Tensor,
    layers: Sequence[tuple[Tensor, Tensor]],
    rate: float,
    embedding: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    """z [N, z_dim] → w; `embedding` is weight, bias and the class weights [N, C]."""
    x = normalise(z.double())
    if embedding is not None:
        weight, bias, classes = (t.double() for t in embedding)
        y = classes @ weight.T / math.sqrt(weight.shape[1]) + bias
        x = torch.cat([x, normalise(y)], dim=1)
    for weight, bias in layers:
        scaled = weight.double() * rate / math.sqrt(weight.shape[1])
        x = leaky(x @ scaled.T + bias.double() * rate)
    return x


def leaky(x: Tensor) -> Tensor:
    return torch.where(x >= 0, x, 0.2 * x) * math.sqrt(2)


def zeros_between(x: Tensor) -> Tensor:
    """[C, H, W] → [C, 2H, 2W]."""
    spread = x.new_zeros(x.shape[0], 2 * x.shape[1], 2 * x.shape[2])
    spread[:, ::2, ::2] = x
    return spread


def low_pass(x: Tensor, before: int, after: int) -> Tensor:
    """The taps' outer product, of sum four, over each channel of [C, H, W]."""
    taps = torch.tensor(TAPS, dtype=x.dtype)
    kernel = torch.outer(taps, taps) * (4 / taps.sum() ** 2)
    padded = F.pad(x, (before, after, before, after))
    return F.conv2d(padded[:, None], kernel[None, None])[:, 0]


def convolve(
    conv: Conv, x: Tensor, w: Tensor, *, up: bool, demodulate: bool, scaled: bool
) -> Tensor:
    """One sample [in, H, W]; `scaled`: the weights' gain comes before modulation."""
    fan_in = conv.weight[0].numel()
    style = w @ conv.affine_weight.double().T / math.sqrt(w.shape[0]) + conv.affine_bias.double()
    weight = conv.weight.double() * style[None, :, None, None]
    if scaled or not demodulate:
        weight = weight / math.sqrt(fan_in)
    if demodulate:
        weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
    if not up:
        return F.conv2d(x[None], weight, padding=weight.shape[-1] // 2)[0]
    full = F.conv2d(zeros_between(x)[None], weight.flip((2, 3)), padding=2)[0]  # [out, 2H+2, 2W+2]
    return low_pass(full, 1, 0)  # [out, 2H, 2W]


def synthesis(
    w_plus: Tensor, const: Tensor, blocks: Mapping[int, Block], *, clamp: float, scaled: bool
) -> Tensor:
    """W+ [num_ws, w_dim] of one sample → [3, R, R]."""
    limit = clamp or math.inf
    w = w_plus.double()
    x, rgb, layer = const.double(), None, 0
    for block in blocks.values():
        for conv, up in ((block.conv0, True), (block.conv1, False)):
            if conv is None:
                continue
            x = convolve(conv, x, w[layer], up=up, demodulate=True, scaled=scaled)
            if conv.noise is not None:
                x = x + conv.noise.double() * conv.noise_strength
            x = leaky(x + conv.bias.double()[:, None, None]).clamp(-limit, limit)
            layer += 1
        y = convolve(block.rgb, x, w[layer], up=False, demodulate=False, scaled=scaled)
        y = (y + block.rgb.bias.double()[:, None, None]).clamp(-limit, limit)
        rgb = y if rgb is None else low_pass(zeros_between(rgb), 2, 1) + y
    assert rgb is not None
    return rgb
