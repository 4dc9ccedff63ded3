"""Pictures that differ each time they are sent, without being coded again.

Coding would take the load generator longer than sending, and callers would wait for it. A JPEG
becomes another picture when its quantisation table changes a little, a PNG when its first row does,
which is kept outside of the compression for that purpose. Decoded samples differ, not only bytes.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from PIL import Image

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_ZLIB_HEADER = b"\x78\x01"
_LUMINANCE = b"\xff\xdb\x00\x43\x00"  # a table of 64 entries of 8 bits, number 0
_VARIED = range(1, 25)  # entries in zigzag order: low frequencies, but not the mean
_VARIED_SAMPLES = 12

Vary = Callable[[Random], bytes]


def variable(file: bytes, kind: str) -> Vary:
    """A function that gives another picture of the same size each time.

    Args:
        file: A baseline JPEG, or an RGB PNG that is not interlaced, as Pillow writes them.
        kind: "JPEG" or "PNG".
    """
    return _jpeg(file) if kind == "JPEG" else _png(file)


def _jpeg(file: bytes) -> Vary:
    table = file.index(_LUMINANCE) + len(_LUMINANCE)

    def vary(rng: Random) -> bytes:
        varied = bytearray(file)
        for entry in _VARIED:
            varied[table + entry] = min(255, varied[table + entry] + rng.randint(0, 3))
        return bytes(varied)

    return vary


@dataclass(frozen=True)
class _OpenPng:
    """`header` is the file up to the samples; a row is its filter's number and RGB samples."""

    header: bytes
    first_row: bytes
    other_rows: bytes
    deflated: bytes  # the other rows, as raw deflate blocks

    def file(self, first_row: bytes) -> bytes:
        size = len(first_row)
        stored = struct.pack("<BHH", 0, size, size ^ 0xFFFF) + first_row  # a block as it is
        check = zlib.adler32(self.other_rows, zlib.adler32(first_row))
        samples = _ZLIB_HEADER + stored + self.deflated + struct.pack(">I", check)
        return self.header + _chunk(b"IDAT", samples) + _chunk(b"IEND", b"")


def _png(file: bytes) -> Vary:
    png = _opened(file)

    def vary(rng: Random) -> bytes:
        row = bytearray(png.first_row)
        for _ in range(_VARIED_SAMPLES):
            row[rng.randrange(1, len(row))] = rng.randrange(256)
        return png.file(bytes(row))

    return vary


def _opened(file: bytes) -> _OpenPng:
    image = Image.open(io.BytesIO(file))
    start = len(_PNG_MAGIC)
    header, samples = _PNG_MAGIC, b""
    while start < len(file):
        (length,) = struct.unpack_from(">I", file, start)
        kind, content = file[start + 4 : start + 8], file[start + 8 : start + 8 + length]
        if kind == b"IHDR":
            header += _chunk(kind, content)
        elif kind == b"IDAT":
            samples += content
        start += 12 + length
    # The first two rows without a filter, so that a change of the first stays in it: filters
    # foretell a row from the one above.
    row = 3 * image.width
    plain = image.crop((0, 0, image.width, min(2, image.height))).tobytes()
    first, second = b"\0" + plain[:row], b"\0" + plain[row:] if plain[row:] else b""
    others = second + zlib.decompress(samples)[len(first) + len(second) :]
    packer = zlib.compressobj(1, wbits=-15)
    return _OpenPng(header, first, others, packer.compress(others) + packer.flush())


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(content, zlib.crc32(kind))
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
