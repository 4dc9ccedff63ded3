"""Published W+ encoders: pSp (Richardson et al. 2021, arXiv:2008.00951), e4e (Tov et al. 2021,
arXiv:2102.02766) and ReStyle (Alaluf et al. 2021, arXiv:2104.02699).

All have one "map to style" head for each layer of W+. pSp and e4e feed them from a feature pyramid
of three sizes, ReStyle from the last map alone; in e4e every head but the first gives an offset to
the first one's latent. The state-dict names are those of published checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from velatura.export.networks.ir_se50 import BackboneConfig, body, stem
from velatura.export.networks.stylegan2 import FullyConnected

INPUT_SIZE = 256  # px that all of them were made for
COARSE, MIDDLE = 3, 7  # layers below read the coarse, the middle, and from 7 on the fine map
_SLOPE = 0.01


@dataclass(frozen=True)
class StyleEncoderConfig:
    """What rebuilds an encoder from its weights."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    num_ws: int = 18
    w_dim: int = 512
    pyramid: bool = True
    deltas: bool = False


class MapToStyle(nn.Module):
    """Feature map [N, in, S, S] → one latent [N, w_dim], by convolutions that halve it to 1×1."""

    def __init__(self, inputs: int, w_dim: int, size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        while size > 1:
            layers += [nn.Conv2d(inputs, w_dim, 3, 2, padding=1), nn.LeakyReLU(_SLOPE)]
            inputs, size = w_dim, size // 2
        self.convs = nn.Sequential(*layers)
        self.linear = FullyConnected(w_dim, w_dim)

    def forward(self, x: Tensor) -> Tensor:
        latent: Tensor = self.linear(self.convs(x).flatten(1))  # [N, w_dim]
        return latent


class StyleEncoder(nn.Module):
    """Image [N, C, 256, 256] (cars: [N, C, 192, 256]) in [-1, 1] → [N, num_ws, w_dim], to which the
    average latent (or ReStyle's latest estimate) is still to be added."""

    def __init__(self, config: StyleEncoderConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.backbone.widths
        layers = stem(config.backbone)
        self.stem_names = tuple(layers)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.body = body(config.backbone)
        sizes = [INPUT_SIZE // 16] * config.num_ws
        if config.pyramid:
            sizes = [
                INPUT_SIZE // (16 if i < COARSE else 8 if i < MIDDLE else 4)
                for i in range(config.num_ws)
            ]
            self.latlayer1 = nn.Conv2d(widths[2], widths[3], 1)
            self.latlayer2 = nn.Conv2d(widths[1], widths[3], 1)
        self.styles = nn.ModuleList(MapToStyle(widths[3], config.w_dim, size) for size in sizes)

    def forward(self, image: Tensor) -> Tensor:
        maps = self._maps(image)
        # Each [N, w_dim]; together [N, num_ws, w_dim].
        codes = torch.stack([head(x) for head, x in zip(self.styles, maps, strict=True)], dim=1)
        if not self.config.deltas:
            return codes
        return torch.cat([codes[:, :1], codes[:, :1] + codes[:, 1:]], dim=1)

    def _maps(self, image: Tensor) -> list[Tensor]:
        """What each head reads."""
        x = image
        for name in self.stem_names:
            x = getattr(self, name)(x)
        taps = []
        for i, unit in enumerate(self.body):
            x = unit(x)
            if i in self.config.backbone.taps:
                taps.append(x)
        fine, middle, coarse = taps  # [N, c, 64, 64], [N, c', 32, 32], [N, c'', 16, 16]
        if not self.config.pyramid:
            return [coarse] * self.config.num_ws
        middle = _grown(coarse, self.latlayer1(middle))  # [N, c'', 32, 32]
        fine = _grown(middle, self.latlayer2(fine))  # [N, c'', 64, 64]
        count = self.config.num_ws
        maps = [coarse] * COARSE + [middle] * (MIDDLE - COARSE) + [fine] * max(0, count - MIDDLE)
        return maps[:count]


def _grown(x: Tensor, lateral: Tensor) -> Tensor:
    """The coarser map at the finer one's size, plus that one; corners on corners, as trained."""
    size = (lateral.shape[2], lateral.shape[3])
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True) + lateral
