"""Semantic segmenters: DeepLabv3+ with full-resolution refinement, and U-Net with scSE attention.

Both are `segmentation_models_pytorch` architectures that take an RGB image in [-1, 1] and return
one logit per class at the input's own resolution. The state dict is that of the module below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Architecture = Literal["deeplabv3plus", "unet_scse"]


@dataclass(frozen=True)
class SegmenterConfig:
    """What rebuilds a segmenter from its weights; written beside them as JSON."""

    architecture: Architecture
    encoder: str
    classes: tuple[str, ...]
    resolution: int = 128
    decoder_channels: tuple[int, ...] = (128,)
    # DeepLabv3+ only: stages of the encoder, 4 or 5; the fifth keeps the fourth's size.
    encoder_depth: int = 5
    # DeepLabv3+ only: widths of the stage at stride 2, of the image's own features, and of the
    # stage at stride 1.
    refinement: tuple[int, ...] = (24, 8, 16)

    def __post_init__(self) -> None:
        if self.architecture not in ("deeplabv3plus", "unet_scse"):
            raise ValueError(
                f"architecture: unknown segmenter {self.architecture!r}; "
                "use deeplabv3plus or unet_scse"
            )
        if self.encoder_depth not in (4, 5):
            raise ValueError(f"encoder_depth: {self.encoder_depth}; give 4 or 5")
        if len(self.refinement) != 3:
            raise ValueError(f"refinement: {len(self.refinement)} widths; give three")


def _conv_bn_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class RefinedDeepLabV3Plus(nn.Module):
    """DeepLabv3+ (Chen et al. 2018, arXiv:1802.02611) whose logits are refined at strides 2 and 1.

    The paper's decoder stops at stride 4 and interpolates; brows and spectacle frames are two to
    three pixels wide at 128 px and would be lost there, so two narrow skip stages follow.

    Input [N, 3, H, W] in [-1, 1], H and W divisible by 16; output logits [N, C, H, W].
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        classes = len(config.classes)
        self.base = smp.DeepLabV3Plus(
            config.encoder,
            encoder_depth=config.encoder_depth,
            encoder_weights=None,
            decoder_channels=config.decoder_channels[0],
            classes=classes,
            upsampling=1,
            # The features are 8×8 at 128 px: the paper's rates of 12 to 36 would see only padding.
            decoder_atrous_rates=(2, 4, 6),
            decoder_aspp_separable=False,
        )
        half_channels = self.base.encoder.out_channels[1]
        half, detail, full = config.refinement
        self.refine_half = _conv_bn_relu(classes + half_channels, half)
        self.detail = _conv_bn_relu(3, detail)
        self.refine_full = _conv_bn_relu(half + detail, full)
        self.head = nn.Conv2d(full, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        features = self.base.encoder(image)
        coarse = self.base.segmentation_head(self.base.decoder(features))  # [N, C, H/4, W/4]
        coarse = F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
        half = self.refine_half(torch.cat([coarse, features[1]], dim=1))  # [N, R, H/2, W/2]
        full = F.interpolate(half, scale_factor=2.0, mode="bilinear", align_corners=False)
        full = self.refine_full(torch.cat([full, self.detail(image)], dim=1))  # [N, R, H, W]
        return cast("Tensor", self.head(full))  # [N, C, H, W]


def build_segmenter(config: SegmenterConfig) -> nn.Module:
    """A segmenter with random weights; `image` [N, 3, H, W] in [-1, 1] → logits [N, C, H, W].

    No weights are downloaded. Raises ValueError for a decoder that the architecture cannot have.
    """
    if config.architecture == "deeplabv3plus":
        if len(config.decoder_channels) != 1:
            raise ValueError("decoder_channels: deeplabv3plus takes exactly one width, e.g. [128]")
        return RefinedDeepLabV3Plus(config)
    depth = len(config.decoder_channels)
    if not 3 <= depth <= 5 or min(config.decoder_channels) < 16:
        raise ValueError(
            "decoder_channels: unet_scse takes three to five widths, one a stage of the encoder, "
            "of at least 16 each (its attention squeezes by 16), e.g. [128,64,32,16,16]"
        )
    return cast(
        "nn.Module",
        smp.Unet(
            config.encoder,
            encoder_weights=None,
            encoder_depth=depth,
            decoder_channels=config.decoder_channels,
            decoder_attention_type="scse",
            classes=len(config.classes),
        ),
    )
