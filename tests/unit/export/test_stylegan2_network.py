"""The batch-friendly generator equals the paper's formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from velatura.export.networks.stylegan2 import (
    Generator,
    GeneratorConfig,
    MappingNetwork,
    modulated_conv2d,
)
from velatura.export.networks.upsampling import UpsamplingForm, filter_kernel, upsample_convolve


def test_two_tap_upsampling_equals_nearest_interpolation_then_convolution() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 5, 7, 6), torch.randn(4, 5, 3, 3)
    expected = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
    torch.testing.assert_close(upsample_convolve(x, weight, (1, 1)), expected, atol=1e-5, rtol=1e-5)


def test_four_tap_upsampling_equals_bilinear_interpolation_then_convolution_inside() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 5, 8, 8), torch.randn(4, 5, 3, 3)
    bilinear = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    expected = F.conv2d(bilinear, weight, padding=1)
    actual = upsample_convolve(x, weight, (1, 3, 3, 1))
    assert actual.shape == (2, 4, 16, 16)
    # Interpolation repeats the edge where the filter sees zeros, so the border is not compared.
    inner = (slice(None), slice(None), slice(3, -3), slice(3, -3))
    torch.testing.assert_close(actual[inner], expected[inner], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("up_taps", [None, (1, 1), (1, 3, 3, 1)])
def test_modulated_convolution_equals_per_sample_weights(up_taps: tuple[int, ...] | None) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(3, 5, 8, 8), torch.randn(4, 5, 3, 3)
    styles = torch.randn(3, 5) + 1
    actual = modulated_conv2d(x, weight, styles, demodulate=True, up_taps=up_taps)
    expected = torch.cat([_paper(x[i : i + 1], weight, styles[i], up_taps) for i in range(3)])
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


def _paper(x: Tensor, weight: Tensor, style: Tensor, up_taps: tuple[int, ...] | None) -> Tensor:
    """Karras et al. 2020, equations 1 to 3: modulate and demodulate the weights of one sample."""
    modulated = weight * style[None, :, None, None]
    demodulated = modulated / (modulated.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
    if up_taps is None:
        return F.conv2d(x, demodulated, padding=1)
    return upsample_convolve(x, demodulated, up_taps)


def test_psi_pulls_each_sample_towards_the_nearest_of_several_centres() -> None:
    torch.manual_seed(0)
    mapping = MappingNetwork(
        GeneratorConfig(8, z_dim=8, w_dim=8, mapping_layers=2, truncation_centres=5)
    )
    mapping.w_centres.normal_()
    z, psi = torch.randn(7, 8), torch.linspace(0, 1, 7)
    with torch.inference_mode():
        w, pulled = mapping(z, torch.ones(7)), mapping(z, psi)
    for i in range(7):
        centre = min(mapping.w_centres, key=lambda c: float((c - w[i]).norm()))
        torch.testing.assert_close(pulled[i], centre + psi[i] * (w[i] - centre))
    assert len(torch.unique(mapping(z, torch.zeros(7)), dim=0)) > 1


def test_psi_pulls_each_sample_towards_the_average_by_its_own_amount(
    tiny_generator: Generator,
) -> None:
    mapping = tiny_generator.mapping
    z = torch.randn(3, 8)
    full = mapping(z, torch.ones(3))
    mixed = mapping(z, torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(mixed[0], mapping.w_avg)
    torch.testing.assert_close(mixed[1], (full[1] + mapping.w_avg) / 2)
    torch.testing.assert_close(mixed[2], full[2])


def test_every_layer_of_w_plus_matters(tiny_generator: Generator) -> None:
    synthesis, config = tiny_generator.synthesis, tiny_generator.config
    w_plus = torch.randn(1, config.num_ws, config.w_dim)
    before = synthesis(w_plus)
    for layer in range(config.num_ws):
        moved = w_plus.clone()
        moved[:, layer] += 1
        assert (synthesis(moved) - before).abs().max() > 1e-4, f"layer {layer} is not read"


def test_number_of_layers_follows_from_the_resolution() -> None:
    assert GeneratorConfig().num_ws == 12
    assert GeneratorConfig(resolution=1024).num_ws == 18  # as published checkpoints have it


@pytest.mark.parametrize("form", list(UpsamplingForm))
@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1), (1, 2, 3, 4), (1, 2, 5, 5, 2, 1)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_every_form_of_upsampling_gives_the_same(
    form: UpsamplingForm, taps: tuple[int, ...], kernel: int
) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 5, 7, 6).double(), torch.randn(4, 5, kernel, kernel).double()
    spread = torch.zeros(2, 5, 14, 12).double()
    spread[:, :, ::2, ::2] = x
    # Zeros between the samples, the whole convolution, then the filter, cut in the middle.
    whole = F.conv2d(spread, weight, padding=kernel // 2 + 5)
    filtered = F.conv2d(
        whole.flatten(0, 1)[:, None], filter_kernel(x, taps).flip((2, 3)), padding=len(taps) - 1
    )
    start = 5 + (len(taps) - 1) // 2
    expected = filtered.unflatten(0, (2, 4))[:, :, 0, start:, start:][:, :, :14, :12]
    torch.testing.assert_close(upsample_convolve(x, weight, taps, form), expected)
