"""The W+ encoder: one latent and its deltas."""

from __future__ import annotations

import pytest
import torch

from velatura.export.networks.encoder import Encoder, EncoderConfig

SMALL = EncoderConfig(16, 4, 8, (4, 8), (1, 1), 4)


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(SMALL)
    torch.nn.init.normal_(encoder.deltas.weight)
    return encoder.eval()


def test_the_default_fits_the_default_generator() -> None:
    out = Encoder(EncoderConfig())(torch.zeros(2, 3, 128, 128))
    assert out.shape == (2, 12, 128)


def test_an_untrained_encoder_starts_near_the_average_latent() -> None:
    encoder = Encoder(SMALL)
    encoder.w_avg.fill_(3.0)
    out = encoder(torch.rand(4, 3, 16, 16) * 2 - 1)
    assert (out - 3).abs().max() < 0.5


def test_without_deltas_every_layer_gets_the_one_latent(encoder: Encoder) -> None:
    image = torch.rand(2, 3, 16, 16) * 2 - 1
    whole = encoder(image)
    encoder.delta_scale = 0.0
    alone = encoder(image)
    assert alone.shape == (2, 4, 8)
    torch.testing.assert_close(alone, alone[:, :1].expand(-1, 4, -1))
    torch.testing.assert_close(alone[:, 0], whole[:, 0])
    assert (whole - alone)[:, 1:].abs().min() > 0


def test_delta_scale_scales_the_deltas(encoder: Encoder) -> None:
    image = torch.rand(2, 3, 16, 16) * 2 - 1
    whole = encoder(image)
    encoder.delta_scale = 0.5
    half = encoder(image)
    torch.testing.assert_close(half - half[:, :1], (whole - whole[:, :1]) / 2)


@pytest.mark.parametrize(
    ("channels", "blocks", "message"),
    [((4, 8), (1,), "2 channels but 1"), ((4, 8, 8), (1, 1, 1), r"2 px instead of 4.*stages")],
)
def test_a_configuration_that_cannot_work_says_so(
    channels: tuple[int, ...], blocks: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        EncoderConfig(16, 4, 8, channels, blocks)
