"""Carrying a change made at a network's size over to an image of many more pixels.

Upsampling alone blurs the change: a removed mouth leaves its outline behind, dyed hair a fringe.
Two things mend that. Where the change is an affine function of the image around it (removing
something, dyeing something), it is evaluated on the full-size image, so that its edges are the
image's own: a guided filter (He, Sun and Tang 2010; fast form arXiv:1505.00996) at the network's
size, with the image as its guide. Where it is not (something new is drawn), the image's fine detail
belongs to what was there before, and the edited image itself is shown instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from velatura.server.imaging.picture import F32

# In samples of the network-size image, 0..255.
_RADIUS = 2
_FLAT_VARIANCE = 50.0  # below it the image has no edges to follow
_EXPLAINED, _UNEXPLAINED = 6.0, 20.0  # error of the affine fit where replacing begins and is whole


@dataclass(frozen=True, slots=True, eq=False)
class CarriedChange:
    """full-size change = offset + gain · image, with offset and gain upsampled.

    Both are float32 [s, s, 3], in samples 0..255. A gain of -1 replaces the image by the offset.
    """

    offset: F32
    gain: F32


def carry_change(view: F32, before: F32, after: F32) -> CarriedChange:
    """Fit the change after − before to the image; all float32 [s, s, 3] in samples 0..255.

    `view` is the image itself at the network's size, `before` and `after` are what the network
    makes of it without and with the edit. On `view` itself the affine part reproduces the change
    exactly.
    """
    # In place wherever an array is not needed again: new memory costs more than the arithmetic.
    change = after - before
    mean_view, mean_change = _box(view), _box(change)
    covariance, variance = _box(view * change), _box(view * view)
    covariance -= mean_view * mean_change
    variance -= mean_view * mean_view
    variance += np.float32(_FLAT_VARIANCE)
    slope = np.divide(covariance, variance, out=covariance)
    np.clip(slope, -1, 1, out=slope)
    mean_view *= slope
    mean_change -= mean_view
    slope, level = _box(slope), _box(mean_change)
    affine = slope * view
    offset = change - affine
    share = _replaced(offset - level)  # [s, s, 3]
    # (1 - share) · (change - slope · view + slope · image) + share · (after - image)
    towards = np.subtract(after, offset, out=affine)
    towards *= share
    offset += towards
    gain = np.add(slope, 1, out=mean_view)
    gain *= share
    return CarriedChange(offset=offset, gain=np.subtract(slope, gain, out=slope))


def _box(values: F32) -> F32:
    size = 2 * _RADIUS + 1
    return np.asarray(cv2.blur(values, (size, size), borderType=cv2.BORDER_REFLECT), np.float32)


def _replaced(unexplained: F32) -> F32:
    """Share [s, s, 3] in 0..1, the same of each channel, at which the edited image is shown itself,
    from the fit's error, which is used up."""
    apart = np.abs(unexplained, out=unexplained)
    # Plane by plane: numpy's own maximum over the last axis takes fifteen times as long.
    error = np.maximum(np.maximum(apart[..., 0], apart[..., 1]), apart[..., 2])  # [s, s]
    error = cv2.dilate(cv2.blur(error, (3, 3)), np.ones((3, 3), np.uint8))
    t = np.clip((error - _EXPLAINED) / (_UNEXPLAINED - _EXPLAINED), 0, 1)
    share = cv2.blur(t * t * (3 - 2 * t), (3, 3))
    # Three times: numpy multiplies channels by one number a pixel at a tenth of the speed.
    return np.asarray(cv2.merge([share] * 3), np.float32)
