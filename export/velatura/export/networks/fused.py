"""Whole ways through a generator as one network: latents, samples or an image in, an image out.

Noise can be an input: `noise` [N, noise_size], standard normal, every layer's map row by row in the
layers' order. Images can be pixels, uint8 [N, R, R, 3], so that they cross into the runtime and
back once and as they are stored.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.func import functional_call

from velatura.export.networks.stylegan2 import Generator, SynthesisNetwork

_BUFFER = "noise_const"


def noise_maps(synthesis: SynthesisNetwork) -> dict[str, int]:
    """Height and width of each layer's noise by its buffer's name, in the layers' order."""
    buffers = synthesis.named_buffers()
    return {name: buffer.shape[-1] for name, buffer in buffers if name.endswith(_BUFFER)}


def noise_size(synthesis: SynthesisNetwork) -> int:
    """Numbers of noise that one image takes."""
    return sum(size * size for size in noise_maps(synthesis).values())


class Renderer(nn.Module):
    """w_plus [N, num_ws, w_dim], and noise where it is an input → [N, 3, R, R] in [-1, 1], or
    pixels [N, R, R, 3]."""

    def __init__(self, synthesis: SynthesisNetwork, *, noisy: bool, pixels: bool) -> None:
        super().__init__()
        self.synthesis = synthesis
        self.pixels = pixels
        self.maps = noise_maps(synthesis) if noisy else {}

    def forward(self, w_plus: Tensor, noise: Tensor | None = None) -> Tensor:
        if noise is None:
            image: Tensor = self.synthesis(w_plus)
        else:
            image = functional_call(self.synthesis, self._maps(noise), (w_plus,))
        return to_pixels(image) if self.pixels else image

    def _maps(self, noise: Tensor) -> dict[str, Tensor]:
        """[N, 1, r, r] for each layer, in place of its constant [r, r]."""
        ends = list(accumulate(size * size for size in self.maps.values()))
        return {
            name: noise[:, end - size * size : end].reshape(-1, 1, size, size)
            for (name, size), end in zip(self.maps.items(), ends, strict=True)
        }


class SampleRenderer(nn.Module):
    """z [N, z_dim], truncation_psi [N], class_weights [N, C] of a class-conditional network, and
    noise where it is an input → images as `Renderer`'s."""

    def __init__(self, generator: Generator, renderer: Renderer) -> None:
        super().__init__()
        self.mapping, self.renderer = generator.mapping, renderer
        self.num_ws, self.conditional = generator.config.num_ws, bool(generator.config.classes)

    def forward(
        self,
        z: Tensor,
        truncation_psi: Tensor,
        first: Tensor | None = None,
        second: Tensor | None = None,
    ) -> Tensor:
        classes, noise = (first, second) if self.conditional else (None, first)
        w = self.mapping(z, truncation_psi, classes)  # [N, w_dim]
        image: Tensor = self.renderer(w[:, None].expand(-1, self.num_ws, -1), noise)
        return image


class Reconstruction(nn.Module):
    """image [N, 3, R, R] in [-1, 1] or pixels [N, R, R, 3], and noise where it is an input → what
    the generator makes of the encoder's latents."""

    step: Tensor

    def __init__(self, encoder: nn.Module, renderer: Renderer) -> None:
        super().__init__()
        self.encoder, self.renderer = encoder, renderer
        self.register_buffer("step", torch.full((1,), 1 / 127.5), persistent=False)

    def forward(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        if self.renderer.pixels:
            image = image.permute(0, 3, 1, 2) * self.step - 1  # [N, 3, R, R]
        result: Tensor = self.renderer(self.encoder(image), noise)
        return result


def to_pixels(image: Tensor) -> Tensor:
    """[N, 3, R, R] in [-1, 1] → uint8 [N, R, R, 3]; what lies beyond is cut."""
    levels = ((image + 1) * 127.5).round().clamp(0, 255)
    return levels.permute(0, 2, 3, 1).to(torch.uint8)
