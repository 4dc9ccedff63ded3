"""What is kept between requests: decoded pictures, latents, label maps, reconstructions.

Every result is found by what it was made from: the network's hash and the BLAKE3 of the bytes that
the caller sent, with everything else that it depends on. Hashing those bytes takes about 0.2 ms a
megabyte, and a hit saves decoding as well as the network. Callers with different API keys never
share a result: how long an answer takes tells nobody what others have sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from blake3 import blake3

from velatura.server.engine.memo import Memo
from velatura.server.imaging.picture import F32, U8, Picture
from velatura.server.observability.cache_metrics import CachesMetrics
from velatura.server.observability.instruments import Instruments

T = TypeVar("T")

# Sixteenths of all bytes kept. Latents are small and dear, pictures are large: each has a share of
# its own, so that a few large pictures cannot drive out everything else.
SHARES = {"pictures": 8, "images": 4, "labels": 3, "latents": 1}


class Caches:
    """The results of one server; `Caches(0)` keeps nothing and still shares what is running."""

    def __init__(self, limit_bytes: int = 0, metrics: CachesMetrics | None = None) -> None:
        metrics = metrics or CachesMetrics(Instruments(None))

        def memo(name: str, size_of: Callable[[T], int]) -> Memo[T]:
            return Memo(name, limit_bytes * SHARES[name] // 16, size_of, metrics.of(name))

        # Decoded, uint8 [H, W, 3] with alpha; by the bytes sent.
        self.pictures: Memo[Picture] = memo("pictures", _picture_bytes)
        # Encoded, float32 [num_ws, w_dim].
        self.latents: Memo[F32] = memo("latents", _array_bytes)
        # Segmented, uint8 [H, W].
        self.labels: Memo[U8] = memo("labels", _array_bytes)
        # Decoded from latents as they were found, before any edit, float32 [3, R, R].
        self.images: Memo[F32] = memo("images", _array_bytes)

    @property
    def nbytes(self) -> int:
        """Bytes kept by all of them."""
        return sum(memo.nbytes for memo in self._all)

    @property
    def in_flight(self) -> int:
        """Computations in progress."""
        return sum(memo.in_flight for memo in self._all)

    @property
    def _all(self) -> tuple[Memo[Picture], Memo[F32], Memo[U8], Memo[F32]]:
        return self.pictures, self.latents, self.labels, self.images


def digest_of(data: bytes, *layout: int) -> bytes:
    """BLAKE3 of bytes as they were sent; `layout` says how to read them where they do not."""
    hasher = blake3(repr(layout).encode())
    hasher.update(data)
    return hasher.digest()


def digest_of_array(array: F32) -> bytes:
    """BLAKE3 of a float32 array's values; its shape must be known from elsewhere."""
    return blake3(np.ascontiguousarray(array, "<f4").tobytes()).digest()


def frozen(array: F32) -> F32:
    """A copy for keeping: of its own memory, however large the batch was, and not to be changed."""
    kept = array.copy()
    kept.flags.writeable = False
    return kept


def _array_bytes(array: F32 | U8) -> int:
    return array.nbytes


def _picture_bytes(picture: Picture) -> int:
    return picture.rgb.nbytes + (0 if picture.alpha is None else picture.alpha.nbytes)
