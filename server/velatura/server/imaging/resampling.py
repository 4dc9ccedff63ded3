"""Resizing strip by strip: one axis as a matrix of weights, so that no whole image is needed.

OpenCV's own filters, read off by resizing the identity; no part of the result depends on the
strips.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from velatura.server.imaging.picture import F32

_STRIP_SAMPLES = 1 << 18  # 1 MiB of float32: strips stay in the cache


def axis_weights(source: int, target: int, enlarging: int) -> F32:
    """Float32 [target, source]: each row holds what one sample of the target takes of the source.

    Rows sum to 1. `enlarging` is OpenCV's filter for that direction; shrinking averages areas.
    """
    identity = np.eye(source, dtype=np.float32)
    if source == target:
        return identity
    kind = enlarging if target > source else cv2.INTER_AREA
    weights = cv2.resize(identity, (source, target), interpolation=kind)
    return np.asarray(weights, np.float32).reshape(target, source)


def support(weights: F32) -> slice:
    """The columns of some rows of `axis_weights` that are not all zero."""
    used = np.flatnonzero(weights.any(axis=0))
    return slice(int(used[0]), int(used[-1]) + 1)


def strips(start: int, stop: int, samples_per_row: int) -> Iterator[slice]:
    """Cut the rows start..stop into slices of about a mebibyte of float32 each."""
    step = max(4, _STRIP_SAMPLES // max(samples_per_row, 1))
    for first in range(start, stop, step):
        yield slice(first, min(first + step, stop))
