"""Doubling the size, low-pass filtering and convolving: one operation, written in several ways.

Zeros between the samples, the filter of an up-sampling layer (Karras et al. 2020, section 4.2) and
the convolution commute, so all forms give the same numbers up to rounding. They differ in what they
cost: for a 3×3 kernel and t taps, per pair of channels and sample of the input,

    folded      (t + 2)² products: 16 for two taps, 36 for the paper's four
    filtered    9, and t² for each channel of the output
    sub-pixel   as folded, in one ordinary convolution
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import Tensor


class UpsamplingForm(StrEnum):
    """How an up-sampling layer is written."""

    FOLDED = "folded"
    """One transposed convolution whose kernel holds the filter."""
    FILTERED = "filtered"
    """A transposed convolution with the kernel as it is, and the filter on each channel."""
    SUBPIXEL = "subpixel"
    """An ordinary convolution to four times the channels, one set for each of the 2×2 places."""


def fastest_form(taps: Sequence[int]) -> UpsamplingForm:
    """The one for training: one operator where it costs little more than the least products.

    Traced graphs filter in any case (`prepared.py`): onnxruntime gathers fewer products faster.
    """
    return UpsamplingForm.FOLDED if len(taps) <= 2 else UpsamplingForm.FILTERED


def fold_filter(weight: Tensor, taps: Sequence[int]) -> Tensor:
    """Kernel [out, in, k, k] convolved with the separable filter `taps`: [out, in, k+t-1, k+t-1].

    Up-sampling by two keeps its brightness when the taps sum to two along each axis.
    """
    kernel = filter_kernel(weight, taps)  # [1, 1, t, t]
    out_channels, in_channels, k, _ = weight.shape
    flat = weight.reshape(out_channels * in_channels, 1, k, k)
    margin = len(taps) - 1
    folded = F.conv2d(F.pad(flat, [margin] * 4), kernel.flip((2, 3)))
    return folded.reshape(out_channels, in_channels, k + margin, k + margin)


def filter_kernel(like: Tensor, taps: Sequence[int]) -> Tensor:
    """The taps' outer product of sum four, [1, 1, t, t], of the given tensor's kind."""
    taps_1d = torch.tensor(taps, dtype=like.dtype, device=like.device)
    taps_1d = taps_1d * (2 / taps_1d.sum())
    return torch.outer(taps_1d, taps_1d)[None, None]


def upsample_convolve(
    x: Tensor, weight: Tensor, taps: Sequence[int], form: UpsamplingForm | None = None
) -> Tensor:
    """Double the size, filter and convolve.

    x [N, in, H, W], weight [out, in, k, k] (as a correlation) → [N, out, 2H, 2W]. k is odd and the
    number of taps even; without `form`, the fastest.
    """
    form = form or fastest_form(taps)
    if form is UpsamplingForm.FILTERED:
        return _filtered(x, weight, taps)
    folded = fold_filter(weight.flip((2, 3)), taps)  # [out, in, k + t - 1, k + t - 1], even
    margin = (folded.shape[2] - 2) // 2
    if form is UpsamplingForm.SUBPIXEL:
        return _subpixel(x, folded)
    return F.conv_transpose2d(x, folded.transpose(0, 1), stride=2, padding=margin)


def _filtered(x: Tensor, weight: Tensor, taps: Sequence[int]) -> Tensor:
    """Transposed convolution [N, out, 2H + k - 2, …], then the filter channel by channel."""
    channels, k = weight.shape[0], weight.shape[2]
    spread = F.conv_transpose2d(x, weight.flip((2, 3)).transpose(0, 1), stride=2)
    kernel = filter_kernel(weight, taps).flip((2, 3)).expand(channels, 1, -1, -1)
    margin = (len(taps) - k + 1) // 2  # so that 2H + k - 2 samples become 2H
    if margin < 0:
        spread = spread[:, :, -margin:margin, -margin:margin]
    return F.conv2d(spread, kernel, padding=max(margin, 0), groups=channels)


def _subpixel(x: Tensor, folded: Tensor) -> Tensor:
    """The kernel's even and odd taps each make a picture; the four of them are interleaved."""
    out_channels, in_channels, total, _ = folded.shape
    half, margin = total // 2, (total - 2) // 2
    places = folded.reshape(out_channels, in_channels, half, 2, half, 2)
    kernel = places.permute(0, 3, 5, 1, 2, 4).flip((4, 5))  # [out, 2, 2, in, half, half]
    kernel = kernel.reshape(4 * out_channels, in_channels, half, half)
    # What would be cut off in pairs of samples is not computed in the first place.
    apart = F.conv2d(x, kernel, padding=half - 1 - margin // 2)
    wide = F.pixel_shuffle(apart, 2)  # [N, out, 2H or 2H + 2, …]
    return wide[:, :, 1:-1, 1:-1] if margin % 2 else wide
