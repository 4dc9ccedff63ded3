"""Images on their way to and from the wire.

In: a PIL image, a path, or the bytes of a file. Files that the server reads (PNG, JPEG, WebP)
travel as they are; everything else is written as PNG without loss. Out: bytes, decoded only when
asked for.
"""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

from PIL import Image as PilImage

from velatura.client.errors import invalid
from velatura.v1 import image_pb2

ImageInput: TypeAlias = "PilImage.Image | str | os.PathLike[str] | bytes"
Upload: TypeAlias = Literal["png", "raw"]
Format: TypeAlias = Literal["png", "jpeg", "webp", "raw"]

_CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}
_MODES = {channels: mode for mode, channels in _CHANNELS.items()}

# Modes that Pillow knows → the nearest that the wire knows. Deeper samples (I, F, I;16) are not
# here: how they map to 8 bits is the caller's business.
_NEAREST_MODE = {
    "1": "L",
    "LA": "RGBA",
    "La": "RGBA",
    "PA": "RGBA",
    "RGBa": "RGBA",
    "RGBX": "RGB",
    "CMYK": "RGB",
    "YCbCr": "RGB",
    "HSV": "RGB",
    "LAB": "RGB",
}

_FORMATS = {
    "png": image_pb2.IMAGE_FORMAT_PNG,
    "jpeg": image_pb2.IMAGE_FORMAT_JPEG,
    "jpg": image_pb2.IMAGE_FORMAT_JPEG,
    "webp": image_pb2.IMAGE_FORMAT_WEBP,
    "raw": image_pb2.IMAGE_FORMAT_RAW,
}


def to_proto(image: ImageInput, field: str, upload: Upload = "png") -> image_pb2.Image:
    """The wire's form of `image`; `upload` says how a PIL image travels.

    Raises:
        InvalidArgument: naming `field`, when the image cannot be read.
    """
    if isinstance(image, PilImage.Image):
        return _from_pillow(image, field, upload)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _from_bytes(bytes(image), field, upload)
    if isinstance(image, (str, os.PathLike)):
        return _from_bytes(read_file(Path(image), field), field, upload)
    raise invalid(
        field,
        f"expected a PIL image, a path or bytes, got {type(image).__name__}; convert it first",
    )


def mask_to_proto(mask: ImageInput, field: str) -> image_pb2.Image:
    """A mask as a grey PNG; a PIL mask of any mode is turned to grey first."""
    if isinstance(mask, PilImage.Image) and mask.mode != "L":
        mask = mask.convert("L")
    return to_proto(mask, field)


def output_options(
    output: str | None, quality: int | None, lossless: bool, field: str = "output"
) -> image_pb2.OutputOptions | None:
    """How the answer's image is to be written; None leaves it to the server."""
    if output is None and quality is None and not lossless:
        return None
    if output is not None and output.lower() not in _FORMATS:
        raise invalid(f"{field}.format", f"unknown format {output!r}; use png, jpeg, webp or raw")
    if quality is not None and not 1 <= quality <= 100:
        raise invalid(f"{field}.quality", f"must be 1..100, got {quality}")
    return image_pb2.OutputOptions(
        format=_FORMATS[output.lower()] if output else image_pb2.IMAGE_FORMAT_UNSPECIFIED,
        quality=quality or 0,
        lossless=lossless,
    )


@dataclass(frozen=True)
class Picture:
    """An image as it came over the wire: `data` holds a file's bytes, or raw samples with their
    size."""

    data: bytes
    format: Format
    raw_shape: tuple[int, int, int] | None = None  # (width, height, channels)

    @cached_property
    def pil(self) -> PilImage.Image:
        """The decoded image; decoding happens once."""
        if self.raw_shape is not None:
            width, height, channels = self.raw_shape
            return PilImage.frombytes(_MODES[channels], (width, height), self.data)
        with warnings.catch_warnings():
            # The server has its own limit; what it answered has the size of what was sent.
            warnings.simplefilter("ignore", PilImage.DecompressionBombWarning)
            image = PilImage.open(io.BytesIO(self.data))
            image.load()
        return image

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the image; bytes of the right format go to the file as they are."""
        target = Path(path)
        if format_of_suffix(target) == self.format:
            target.write_bytes(self.data)
        else:
            self.pil.save(target)


def from_proto(image: image_pb2.Image) -> Picture:
    """The picture that a response carries."""
    if image.WhichOneof("source") == "raw":
        raw = image.raw
        return Picture(raw.data, "raw", (raw.width, raw.height, raw.channels))
    return Picture(image.encoded, sniff(image.encoded) or "png")


def sniff(data: bytes) -> Format | None:
    """The format that a file's first bytes announce; None when the server does not read it."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return None


def format_of_suffix(path: Path) -> Format | None:
    """The format that a file's name announces; None for others than PNG, JPEG and WebP."""
    suffixes: dict[str, Format] = {
        ".png": "png",
        ".jpg": "jpeg",
        ".jpeg": "jpeg",
        ".webp": "webp",
    }
    return suffixes.get(path.suffix.lower())


def read_file(path: Path, field: str) -> bytes:
    """The file's bytes; a clear error when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise invalid(field, f"cannot read {path}: {error.strerror or error}") from error


def _from_bytes(data: bytes, field: str, upload: Upload) -> image_pb2.Image:
    if not data:
        raise invalid(field, "the file is empty; send a PNG, JPEG or WebP file")
    if sniff(data) is not None:
        return image_pb2.Image(encoded=data)
    try:
        with PilImage.open(io.BytesIO(data)) as image:
            image.load()
            return _from_pillow(image, field, upload)
    except (OSError, SyntaxError, PilImage.DecompressionBombError) as error:
        raise invalid(
            field, "not an image that can be read; send a PNG, JPEG or WebP file"
        ) from error


def _from_pillow(image: PilImage.Image, field: str, upload: Upload) -> image_pb2.Image:
    image = _to_wire_mode(image, field)
    if upload == "raw":
        width, height = image.size
        return image_pb2.Image(
            raw=image_pb2.RawImage(
                width=width, height=height, channels=_CHANNELS[image.mode], data=image.tobytes()
            )
        )
    buffer = io.BytesIO()
    # Level 1 is about five times as fast as the default, for files a tenth larger.
    image.save(buffer, "PNG", compress_level=1)
    return image_pb2.Image(encoded=buffer.getvalue())


def _to_wire_mode(image: PilImage.Image, field: str) -> PilImage.Image:
    if 0 in image.size:
        raise invalid(field, f"the image is empty ({image.width}×{image.height} pixels)")
    if image.mode in _CHANNELS:
        return image
    if image.mode == "P":
        return image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode not in _NEAREST_MODE:
        raise invalid(
            field, f"PIL mode {image.mode!r} has more than 8 bits a sample; convert it to RGB first"
        )
    return image.convert(_NEAREST_MODE[image.mode])
