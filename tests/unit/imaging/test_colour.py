"""Keeping the content's colours."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from velatura.server.imaging.colour import keep_colour


def noise(seed: int, low: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (70, 50, 3), dtype=np.uint8)


def ycc(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2YCrCb)


def test_luma_of_one_and_chroma_of_the_other() -> None:
    stylised, content = noise(0, 100, 150), noise(1, 100, 150)  # nothing to clip
    result = ycc(keep_colour(stylised, content))
    np.testing.assert_allclose(result[..., 0], ycc(stylised)[..., 0], atol=0.5 / 255 + 1e-3)
    np.testing.assert_allclose(result[..., 1:], ycc(content)[..., 1:], atol=1 / 255)


def test_equal_pictures_come_back_byte_for_byte() -> None:
    picture = noise(2)
    np.testing.assert_array_equal(keep_colour(picture, picture), picture)


def test_a_grey_style_keeps_its_brightness_and_clips() -> None:
    white = np.full((2, 2, 3), 255, np.uint8)
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 200
    result = keep_colour(white, red)
    assert result[0, 0].tolist() == [255, 195, 195]  # 255 - 0.299 · 200 = 195.2 more in each


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="pictures"):
        keep_colour(noise(0), noise(0)[:5])
