"""Colour: one picture's brightness with another's colours."""

from __future__ import annotations

import cv2
import numpy as np

from velatura.server.imaging.picture import U8
from velatura.server.imaging.resampling import strips

# Luma of BT.601 at full range, three times over: in YCbCr a change of luma alone moves R, G and B
# alike.
_LUMA = np.tile(np.array([0.299, 0.587, 0.114], np.float32), (3, 1))  # [3, 3]


def keep_colour(stylised: U8, content: U8) -> U8:
    """The luma (Y of BT.601, full range) of `stylised` with the chroma (Cb, Cr) of `content`.

    Both and the result are uint8 [H, W, 3]. Computed as content + (Y of stylised - Y of content),
    which is the same thing without YCbCr's rounding: equal pictures come back byte for byte.
    Colours beyond 0..255 are clipped.
    """
    if stylised.shape != content.shape:
        raise ValueError(f"the pictures are {stylised.shape} and {content.shape}")
    result = np.empty_like(content)
    for rows in strips(0, content.shape[0], content.shape[1] * 3):
        difference = cv2.subtract(stylised[rows], content[rows], dtype=cv2.CV_32F)  # [h, W, 3]
        luma = cv2.transform(difference.reshape(content[rows].shape), _LUMA)  # [h, W, 3], all alike
        result[rows] = cv2.add(content[rows], luma, dtype=cv2.CV_8U)
    return result
