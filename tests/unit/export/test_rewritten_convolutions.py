"""Convolutions rewritten for CPU kernels give what the plain ones give."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from velatura.export.networks.rewritten_convolutions import PhasedUpsampling, WinogradConvolution
from velatura.export.networks.upsampling import UpsamplingForm, upsample_convolve

SIDES = st.integers(1, 9)
CHANNELS = st.integers(1, 5)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3), CHANNELS, CHANNELS, SIDES, SIDES,
    st.sampled_from([(1, 3, 3, 1), (1, 2, 3, 3, 1, 5)]), st.integers(0, 1000),
)  # fmt: skip
def test_phases_give_the_transposed_convolution_demodulated_filtered_and_with_its_bias(
    items: int, ins: int, outs: int, height: int, width: int, taps: tuple[int, ...], seed: int
) -> None:
    x, weight = normal(seed, items, ins, height, width), normal(seed + 1, outs, ins, 3, 3)
    bias, norm = normal(seed + 2, outs), normal(seed + 3, items, outs, 1, 1)
    plain = upsample_convolve(x, weight, taps, UpsamplingForm.FOLDED)
    expected = plain * norm + bias[:, None, None]
    torch.testing.assert_close(PhasedUpsampling(weight, bias, taps)(x, norm), expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), CHANNELS, CHANNELS, SIDES, SIDES, st.integers(0, 1000))
def test_winograd_gives_the_padded_convolution(
    items: int, ins: int, outs: int, height: int, groups: int, seed: int
) -> None:
    x, weight = normal(seed, items, ins, height, 4 * groups), normal(seed + 1, outs, ins, 3, 3)
    expected = F.conv2d(x, weight, padding=1).permute(0, 2, 3, 1)
    torch.testing.assert_close(WinogradConvolution(weight)(x), expected)


def test_winograd_rounds_within_a_few_times_of_the_plain_one() -> None:
    """A layer of the size that it is used for, in float32."""
    x, weight = normal(0, 1, 256, 64, 64), normal(1, 32, 256, 3, 3) / 48
    exact = F.conv2d(x, weight, padding=1)
    plain = F.conv2d(x.float(), weight.float(), padding=1)
    rewritten = WinogradConvolution(weight.float())(x.float()).permute(0, 3, 1, 2)
    assert (rewritten - exact).abs().max() < 12 * (plain - exact).abs().max()


@pytest.mark.parametrize(("taps", "kernel"), [((1, 1), 3), ((1, 3, 3, 1), 1)])
def test_phases_refuse_what_they_were_not_written_for(taps: tuple[int, ...], kernel: int) -> None:
    with pytest.raises(ValueError, match="want"):
        PhasedUpsampling(torch.zeros(2, 2, kernel, kernel), torch.zeros(2), taps)
