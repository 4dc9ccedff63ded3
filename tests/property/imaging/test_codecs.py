"""Codecs against chance: lossless is lossless, and damage never does worse than an `ImageError`."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from velatura.server.imaging import codecs
from velatura.server.imaging.errors import ImageError
from velatura.server.imaging.picture import ImageFormat, Limits, Picture

LIMITS = Limits(max_bytes=200_000, max_pixels=4_096, max_side=1_024)


@st.composite
def pictures(draw: st.DrawFn) -> Picture:
    width, height = draw(st.integers(1, 64)), draw(st.integers(1, 64))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    step = draw(st.sampled_from([1, 16, 128]))  # noise, bands, drawings
    samples = rng.integers(0, 256, (height, width, 4), dtype=np.uint8) // step * step
    alpha = np.ascontiguousarray(samples[..., 3]) if draw(st.booleans()) else None
    return Picture(np.ascontiguousarray(samples[..., :3]), alpha)


def same(one: Picture, other: Picture) -> None:
    np.testing.assert_array_equal(one.rgb, other.rgb)
    assert (one.alpha is None) == (other.alpha is None)
    if one.alpha is not None:
        np.testing.assert_array_equal(one.alpha, other.alpha)


@settings(max_examples=150, deadline=None)
@given(pictures())
def test_lossless_formats_give_back_every_sample(picture: Picture) -> None:
    png = codecs.decode(codecs.encode(picture, ImageFormat.PNG), LIMITS, "image")
    assert png.source_format is ImageFormat.PNG
    same(png, picture)
    # A WebP whose alpha is 255 throughout has none; colours under alpha 0 are kept.
    webp = codecs.decode(codecs.encode(picture, ImageFormat.WEBP, lossless=True), LIMITS, "image")
    np.testing.assert_array_equal(webp.rgb, picture.rgb)
    if picture.alpha is not None and (picture.alpha < 255).any():
        same(webp, picture)
    raw = codecs.encode(picture, ImageFormat.RAW)
    channels = 3 if picture.alpha is None else 4
    same(codecs.decode_raw(picture.width, picture.height, channels, raw, LIMITS, "image"), picture)


@settings(max_examples=60, deadline=None)
@given(pictures())
def test_lossy_formats_keep_the_size_and_stay_close(picture: Picture) -> None:
    jpeg = codecs.decode(codecs.encode(picture, ImageFormat.JPEG), LIMITS, "image")
    webp = codecs.decode(codecs.encode(picture, ImageFormat.WEBP), LIMITS, "image")
    assert jpeg.rgb.shape == webp.rgb.shape == picture.rgb.shape
    assert np.abs(jpeg.rgb.astype(int) - picture.rgb).mean() < 6


@functools.cache
def samples() -> tuple[bytes, ...]:
    """Valid files of many kinds, small enough to damage thoroughly."""
    rng = np.random.default_rng(0)
    rgba = Image.fromarray(rng.integers(0, 256, (20, 30, 4), dtype=np.uint8))
    rgb, grey = rgba.convert("RGB"), rgba.convert("L")
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    odd_profile = profile.replace("sRGB".encode("utf-16-be"), "odd!".encode("utf-16-be"))
    extras = {"exif": exif, "icc_profile": odd_profile}
    wide = Image.fromarray(rng.integers(0, 65536, (9, 7), dtype=np.uint16))
    kinds: list[tuple[Image.Image, str, dict[str, object]]] = [
        (rgb, "PNG", {}),
        (rgba, "PNG", extras),
        (rgb.quantize(9), "PNG", {"transparency": 3}),
        (wide, "PNG", {}),
        (rgba.convert("LA"), "PNG", {}),
        (rgb, "JPEG", {}),
        (grey, "JPEG", {"progressive": True}),
        (rgb, "JPEG", extras | {"progressive": True}),
        (rgb.convert("CMYK"), "JPEG", {}),
        (rgb, "WEBP", {}),
        (rgba, "WEBP", {"lossless": True}),
        (rgba, "WEBP", extras),
    ]
    files = []
    for image, fmt, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, fmt, **options)
        files.append(buffer.getvalue())
    return tuple(files)


@pytest.fixture(scope="module", autouse=True)
def never_load_past_the_limits() -> Iterator[None]:
    """Whatever reaches a decoder must already be known to be within the limits."""
    real = codecs.Image.open

    def guarded(*args: object, **options: object) -> Image.Image:
        image = real(*args, **options)  # type: ignore[arg-type]
        load = image.load

        def checked_load() -> object:
            assert image.width * image.height <= LIMITS.max_pixels
            assert max(image.size) <= LIMITS.max_side
            return load()

        image.load = checked_load  # type: ignore[method-assign]
        return image

    with mock.patch.object(codecs.Image, "open", guarded):
        yield


def decode_or_refuse(data: bytes) -> None:
    try:
        picture = codecs.decode(data, LIMITS, "image")
    except ImageError:
        return
    assert picture.rgb.shape == (picture.height, picture.width, 3)
    assert picture.width * picture.height <= LIMITS.max_pixels


def test_the_samples_themselves_are_accepted() -> None:
    for data in samples():
        assert codecs.decode(data, LIMITS, "image").rgb.size > 0


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(range(12)), st.floats(0, 1))
def test_truncation_is_refused(which: int, share: float) -> None:
    data = samples()[which]
    # The last byte may be padding that no decoder needs.
    with pytest.raises(ImageError):
        codecs.decode(data[: int(share * (len(data) - 2))], LIMITS, "image")


@settings(max_examples=1500, deadline=None)
@given(
    st.sampled_from(range(12)),
    st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=8
    ),
    st.booleans(),
)
def test_flipped_bytes_are_decoded_or_refused(
    which: int, flips: list[tuple[float, int]], early: bool
) -> None:
    data = bytearray(samples()[which])
    for share, bits in flips:
        reach = min(len(data), 200) if early else len(data)  # headers are where damage is worst
        data[int(share * reach)] ^= bits
    decode_or_refuse(bytes(data))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x30\0\0\0WEBPVP8X"]),
    st.binary(max_size=200),
)
def test_noise_behind_a_signature_is_refused(signature: bytes, noise: bytes) -> None:
    decode_or_refuse(signature + noise)
