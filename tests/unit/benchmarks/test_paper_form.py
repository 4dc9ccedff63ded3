"""The synthesis as published gives the images of ours."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.paper_form import PaperForm
from velatura.export.networks.stylegan2 import Generator, GeneratorConfig

SMALL = GeneratorConfig(
    resolution=32, z_dim=16, w_dim=16, channels={4: 12, 8: 10, 16: 8, 32: 6}, conv_clamp=8.0
)


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
def test_it_is_the_same_network(taps: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    config = replace(SMALL, resample_filter=taps)
    generator = Generator(config).eval()
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.3)
        w_plus = torch.randn(3, config.num_ws, config.w_dim)
        ours = generator.synthesis(w_plus)
    torch.testing.assert_close(PaperForm(generator.synthesis)(w_plus), ours, atol=2e-5, rtol=1e-4)
