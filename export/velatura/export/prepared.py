"""Synthesis with its constants computed and its passes over the pictures counted, for tracing.

What the paper's formula does at run time to every sample and channel is moved, exactly, to where it
costs nothing: the leaky ReLU's gain into norms, noise and bias (positive factors pass through it),
an up-sampling layer's bias into its filter, RGB's styles from the pictures into the 3 × C weights.
The network under training stays as the paper writes it; the graph is compared with that one.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velatura.export.networks.stylegan2 import (
    FullyConnected,
    SynthesisLayer,
    SynthesisNetwork,
    ToRGB,
)
from velatura.export.networks.upsampling import UpsamplingForm, filter_kernel, upsample_convolve

_GAIN = math.sqrt(2)


def prepared(synthesis: SynthesisNetwork) -> SynthesisNetwork:
    """A copy that gives the same images up to rounding, and runs in fewer passes."""
    result = copy.deepcopy(synthesis)
    with torch.no_grad():
        for resolution in result.resolutions:
            block: Any = getattr(result, f"b{resolution}")
            for name in ("conv0", "conv1"):
                layer = getattr(block, name, None)
                if isinstance(layer, SynthesisLayer):
                    setattr(block, name, _PreparedLayer(layer))
            block.torgb = _PreparedToRGB(block.torgb)
    return result.eval()


def _fixed(value: Tensor) -> nn.Parameter:
    """Still a parameter of the network, and not trained any more."""
    return nn.Parameter(value.detach().clone(), requires_grad=False)


def _affine(layer: FullyConnected, gain: float = 1.0) -> nn.Linear:
    """The layer's scaled weights, times `gain`, as an ordinary linear layer."""
    linear = nn.Linear(layer.weight.shape[1], layer.weight.shape[0])
    linear.weight = _fixed(layer.weight * (layer.weight_gain * gain))
    linear.bias = _fixed(layer.bias * (layer.bias_gain * gain))
    return linear


class _PreparedLayer(nn.Module):
    """`SynthesisLayer`: x [N, in, H, W], w [N, w_dim] → [N, out, R, R]."""

    def __init__(self, layer: SynthesisLayer) -> None:
        super().__init__()
        weight = layer.weight * layer.weight_gain
        self.affine = _affine(layer.affine)
        self.weight = _fixed(weight)
        self.energy = _fixed(weight.square().sum(dim=(2, 3)).t())  # [in, out]
        self.noise = _fixed(layer.noise_const * (layer.noise_strength * _GAIN))  # [R, R]
        self.bias = _fixed(layer.bias * _GAIN)  # [out]
        self.taps, self.clamp = layer.up_taps, layer.conv_clamp
        self.form = layer.form
        filtered = self.form in (None, UpsamplingForm.FILTERED)
        self.filter: nn.Parameter | None = None
        if self.taps is not None and filtered:
            kernel = filter_kernel(weight, self.taps).flip((2, 3))
            self.filter = _fixed(kernel.expand(weight.shape[0], 1, -1, -1))
            self.weight = _fixed(weight.flip((2, 3)).transpose(0, 1))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles = self.affine(w)  # [N, in]
        norm = torch.rsqrt(styles.square() @ self.energy + 1e-8) * _GAIN  # [N, out]
        x = self._convolve(x * styles[:, :, None, None], norm[:, :, None, None]) + self.noise
        x = F.leaky_relu(x, 0.2)
        return x.clamp(-self.clamp, self.clamp) if self.clamp else x

    def _convolve(self, x: Tensor, norm: Tensor) -> Tensor:
        """Demodulated, with the bias."""
        if self.taps is None:
            return F.conv2d(x, self.weight, padding=1) * norm + self.bias[:, None, None]
        if self.filter is None:
            x = upsample_convolve(x, self.weight, self.taps, self.form)
            return x * norm + self.bias[:, None, None]
        x = F.conv_transpose2d(x, self.weight, stride=2) * norm  # [N, out, 2H + 1, 2W + 1]
        margin = (len(self.taps) - 2) // 2
        return F.conv2d(x, self.filter, self.bias, padding=margin, groups=self.filter.shape[0])


class _PreparedToRGB(nn.Module):
    """`ToRGB`: x [N, in, R, R], w [N, w_dim] → [N, 3, R, R], as one product for each sample."""

    def __init__(self, layer: ToRGB) -> None:
        super().__init__()
        self.affine = _affine(layer.affine, layer.weight_gain)
        self.weight = _fixed(layer.weight[:, :, 0, 0])  # [3, in]
        self.bias = _fixed(layer.bias[:, None])
        self.clamp = layer.conv_clamp

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        weight = self.weight * self.affine(w)[:, None]  # [N, 3, in]
        out = weight @ x.flatten(2) + self.bias  # [N, 3, R · R]
        out = out.clamp(-self.clamp, self.clamp) if self.clamp else out
        picture: Tensor = out.unflatten(2, x.shape[2:])  # [N, 3, R, R]
        return picture
