"""The decoded image that the rest of the server works on, its formats, and limits on its size."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from velatura.server.imaging.errors import ImageError, Reason

U8: TypeAlias = NDArray[np.uint8]
F32: TypeAlias = NDArray[np.float32]


class ImageFormat(StrEnum):
    """How pixels are written into bytes."""

    PNG = "PNG"
    JPEG = "JPEG"
    WEBP = "WEBP"
    RAW = "RAW"


@dataclass(frozen=True, slots=True)
class Limits:
    """What an image may cost: bytes as sent, pixels and longest side once decoded."""

    max_bytes: int = 32 * 1024 * 1024
    max_pixels: int = 16_777_216
    max_side: int = 16_384


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An upright sRGB image.

    `rgb` is uint8 [H, W, 3]; `alpha` is uint8 [H, W] or None. EXIF orientation and colour profile
    of the file are already applied; `orientation` (1..8) and `colour_profile` say what they were.
    `digest` stands for the bytes that the picture was decoded from; it is empty for any other.
    """

    rgb: U8
    alpha: U8 | None = None
    source_format: ImageFormat = ImageFormat.PNG
    orientation: int = 1
    colour_profile: str = ""
    digest: bytes = b""

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.rgb.shape[0])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.rgb.shape[1])

    def with_rgb(self, rgb: U8) -> Picture:
        """The same picture, its alpha included, with other colours; `rgb` is uint8 [H, W, 3]."""
        return dataclasses.replace(self, rgb=rgb, digest=b"")

    def opaque(self, background: int = 255) -> U8:
        """Uint8 [H, W, 3] over a grey `background`: what networks see of a transparent picture."""
        if self.alpha is None:
            return self.rgb
        alpha = self.alpha[..., None].astype(np.uint16)  # [H, W, 1]
        mixed = self.rgb * alpha + np.uint16(background) * (255 - alpha)
        return ((mixed + 127) // 255).astype(np.uint8)

    def luminance(self) -> U8:
        """Uint8 [H, W]: what the picture means as a mask. Transparent pixels count as black."""
        grey = cv2.cvtColor(self.opaque(background=0), cv2.COLOR_RGB2GRAY)
        return np.asarray(grey, np.uint8)


def check_bytes(count: int, limits: Limits, field: str) -> None:
    """Refuse no bytes at all, and more than the limit."""
    if count == 0:
        raise ImageError(Reason.EMPTY, field, "there are no bytes.", "Send the image's content.")
    if count > limits.max_bytes:
        raise ImageError(
            Reason.TOO_MANY_BYTES,
            field,
            f"{count:,} bytes are over the limit of {limits.max_bytes:,}.",
            "Send a smaller image or compress it more.",
            limit=limits.max_bytes,
            actual=count,
        )


def check_dimensions(width: int, height: int, limits: Limits, field: str) -> None:
    """Refuse an image without pixels, or with more pixels or longer sides than the limits allow."""
    if width <= 0 or height <= 0:
        raise ImageError(
            Reason.EMPTY,
            field,
            f"the image is {width}×{height} pixels.",
            "Send an image of at least 1×1 pixels.",
            limit=1,
            actual=min(width, height),
        )
    if width * height > limits.max_pixels:
        raise ImageError(
            Reason.TOO_MANY_PIXELS,
            field,
            f"{width}×{height} = {width * height:,} pixels; the limit is {limits.max_pixels:,}.",
            "Scale the image down before sending it.",
            limit=limits.max_pixels,
            actual=width * height,
        )
    if max(width, height) > limits.max_side:
        raise ImageError(
            Reason.SIDE_TOO_LONG,
            field,
            f"a side of {max(width, height):,} pixels is over the limit of {limits.max_side:,}.",
            "Crop the image or scale it down before sending it.",
            limit=limits.max_side,
            actual=max(width, height),
        )
