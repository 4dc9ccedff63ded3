"""Pictures as arrays, and how far two of them are apart."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Samples: TypeAlias = NDArray[np.int16]
Bools: TypeAlias = NDArray[np.bool_]


def array_of(image: Image.Image) -> Samples:
    """A picture's samples as int16 [H, W] or [H, W, C], ready for differences."""
    return np.asarray(image).astype(np.int16)


def largest_difference(one: Samples, other: Samples) -> int:
    """Largest difference of two samples, 0..255; arrays of different shapes fail."""
    assert one.shape == other.shape
    return int(np.abs(one - other).max(initial=0))


def closest_pair(arrays: list[Samples]) -> int:
    """Smallest of the largest differences between any two arrays of one shape, 0..255.

    Says whether a mix-up would be seen: an answer that belongs to another request is at least so
    far from the right one.
    """
    return min(
        largest_difference(one, other)
        for index, one in enumerate(arrays)
        for other in arrays[:index]
        if one.shape == other.shape
    )
