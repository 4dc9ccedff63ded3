"""Decoding: every kind of file that is accepted, and every kind that is refused."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from velatura.server.imaging import codecs
from velatura.server.imaging.errors import ImageError, Reason
from velatura.server.imaging.picture import ImageFormat, Limits

LIMITS = Limits(max_bytes=1 << 20, max_pixels=100_000, max_side=2_000)


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def file_of(image: Image.Image, fmt: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png_claiming(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(64)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def refused(data: bytes, limits: Limits = LIMITS) -> ImageError:
    with pytest.raises(ImageError) as caught:
        codecs.decode(data, limits, "content")
    assert caught.value.field == "content"
    assert str(caught.value).startswith("content: ")
    assert caught.value.advice
    return caught.value


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP"])
def test_the_format_is_found_from_the_content(fmt: str) -> None:
    picture = codecs.decode(
        file_of(Image.new("RGB", (7, 5), (10, 200, 30)), fmt), LIMITS, "content"
    )
    assert picture.source_format is ImageFormat(fmt)
    assert (picture.width, picture.height) == (7, 5)
    assert picture.rgb.dtype == np.uint8
    assert picture.alpha is None
    np.testing.assert_allclose(picture.rgb[2, 3], (10, 200, 30), atol=4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP"])
def test_exif_orientation_is_applied(orientation: int, fmt: str) -> None:
    image = Image.fromarray(cv2.resize(noise(3, 2), (24, 16), interpolation=cv2.INTER_NEAREST))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file_of(image, fmt, exif=exif)
    picture = codecs.decode(data, LIMITS, "content")
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert picture.orientation == orientation
    np.testing.assert_array_equal(picture.rgb, expected)
    assert picture.rgb.flags.c_contiguous


def test_orientation_turns_alpha_along() -> None:
    rgba = noise(6, 4, 4)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = codecs.decode(file_of(Image.fromarray(rgba), exif=exif), LIMITS, "content")
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha, np.rot90(rgba[..., 3], -1))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_is_ignored() -> None:
    data = file_of(Image.new("RGB", (4, 4), (9, 9, 9)), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert codecs.decode(data, LIMITS, "content").orientation == 1


def swapped_profile() -> bytes:
    """An sRGB profile whose red and blue primaries have changed places, under another name."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    entries = {}
    for index in range(struct.unpack_from(">I", profile, 128)[0]):
        at = 132 + 12 * index
        entries[bytes(profile[at : at + 4])] = at
    red, blue = entries[b"rXYZ"], entries[b"bXYZ"]
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(profile).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


@pytest.mark.parametrize("fmt", ["PNG", "WEBP"])
def test_colour_profiles_are_converted_to_srgb(fmt: str) -> None:
    options = {"lossless": True} if fmt == "WEBP" else {}
    image = Image.new("RGBA", (4, 3), (255, 0, 0, 77))
    data = file_of(image, fmt, icc_profile=swapped_profile(), **options)
    picture = codecs.decode(data, LIMITS, "content")
    np.testing.assert_allclose(picture.rgb[0, 0], (0, 0, 255), atol=3)
    assert picture.alpha is not None
    assert (picture.alpha == 77).all()
    assert "swap" in picture.colour_profile


def test_an_srgb_profile_leaves_samples_alone() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    rgb = noise(30, 20)
    picture = codecs.decode(file_of(Image.fromarray(rgb), icc_profile=profile), LIMITS, "content")
    np.testing.assert_array_equal(picture.rgb, rgb)


@pytest.mark.parametrize("profile", [b"nonsense", swapped_profile()[:200], swapped_profile()])
def test_profiles_that_are_damaged_or_for_other_colours_are_ignored(profile: bytes) -> None:
    grey = noise(8, 6, 1)
    picture = codecs.decode(file_of(Image.fromarray(grey), icc_profile=profile), LIMITS, "content")
    np.testing.assert_array_equal(picture.rgb, np.dstack([grey] * 3))


def test_greys_palettes_and_bits() -> None:
    grey = noise(8, 6, 1)
    np.testing.assert_array_equal(
        codecs.decode(file_of(Image.fromarray(grey)), LIMITS, "content").rgb, np.dstack([grey] * 3)
    )
    bits = Image.fromarray(grey).convert("1")
    decoded = codecs.decode(file_of(bits), LIMITS, "content").rgb
    np.testing.assert_array_equal(decoded, np.asarray(bits.convert("RGB")))
    palette = Image.fromarray(noise(8, 6)).quantize(7)
    decoded = codecs.decode(file_of(palette), LIMITS, "content").rgb
    np.testing.assert_array_equal(decoded, np.asarray(palette.convert("RGB")))
    jpeg = codecs.decode(file_of(Image.new("L", (8, 8), 90), "JPEG"), LIMITS, "content")
    assert (jpeg.rgb == 90).all()


def test_transparency_in_every_mode() -> None:
    grey_alpha = noise(8, 6, 2)
    picture = codecs.decode(file_of(Image.fromarray(grey_alpha, "LA")), LIMITS, "content")
    np.testing.assert_array_equal(picture.alpha, grey_alpha[..., 1])
    np.testing.assert_array_equal(picture.rgb[..., 2], grey_alpha[..., 0])

    grey = np.array([[0, 5, 9]], np.uint8)
    picture = codecs.decode(file_of(Image.fromarray(grey), transparency=5), LIMITS, "content")
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[255, 0, 255]]

    palette = Image.new("P", (3, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.putdata([0, 1, 2])
    picture = codecs.decode(file_of(palette, transparency=bytes([0, 128, 255])), LIMITS, "content")
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[0, 128, 255]]
    assert picture.rgb[0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]

    colour = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    picture = codecs.decode(file_of(colour, transparency=(4, 5, 6)), LIMITS, "content")
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[255, 0]]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_keep_the_high_byte(channels: int) -> None:
    wide = np.random.default_rng(1).integers(0, 65536, (5, 7, channels), dtype=np.uint16)
    data = cv2.imencode(".png", wide)[1].tobytes()
    picture = codecs.decode(data, LIMITS, "content")
    high = (wide >> 8).astype(np.uint8)
    expected = np.repeat(high, 3, axis=2) if channels == 1 else high[..., 2::-1]
    np.testing.assert_array_equal(picture.rgb, expected)
    if channels == 4:
        np.testing.assert_array_equal(picture.alpha, high[..., 3])


def test_cmyk_jpegs_show_their_colours() -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    picture = codecs.decode(file_of(image, "JPEG", quality=95), LIMITS, "content")
    np.testing.assert_allclose(picture.rgb[8, 8], (255, 0, 0), atol=6)


def test_limits_are_checked_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object, **options: object) -> None:
        raise AssertionError("a file over the limits was opened")

    monkeypatch.setattr(codecs.Image, "open", never)
    bomb = refused(png_claiming(60_000, 60_000))
    assert (bomb.reason, bomb.limit, bomb.actual) == (
        Reason.TOO_MANY_PIXELS,
        100_000,
        3_600_000_000,
    )
    assert refused(png_claiming(0, 0)).reason is Reason.EMPTY
    assert refused(png_claiming(12, 0)).reason is Reason.EMPTY
    assert refused(png_claiming(2_001, 1)).reason is Reason.SIDE_TOO_LONG
    big = file_of(Image.new("RGB", (400, 300)), "JPEG")
    assert refused(big).reason is Reason.TOO_MANY_PIXELS
    assert refused(file_of(Image.new("RGB", (400, 300)), "WEBP")).reason is Reason.TOO_MANY_PIXELS
    small = Limits(max_bytes=100)
    assert refused(bytes(101), small).reason is Reason.TOO_MANY_BYTES
    assert refused(b"").reason is Reason.EMPTY


@pytest.mark.parametrize("fmt", ["GIF", "BMP", "TIFF", "JPEG2000"])
def test_other_formats_are_named(fmt: str) -> None:
    error = refused(file_of(Image.new("RGB", (4, 4)), fmt))
    assert error.reason is Reason.UNSUPPORTED_FORMAT
    assert "PNG, JPEG or WebP" in error.advice
    assert str(error.actual).replace(" ", "") == fmt


@pytest.mark.parametrize("data", [b"hello, world", b"\0" * 50, b"\x89PNG", b"RIFF1234WAVE"])
def test_other_bytes_are_not_an_image(data: bytes) -> None:
    assert refused(data).reason is Reason.NOT_AN_IMAGE


@pytest.mark.parametrize("fmt", ["PNG", "WEBP"])
def test_animations_are_refused(fmt: str) -> None:
    frames = [Image.fromarray(noise(8, 8, seed=seed)) for seed in range(3)]
    data = file_of(frames[0], fmt, save_all=True, append_images=frames[1:])
    assert refused(data).reason is Reason.ANIMATED


@pytest.mark.parametrize(
    ("fmt", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),
    ],
)
def test_truncated_files_are_refused_wherever_they_are_cut(
    fmt: str, options: dict[str, object]
) -> None:
    data = file_of(Image.fromarray(noise(60, 40)), fmt, **options)
    codecs.decode(data, LIMITS, "content")
    for length in range(16, len(data) - 1, max(1, len(data) // 97)):
        assert refused(data[:length]).reason is Reason.TRUNCATED, length


def test_a_jpeg_thumbnails_end_does_not_hide_the_missing_end() -> None:
    thumbnail = file_of(Image.new("RGB", (8, 8)), "JPEG")
    data = file_of(Image.fromarray(noise(60, 40)), "JPEG", exif=b"Exif\0\0" + thumbnail)
    assert data.count(b"\xff\xd9") == 2
    assert refused(data[: len(data) // 2 + len(thumbnail)]).reason is Reason.TRUNCATED


def test_a_png_with_one_wrong_byte_is_refused() -> None:
    data = bytearray(file_of(Image.fromarray(noise(60, 40))))
    data[len(data) // 2] ^= 1
    assert refused(bytes(data)).reason is Reason.CORRUPT


def grey_png(rows: bytes, width: int, height: int, *, interlaced: bool, pieces: int = 1) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, interlaced))
    stream = zlib.compress(rows)
    step = -(-len(stream) // pieces)
    parts = (chunk(b"IDAT", stream[at : at + step]) for at in range(0, len(stream), step))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(parts) + chunk(b"IEND", b"")


def seven_passes(grey: np.ndarray) -> bytes:
    steps = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    rows = b""
    for y, x, step_y, step_x in steps:
        part = grey[y::step_y, x::step_x]
        rows += b"".join(b"\0" + row.tobytes() for row in part if row.size)
    return rows


@pytest.mark.parametrize("value", [0, 200])
@pytest.mark.parametrize("pieces", [1, 3])
def test_a_png_whose_stream_ends_properly_but_early_is_refused(value: int, pieces: int) -> None:
    row = b"\0" + bytes([value]) * 400
    short = grey_png(row * 199, 400, 200, interlaced=False, pieces=pieces)
    assert refused(short).reason is Reason.TRUNCATED
    whole = grey_png(row * 200, 400, 200, interlaced=False, pieces=pieces)
    assert (codecs.decode(whole, LIMITS, "content").rgb == value).all()


@pytest.mark.parametrize(("width", "height"), [(1, 1), (5, 3), (8, 8), (33, 21), (1, 9)])
def test_interlaced_pngs_come_whole_or_not_at_all(width: int, height: int) -> None:
    grey = noise(width, height, 1) | 1
    rows = seven_passes(grey)
    whole = codecs.decode(grey_png(rows, width, height, interlaced=True), LIMITS, "content")
    np.testing.assert_array_equal(whole.rgb[..., 0], grey)
    assert refused(grey_png(rows[:-1], width, height, interlaced=True)).reason is Reason.TRUNCATED


def test_the_first_picture_of_a_cameras_multi_picture_jpeg_is_read() -> None:
    pictures = [Image.new("RGB", (16, 8), colour) for colour in ("red", "lime")]
    data = file_of(pictures[0], "MPO", save_all=True, append_images=pictures[1:])
    picture = codecs.decode(data, LIMITS, "content")
    np.testing.assert_allclose(picture.rgb[4, 4], (255, 0, 0), atol=3)
    assert picture.source_format is ImageFormat.JPEG


def test_black_pictures_of_every_mode_are_whole() -> None:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        picture = codecs.decode(file_of(Image.new(mode, (301, 203))), LIMITS, "content")
        assert not picture.rgb.any()


def test_a_jpeg_of_countless_scans_is_refused() -> None:
    data = file_of(Image.fromarray(noise(60, 40)), "JPEG", progressive=True)
    assert data.count(b"\xff\xda") > 5
    scan = data[data.rfind(b"\xff\xda") : -2]
    error = refused(data[:-2] + scan * 100 + data[-2:])
    assert error.reason is Reason.CORRUPT
    assert "64 scans" in error.problem


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_raw_samples(channels: int) -> None:
    samples = noise(5, 3, channels)
    picture = codecs.decode_raw(5, 3, channels, samples.tobytes(), LIMITS, "image.raw")
    stacked = samples.reshape(3, 5, channels)
    np.testing.assert_array_equal(
        picture.rgb, np.repeat(stacked, 3, 2) if channels == 1 else stacked[..., :3]
    )
    assert (picture.alpha is not None) == (channels == 4)
    assert picture.source_format is ImageFormat.RAW


@pytest.mark.parametrize(
    ("width", "height", "channels", "count", "reason", "field"),
    [
        (4, 4, 3, 47, Reason.WRONG_SIZE, "image.raw.data"),
        (4, 4, 3, 49, Reason.WRONG_SIZE, "image.raw.data"),
        (4, 4, 2, 32, Reason.OUT_OF_RANGE, "image.raw.channels"),
        (0, 4, 3, 1, Reason.EMPTY, "image.raw"),
        (4, 4, 3, 0, Reason.EMPTY, "image.raw"),
        (40_000, 40_000, 3, 1, Reason.TOO_MANY_PIXELS, "image.raw"),
    ],
)
def test_raw_samples_that_do_not_fit(
    width: int, height: int, channels: int, count: int, reason: Reason, field: str
) -> None:
    with pytest.raises(ImageError) as caught:
        codecs.decode_raw(width, height, channels, bytes(count), LIMITS, "image.raw")
    assert (caught.value.reason, caught.value.field) == (reason, field)


def test_masks_read_transparent_as_black() -> None:
    rgba = np.array([[[255, 255, 255, 255], [255, 255, 255, 0], [0, 0, 0, 255]]], np.uint8)
    picture = codecs.decode(file_of(Image.fromarray(rgba)), LIMITS, "mask")
    assert picture.luminance().tolist() == [[255, 0, 0]]
    assert picture.opaque()[0].tolist() == [[255] * 3, [255] * 3, [0] * 3]
    grey = noise(16, 16, 1)
    picture = codecs.decode(file_of(Image.fromarray(grey)), LIMITS, "mask")
    np.testing.assert_array_equal(picture.luminance(), grey)


MOST = 1000


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP"])
def test_a_plain_file_costs_its_pixels(fmt: str) -> None:
    assert codecs.decoding_cost(file_of(Image.fromarray(noise(30, 20)), fmt), MOST) == 600


def text(kind: bytes, content: bytes) -> bytes:
    plain = file_of(Image.new("RGB", (8, 8)))
    return plain[:33] + chunk(kind, content) + plain[33:]  # after IHDR


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not an image",
        file_of(Image.fromarray(noise(40, 30))),  # more pixels
        file_of(Image.new("RGB", (8, 8)), icc_profile=ImageCms.ImageCmsProfile(
            ImageCms.createProfile("LAB")).tobytes()),
        file_of(Image.new("RGB", (8, 8)), "JPEG", icc_profile=b"profile"),
        file_of(Image.new("RGB", (8, 8)), "WEBP", icc_profile=b"profile"),
        text(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1 << 19))),
        text(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(1 << 19))),
        text(b"prVt", bytes(10_000)),  # far more bytes than the pixels have
        file_of(Image.new("RGB", (8, 8)), "JPEG") + b"\xff\xda" * 13,
    ],
)  # fmt: skip
def test_what_may_take_longer_costs_more_than_any_limit(data: bytes) -> None:
    assert codecs.decoding_cost(data, MOST) > MOST
