"""The discriminator's parts against plain formulations of what the papers describe."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from velatura.training.gan.discriminator import (
    Discriminator,
    DiscriminatorConfig,
    EqualizedConv2d,
    downsample,
    minibatch_stddev,
)

WIDTHS = {4: 8, 8: 8, 16: 6, 32: 4, 64: 4, 128: 4, 256: 4}


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
def test_folded_halving_is_filter_then_strided_convolution(taps: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    conv = EqualizedConv2d(3, 5, 3, down_taps=taps).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    kernel = torch.tensor(taps, dtype=torch.float64)
    kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
    padded = F.pad(x, [len(taps) // 2] * 4)  # as much on both sides
    blurred = F.conv2d(padded, kernel.expand(3, 1, -1, -1), groups=3)
    expected = F.conv2d(blurred, conv.weight * conv.weight_gain, stride=2)
    assert expected.shape == (2, 5, 4, 4)
    torch.testing.assert_close(conv(x), expected)


def test_shortcut_halves_without_moving_the_image() -> None:
    x = torch.arange(8.0).expand(1, 1, 8, 8)
    box, long = downsample(x, (1, 1)), downsample(x, (1, 3, 3, 1))
    torch.testing.assert_close(box[0, 0, 1], torch.tensor([0.5, 2.5, 4.5, 6.5]))
    torch.testing.assert_close(long[0, 0, 1, 1:3], torch.tensor([2.5, 4.5]))


def test_equalized_convolution_keeps_unit_variance() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 32, 16, 16)
    assert EqualizedConv2d(32, 64, 3)(x)[:, :, 1:-1, 1:-1].var().item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("count", "group"), [(8, 4), (6, 4), (3, 4), (5, 1)])
def test_minibatch_stddev_is_the_groups_mean_spread(count: int, group: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(count, 3, 4, 4)
    found = minibatch_stddev(x, group)
    assert found.shape == (count, 4, 4, 4)
    torch.testing.assert_close(found[:, :3], x)
    size = {8: 4, 6: 3, 3: 3, 5: 1}[count]
    stride = count // size
    for index in range(count):
        members = x[index % stride :: stride]
        expected = (members.var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
        torch.testing.assert_close(found[index, 3], expected.expand(4, 4))


@pytest.mark.parametrize("resolution", [32, 64, 128, 256])
def test_every_size_gives_one_logit_an_image(resolution: int) -> None:
    network = Discriminator(DiscriminatorConfig(resolution, WIDTHS, resample_filter=(1, 3, 3, 1)))
    logits = network(torch.randn(2, 3, resolution, resolution))
    assert logits.shape == (2,)
    assert torch.isfinite(logits).all()


def test_logits_at_the_start_have_unit_scale() -> None:
    torch.manual_seed(0)
    network = Discriminator(DiscriminatorConfig(64))
    logits = network(torch.randn(16, 3, 64, 64))
    assert 0.02 < logits.abs().mean().item() < 5


def test_projection_is_the_product_with_the_class() -> None:
    """The logit is linear in the normalised embedding: opposite embeddings give opposite logits."""
    torch.manual_seed(0)
    network = Discriminator(DiscriminatorConfig(32, WIDTHS, classes=2))
    network.embed.weight.data[:, 1] = -network.embed.weight.data[:, 0]
    images = torch.randn(1, 3, 32, 32).repeat(2, 1, 1, 1)
    logits = network(images, torch.eye(2))
    assert logits[0].item() == pytest.approx(-logits[1].item(), rel=1e-4)
    assert abs(logits[0].item()) > 1e-4
    with pytest.raises(ValueError, match=r"class_weights \[N, 2\] are missing"):
        network(images)


def test_spectral_norm_leaves_no_singular_value_above_one() -> None:
    torch.manual_seed(0)
    network = Discriminator(DiscriminatorConfig(32, WIDTHS, spectral_norm=True))
    images = torch.randn(4, 3, 32, 32)
    for _ in range(30):  # each forward pass takes one step of the power iteration
        network(images)
    network.eval()
    layers = [m for m in network.modules() if hasattr(m, "weight_gain")]
    assert len(layers) == 13  # from RGB, three blocks of three, three at the end
    for layer in layers:
        scaled = (layer.weight * layer.weight_gain).detach().flatten(1)
        assert torch.linalg.matrix_norm(scaled, 2).item() == pytest.approx(1, abs=0.02)


def test_bfloat16_gives_float32_logits_close_to_the_exact_ones() -> None:
    torch.manual_seed(0)
    network = Discriminator(DiscriminatorConfig(32, WIDTHS))
    images = torch.randn(4, 3, 32, 32)
    exact = network(images)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(images)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.1, rtol=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resolution": 48}, "resolution: 48"),
        ({"resolution": 64, "channels": {4: 8, 8: 8, 32: 8}}, r"no width for .* \[16, 64\]"),
        ({"resample_filter": (1, 2, 1)}, "resample_filter: 3 taps"),
        ({"stddev_group": 0}, "stddev_group: 0"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiscriminatorConfig(**settings)  # type: ignore[arg-type]


def test_images_of_another_size_are_refused() -> None:
    network = Discriminator(DiscriminatorConfig(32, WIDTHS))
    with pytest.raises(ValueError, match=r"images: shape \[1, 3, 64, 64\]"):
        network(torch.zeros(1, 3, 64, 64))
