"""Whether a PNG's compressed stream really holds all of its rows.

A stream may end properly, checksums and all, and still be short; Pillow then leaves the missing
rows black and reports success. Counting inflates the stream once more, and keeps nothing of it.
Layout: PNG (ISO 15948), clauses 8 (interlacing) and 11.2.2 (IHDR).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_SAMPLES_A_PIXEL = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_PIECE = 1 << 16


def is_interlaced(png: bytes) -> bool:
    """Whether the pixels come in seven passes; `png` begins with its IHDR chunk."""
    return png[28] != 0


def holds_every_row(png: bytes) -> bool:
    """Whether the IDAT chunks of a well-formed PNG inflate to as many bytes as IHDR asks for."""
    missing = _expected_bytes(png)
    inflate = zlib.decompressobj()
    for content in _idat(png):
        rest: bytes | memoryview = content
        while rest and missing > 0:
            try:
                missing -= len(inflate.decompress(rest, _PIECE))
            except zlib.error:
                return False
            rest = inflate.unconsumed_tail
        if missing <= 0:
            return True
    # All input is in; what is left is what the decompressor still holds.
    while missing > 0 and (piece := inflate.decompress(inflate.unconsumed_tail, _PIECE)):
        missing -= len(piece)
    return missing <= 0


def _expected_bytes(png: bytes) -> int:
    width, height, depth, colour = struct.unpack_from(">IIBB", png, 16)
    bits = depth * _SAMPLES_A_PIXEL.get(colour, 0)
    passes = _ADAM7 if is_interlaced(png) else ((0, 0, 1, 1),)
    total = 0
    for x, y, step_x, step_y in passes:
        columns = (width - x + step_x - 1) // step_x
        rows = (height - y + step_y - 1) // step_y
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits + 7) // 8)  # each row begins with its filter
    return total


def _idat(png: bytes) -> Iterator[memoryview]:
    view, position = memoryview(png), 8
    while position + 12 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        if kind == b"IDAT":
            yield view[position + 8 : position + 8 + length]
        position += 12 + length
