"""A published encoder and all that belongs around it, as one network of a bundle: the image at the
generator's size is resized to what the encoder was made for, and latents come out whole.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velatura.export.networks.gradual_style import INPUT_SIZE, StyleEncoder


class View(nn.Module):
    """Image [N, 3, R, R] → [N, 3, 256, 256], or of a letterboxed one the middle [N, 3, 192, 256].

    Bilinear with antialiasing, as the encoders' training data was resized: a multiplication by one
    fixed matrix for each axis, which is exact and every runtime has it.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, resolution: int, *, letterboxed: bool) -> None:
        super().__init__()
        self.whole = resolution == INPUT_SIZE and not letterboxed
        margin = resolution // 8 if letterboxed else 0
        height = INPUT_SIZE - 2 * (INPUT_SIZE // 8) if letterboxed else INPUT_SIZE
        rows = _resampling(resolution - 2 * margin, height)
        self.register_buffer("rows", F.pad(rows, (margin, margin)), persistent=False)
        columns = _resampling(resolution, INPUT_SIZE).T.contiguous()
        self.register_buffer("columns", columns, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        if self.whole:
            return image
        return self.rows @ image @ self.columns  # [H, R] @ [N, 3, R, R] @ [R, 256]


def _resampling(source: int, target: int) -> Tensor:
    """[target, source]: what each sample of the result takes from each one of the source."""
    single = torch.eye(source, dtype=torch.float64)[None, None]
    resized = F.interpolate(
        single, size=(target, source), mode="bilinear", antialias=True, align_corners=False
    )
    return resized[0, 0].float()


def shown(image: Tensor, *, letterboxed: bool) -> Tensor:
    """What the generator made, as ReStyle's encoder sees it: means of squares of pixels (of smaller
    images, repeated pixels); [N, 3, R, R] → [N, 3, 256, 256], letterboxed [N, 3, 192, 256]."""
    resolution = image.shape[-1]
    if resolution > INPUT_SIZE:
        image = F.avg_pool2d(image, resolution // INPUT_SIZE)
    elif resolution < INPUT_SIZE:
        scale = float(INPUT_SIZE // resolution)
        image = F.interpolate(image, scale_factor=scale, mode="nearest")
    if letterboxed:
        image = image[:, :, INPUT_SIZE // 8 : -INPUT_SIZE // 8]
    return image


class DirectInversion(nn.Module):
    """pSp and e4e: image [N, 3, R, R] in [-1, 1] → w_plus [N, num_ws, w_dim] in one pass."""

    average: Tensor

    def __init__(
        self, encoder: StyleEncoder, average: Tensor, resolution: int, *, letterboxed: bool
    ) -> None:
        super().__init__()
        self.view = View(resolution, letterboxed=letterboxed)
        self.encoder = encoder
        self.register_buffer("average", average)  # [num_ws, w_dim]

    def forward(self, image: Tensor) -> Tensor:
        latents: Tensor = self.encoder(self.view(image)) + self.average
        return latents


class IterativeInversion(nn.Module):
    """ReStyle: image [N, 3, R, R] in [-1, 1] → w_plus [N, num_ws, w_dim] after `iterations` passes.

    Each pass sees the image and what the generator makes of the latents so far, and says what to
    add to them. The first sees the average's image, which is kept.
    """

    average: Tensor
    average_image: Tensor

    def __init__(
        self,
        encoder: StyleEncoder,
        average: Tensor,
        synthesis: nn.Module,
        resolution: int,
        *,
        letterboxed: bool,
        iterations: int,
    ) -> None:
        super().__init__()
        self.view = View(resolution, letterboxed=letterboxed)
        self.encoder, self.synthesis = encoder, synthesis
        self.letterboxed, self.iterations = letterboxed, iterations
        self.register_buffer("average", average)  # [num_ws, w_dim]
        with torch.inference_mode():
            image = shown(synthesis(average[None]), letterboxed=letterboxed)  # [1, 3, H, 256]
        self.register_buffer("average_image", image.clone())

    def forward(self, image: Tensor) -> Tensor:
        seen = self.view(image)  # [N, 3, H, 256]
        made = self.average_image.expand(image.shape[0], -1, -1, -1)
        latents: Tensor = self.average + self.encoder(torch.cat([seen, made], dim=1))
        for _ in range(self.iterations - 1):
            made = shown(self.synthesis(latents), letterboxed=self.letterboxed)
            latents = latents + self.encoder(torch.cat([seen, made], dim=1))
        return latents  # [N, num_ws, w_dim]
