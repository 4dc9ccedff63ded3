"""Encoding: what each format keeps, and what is refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from velatura.server.imaging import codecs
from velatura.server.imaging.errors import ImageError, Reason
from velatura.server.imaging.picture import ImageFormat, Limits, Picture


def picture(width: int = 20, height: int = 10, alpha: bool = False) -> Picture:
    samples = np.random.default_rng(3).integers(0, 256, (height, width, 4), dtype=np.uint8)
    return Picture(samples[..., :3].copy(), samples[..., 3].copy() if alpha else None)


def test_jpeg_is_written_without_subsampling_and_without_alpha() -> None:
    image = Image.open(io.BytesIO(codecs.encode(picture(alpha=True), ImageFormat.JPEG)))
    assert image.format == "JPEG"
    assert JpegImagePlugin.get_sampling(image) == 0  # 4:4:4
    assert image.mode == "RGB"


def test_quality_changes_the_size() -> None:
    for fmt in (ImageFormat.JPEG, ImageFormat.WEBP):
        sizes = [len(codecs.encode(picture(64, 64), fmt, quality)) for quality in (5, 50, 100)]
        assert sizes == sorted(sizes)
        assert sizes[0] < sizes[2]


def test_lossy_webp_keeps_alpha() -> None:
    original = picture(alpha=True)
    decoded = codecs.decode(codecs.encode(original, ImageFormat.WEBP), Limits(), "image")
    np.testing.assert_array_equal(decoded.alpha, original.alpha)


def test_png_is_smaller_than_raw_on_drawings() -> None:
    flat = Picture(np.full((500, 400, 3), 77, np.uint8))
    assert len(codecs.encode(flat, ImageFormat.PNG)) < 10_000


def test_grey_png() -> None:
    labels = np.random.default_rng(0).integers(0, 10, (9, 14), dtype=np.uint8)
    image = Image.open(io.BytesIO(codecs.encode_grey(labels)))
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), labels)


@pytest.mark.parametrize("quality", [0, -1, 101])
def test_qualities_out_of_range_are_refused(quality: int) -> None:
    with pytest.raises(ImageError) as caught:
        codecs.encode(picture(), ImageFormat.JPEG, quality)
    assert caught.value.reason is Reason.OUT_OF_RANGE
    assert caught.value.field == "output.quality"


def test_sides_too_long_for_the_format_are_refused() -> None:
    long = Picture(np.zeros((1, 16_384, 3), np.uint8))
    with pytest.raises(ImageError) as caught:
        codecs.encode(long, ImageFormat.WEBP)
    assert (caught.value.reason, caught.value.limit) == (Reason.SIDE_TOO_LONG, 16_383)
    assert codecs.decode(codecs.encode(long, ImageFormat.PNG), Limits(), "image").width == 16_384
