"""Convolutions of constant weights rewritten into those that onnxruntime's CPU kernels are fast at.

Its ordinary convolutions reach most of the processor's products, on blocks of channels; its
transposed ones scatter their products on one thread. Both modules here are made of the former. The
results are interleaved with channels last, where neighbours are whole runs of memory and
onnxruntime's reordering from and to blocks of channels does the transposing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velatura.export.networks.parameters import fixed
from velatura.export.networks.upsampling import filter_kernel


class PhasedUpsampling(nn.Module):
    """Doubles the size, convolves with 3×3, demodulates, filters and adds the bias:
    x [N, in, H, W], norm [N, out, 1, 1] → [N, out, 2H, 2W].

    Of the 2×2 places that each sample of x has in the result, the 3×3 kernel's taps reach one with
    four, two with two and one with one: four ordinary convolutions, and 9 products in all, as many
    as the transposed convolution between zeros has (Karras et al. 2020, arXiv:1912.04958, section
    4.2). `weight` [out, in, 3, 3] is a correlation, `taps` are four or more, an even number.
    """

    def __init__(self, weight: Tensor, bias: Tensor, taps: Sequence[int]) -> None:
        super().__init__()
        if len(taps) < 4 or weight.shape[2] != 3:
            raise ValueError(f"{len(taps)} taps and a kernel of {weight.shape[2]}: want ≥ 4, and 3")
        self.channels = weight.shape[0]
        self.bias = fixed(bias)  # [out]
        kernel = filter_kernel(weight, taps).flip((2, 3))  # [1, 1, t, t]
        self.filter = fixed(kernel.expand(self.channels, 1, -1, -1))
        # Even places see the samples before and after them, odd ones the sample they stand on.
        self.even_even = fixed(weight[:, :, ::2, ::2])
        self.even_odd = fixed(weight[:, :, ::2, 1:2])
        self.odd_even = fixed(weight[:, :, 1:2, ::2])
        self.odd_odd = fixed(weight[:, :, 1:2, 1:2])
        margin = (len(taps) - 2) // 2
        self.margins = (margin, margin - 1) * 2  # there is a row and a column of zeros at the end

    def forward(self, x: Tensor, norm: Tensor) -> Tensor:
        rows = (
            self._row(x, 1, self.even_even, self.even_odd),
            self._row(x, 0, self.odd_even, self.odd_odd),
        )
        spread = torch.stack(rows, dim=2).flatten(1, 2)  # [N, 2H + 2, 2W + 2, out]
        spread = (spread * norm.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return F.conv2d(F.pad(spread, self.margins), self.filter, self.bias, groups=self.channels)

    def _row(self, x: Tensor, above: int, even: Tensor, odd: Tensor) -> Tensor:
        """Every other row, with `above` rows of zeros before x: [N, H + 1, 2W + 2, out]."""
        even_columns = F.conv2d(F.pad(x, (1, 1, above, 1)), even)  # [N, out, H + 1, W + 1]
        odd_columns = F.conv2d(F.pad(x, (0, 1, above, 1)), odd)  # [N, out, H + 1, W + 1]
        return channels_last((even_columns, odd_columns))


# F(4, 3) of Lavin & Gray 2015 (arXiv:1509.09308, section 4.3) by the points 0, 1, -1, 2, -2 and
# infinity. Of six samples, number 0 being the neighbour before a group of four: the first one that
# is taken, and factors from there on.
_SUMS = (
    (0, (4, 0, -5, 0, 1)),
    (1, (-4, -4, 1, 1)),
    (1, (4, -4, -1, 1)),
    (1, (-2, -1, 2, 1)),
    (1, (2, -1, -2, 1)),
    (1, (4, 0, -5, 0, 1)),
)
# What they are multiplied by: factors of the kernel's three columns.
_KERNELS = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)


class WinogradConvolution(nn.Module):
    """3×3 convolution, padded by one, of weight [out, in, 3, 3]: x [N, in, H, W], W a multiple of
    four → [N, H, W, out], channels last.

    Winograd's way along the width: four neighbours share six products of 3×1 where they would take
    twelve. All that it costs are sums before and after the products, channel by channel. In float32
    it rounds about four times as coarsely as the plain one.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.products = nn.ParameterList(
            fixed((weight * weight.new_tensor(row)).sum(dim=3, keepdim=True)) for row in _KERNELS
        )  # [out, in, 3, 1] each
        outs, ins = weight.shape[:2]
        self.sums = nn.ParameterList(
            fixed(weight.new_tensor(row).expand(ins, 1, 1, -1)) for _, row in _SUMS
        )
        # A multiple as a convolution stays in blocks of channels, where a product would not.
        self.multiples = nn.ParameterDict(
            {str(each): fixed(weight.new_full((outs, 1, 1, 1), each)) for each in (-1, 2, 4, 8)}
        )

    def forward(self, x: Tensor) -> Tensor:
        zero, one, minus_one, two, minus_two, infinity = (
            F.conv2d(_summed(x, start, row), kernel, padding=(1, 0))
            for (start, _), row, kernel in zip(_SUMS, self.sums, self.products, strict=True)
        )  # [N, out, H, W / 4] each
        even, even_two = one + minus_one, two + minus_two
        odd, odd_two = one + self._times(-1, minus_one), two + self._times(-1, minus_two)
        return channels_last(
            (
                zero + (even + even_two),
                odd + self._times(2, odd_two),
                even + self._times(4, even_two),
                infinity + (odd + self._times(8, odd_two)),
            )
        )

    def _times(self, factor: int, x: Tensor) -> Tensor:
        return F.conv2d(x, self.multiples[str(factor)], groups=x.shape[1])


def _summed(x: Tensor, start: int, row: Tensor) -> Tensor:
    """One sum for every group of four: [N, in, H, W] → [N, in, H, W / 4]."""
    after = max(0, start + row.shape[3] - 5)  # beyond the last group's own samples
    return F.conv2d(F.pad(x, (1 - start, after, 0, 0)), row, stride=(1, 4), groups=x.shape[1])


def channels_last(columns: Sequence[Tensor]) -> Tensor:
    """Columns in turns: m of [N, C, H, W] → [N, H, m · W, C]."""
    channels, height, width = columns[0].shape[1:]
    together = torch.cat(tuple(columns), dim=1).permute(0, 2, 3, 1)  # [N, H, W, m · C]
    return together.reshape(-1, height, width * len(columns), channels)
