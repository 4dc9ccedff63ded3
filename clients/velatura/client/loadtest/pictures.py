"""The pictures that callers send: of varied sizes, shapes and formats, the same for the same seed.

They are made once at the start, so that the load generator's own work does not slow the load. Their
sources are a folder of pictures, or samples of the server's own generator.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from PIL import Image, ImageOps

from velatura.client.images import format_of_suffix
from velatura.client.loadtest.variants import Vary, variable

# Width to height, as cameras and screens have them.
_SHAPES = ((1, 1), (1, 1), (4, 3), (3, 4), (3, 2), (16, 9))
_KINDS = ("JPEG", "JPEG", "PNG")
_STYLE_SIDE = 256  # what the style predictor sees


@dataclass(frozen=True)
class Shot:
    """A picture that is ready to be sent, and a source of others like it."""

    data: bytes
    kind: str  # Pillow's name of the format
    vary: Vary


class Pictures:
    """A pool of pictures.

    Args:
        sources: Pictures of any size, at least one.
        count: How many are prepared.
        sizes: Least and greatest longer side in pixels; small ones are more frequent, since the
            logarithm is drawn evenly.
        seed: The same sources, sizes and seed give the same pictures.
    """

    def __init__(
        self, sources: Sequence[Image.Image], count: int, sizes: tuple[int, int], seed: int
    ) -> None:
        rng = Random(f"pictures {seed}")
        sources = [source.convert("RGB") for source in sources]
        self.shots = [_shot(sources[i % len(sources)], sizes, rng) for i in range(count)]
        self.styles = [
            encode(ImageOps.fit(source, (_STYLE_SIDE, _STYLE_SIDE)), "JPEG") for source in sources
        ]

    def take(self, rng: Random) -> bytes:
        """One of the pool."""
        return rng.choice(self.shots).data

    def take_distinct(self, rng: Random) -> bytes:
        """One of the pool, changed so that no other is like it."""
        return rng.choice(self.shots).vary(rng)


def load_folder(folder: Path) -> list[Image.Image]:
    """The folder's PNG, JPEG and WebP files in the order of their names, RGB.

    Raises:
        ValueError: when there is none, or one cannot be read.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    paths = sorted(path for path in folder.iterdir() if format_of_suffix(path))
    if not paths:
        raise ValueError(f"{folder} has no PNG, JPEG or WebP files")
    found = []
    for path in paths:
        try:
            with Image.open(path) as image:
                found.append(ImageOps.exif_transpose(image).convert("RGB"))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"cannot read {path}: {error}") from error
    return found


def encode(image: Image.Image, kind: str) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"compress_level": 1} if kind == "PNG" else {"quality": 90}))
    return buffer.getvalue()


def _shot(source: Image.Image, sizes: tuple[int, int], rng: Random) -> Shot:
    least, greatest = sizes
    longer = round(math.exp(rng.uniform(math.log(least), math.log(greatest))))
    across, down = rng.choice(_SHAPES)
    scale = longer / max(across, down)
    size = max(1, round(across * scale)), max(1, round(down * scale))
    # The whole source stays in sight, between borders of its own colour: a face must not be cut.
    border = source.crop((0, 0, 1, 1)).tobytes()
    image = ImageOps.pad(source, size, color=(border[0], border[1], border[2]))
    kind = rng.choice(_KINDS)
    data = encode(image, kind)
    return Shot(data, kind, variable(data, kind))
