"""Reads format and dimensions from a file's bytes, before any pixel is decoded.

Nothing here allocates in proportion to the declared size, and the number of chunks walked is
bounded. What the decoders would let pass in silence is refused here: a PNG whose checksums do not
fit, a JPEG without its end, and a progressive JPEG with so many scans that a small file keeps a
core busy for minutes. Layouts: PNG (ISO 15948, clause 5), JPEG (ITU-T T.81, annex B), WebP (RFC
9649).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from velatura.server.imaging.errors import ImageError, Reason
from velatura.server.imaging.picture import ImageFormat

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PNG_CHUNKS = 65_536
MAX_JPEG_SEGMENTS = 4_096
MAX_JPEG_SCANS = 64  # encoders write one (baseline) to about a dozen (progressive)

_JPEG_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9
_PNG_ANCILLARY = 0x20  # in the first letter of a chunk's name: readers may skip the chunk
_WEBP_ANIMATION = 0x02

# Offset, magic bytes and name of the kinds of file that people send by mistake.
_FOREIGN = (
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\x00", "TIFF"),
    (0, b"MM\x00*", "TIFF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "Photoshop"),
    (0, b"<svg", "SVG"),
)


@dataclass(frozen=True, slots=True)
class Header:
    """What a file declares about itself; dimensions in pixels as stored, before any orientation."""

    format: ImageFormat
    width: int
    height: int
    animated: bool = False


def read_header(data: bytes, field: str = "image") -> Header:
    """Format and dimensions of a PNG, JPEG or WebP file, found from its content.

    Raises `ImageError`: NOT_AN_IMAGE, UNSUPPORTED_FORMAT, TRUNCATED or CORRUPT.
    """
    try:
        if data.startswith(PNG_SIGNATURE):
            return _png(data, field)
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data, field)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data, field)
    except (struct.error, IndexError):
        raise truncated(field) from None
    for offset, magic, name in _FOREIGN:
        if data.startswith(magic, offset):
            raise ImageError(
                Reason.UNSUPPORTED_FORMAT,
                field,
                f"{name} files are not read here.",
                "Send PNG, JPEG or WebP.",
                limit="PNG, JPEG, WebP",
                actual=name,
            )
    raise ImageError(
        Reason.NOT_AN_IMAGE, field, "the bytes are not an image.", "Send a PNG, JPEG or WebP file."
    )


def truncated(field: str) -> ImageError:
    """The error for a file that ends too early."""
    return ImageError(
        Reason.TRUNCATED, field, "the file ends before the image does.", "Send the whole file."
    )


def corrupt(field: str, what: str) -> ImageError:
    """The error for a file whose content contradicts its format."""
    return ImageError(
        Reason.CORRUPT,
        field,
        f"the file is damaged ({what}).",
        "Write the image again and send it.",
    )


def _png(data: bytes, field: str) -> Header:
    length, kind, width, height = struct.unpack_from(">I4sII", data, 8)
    if kind != b"IHDR" or length != 13:
        raise corrupt(field, "no IHDR chunk")
    view, position, animated = memoryview(data), 8, False
    for _ in range(MAX_PNG_CHUNKS):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length  # length, name, content, checksum
        if end > len(data):
            raise truncated(field)
        # Pillow skips the checksums of the pixels' chunks, and a damaged file would decode to
        # noise.
        critical = not kind[0] & _PNG_ANCILLARY
        if critical and zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(
            view[end - 4 : end]
        ):
            raise corrupt(field, "a chunk's checksum does not fit")
        animated = animated or kind == b"acTL"
        if kind == b"IEND":
            return Header(ImageFormat.PNG, width, height, animated)
        position = end
    raise corrupt(field, f"more than {MAX_PNG_CHUNKS:,} chunks")


def _jpeg(data: bytes, field: str) -> Header:
    position, size = 2, (-1, -1)
    for _ in range(MAX_JPEG_SEGMENTS):
        if data[position] != 0xFF:
            raise corrupt(field, "a segment without its marker")
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        position += 2
        if marker in _JPEG_STANDALONE:
            continue
        if marker == _JPEG_SCAN:
            return _jpeg_with_end(data, position, size, field)
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 3)
            size = (width, height)
        position += struct.unpack_from(">H", data, position)[0]
    raise corrupt(field, f"more than {MAX_JPEG_SEGMENTS:,} segments before the first scan")


def _jpeg_with_end(data: bytes, scan: int, size: tuple[int, int], field: str) -> Header:
    if size == (-1, -1):
        raise corrupt(field, "a scan before its frame")
    # A thumbnail inside the metadata has an end marker as well, so only one behind the scan counts.
    if data.rfind(bytes((0xFF, _JPEG_END)), scan) < 0:
        raise truncated(field)
    if data.count(bytes((0xFF, _JPEG_SCAN)), scan) >= MAX_JPEG_SCANS:  # besides the first
        raise corrupt(field, f"more than {MAX_JPEG_SCANS} scans")
    return Header(ImageFormat.JPEG, *size)


def _webp(data: bytes, field: str) -> Header:
    (declared,) = struct.unpack_from("<I", data, 4)
    if declared + 8 > len(data):
        raise truncated(field)
    kind = data[12:16]
    if kind == b"VP8 ":
        if data[23:26] != b"\x9d\x01\x2a":
            raise corrupt(field, "no key frame")
        width, height = struct.unpack_from("<HH", data, 26)
        return Header(ImageFormat.WEBP, width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L":
        if data[20] != 0x2F:
            raise corrupt(field, "no lossless signature")
        (bits,) = struct.unpack_from("<I", data, 21)
        return Header(ImageFormat.WEBP, (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8X":
        if len(data) < 30:
            raise truncated(field)
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        return Header(ImageFormat.WEBP, width, height, bool(data[20] & _WEBP_ANIMATION))
    raise corrupt(field, "no VP8 chunk")
