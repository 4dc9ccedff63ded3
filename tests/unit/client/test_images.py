"""Images to and from the wire."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from velatura.client.errors import InvalidArgument
from velatura.client.images import (
    Picture,
    from_proto,
    mask_to_proto,
    output_options,
    sniff,
    to_proto,
)
from velatura.v1 import image_pb2


def gradient(mode: str = "RGB", size: tuple[int, int] = (31, 17)) -> Image.Image:
    ramp = Image.linear_gradient("L").resize(size)
    return Image.merge("RGB", (ramp, ramp.rotate(180), ramp)).convert(mode)


def file_of(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_files_travel_byte_for_byte(kind: str, tmp_path: Path) -> None:
    data = file_of(gradient(), kind)
    path = tmp_path / "picture.bin"  # the content decides, not the name
    path.write_bytes(data)
    assert sniff(data) == kind.lower()
    for given in (data, path, str(path), bytearray(data)):
        assert to_proto(given, "image").encoded == data  # type: ignore[arg-type]


@pytest.mark.parametrize("upload", ["png", "raw"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_pil_image_comes_back_sample_for_sample(mode: str, upload: str) -> None:
    image = gradient(mode)
    back = from_proto(to_proto(image, "image", upload)).pil  # type: ignore[arg-type]
    assert back.mode == mode
    assert back.tobytes() == image.tobytes()


@pytest.mark.parametrize(
    ("mode", "arrives"),
    [("1", "L"), ("LA", "RGBA"), ("P", "RGB"), ("CMYK", "RGB"), ("YCbCr", "RGB")],
)
def test_other_modes_become_the_nearest(mode: str, arrives: str) -> None:
    back = from_proto(to_proto(gradient(mode), "image")).pil
    assert back.mode == arrives
    assert back.size == (31, 17)


def test_a_transparent_palette_keeps_its_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    image.info["transparency"] = 1
    back = from_proto(to_proto(image, "image")).pil
    assert [back.getpixel((x, 0)) for x in (0, 1)] == [(10, 20, 30, 255), (40, 50, 60, 0)]


def test_formats_that_the_server_does_not_read_become_png() -> None:
    image = gradient()
    proto = to_proto(file_of(image, "BMP"), "image")
    assert sniff(proto.encoded) == "png"
    assert ImageChops.difference(from_proto(proto).pil, image).getbbox() is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (b"hello, this is text", "not an image"),
        (b"", "is empty"),
        (Path("/nowhere/at/all.png"), "cannot read"),
        (Image.new("F", (2, 2)), "more than 8 bits"),
        (42, "got int"),
    ],
)
def test_what_is_no_image_is_refused_by_the_fields_name(given: object, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says) as caught:
        to_proto(given, "styles[0].image")  # type: ignore[arg-type]
    assert caught.value.violations[0].field == "styles[0].image"


def test_masks_are_sent_grey() -> None:
    mask = Image.new("1", (5, 3), 1)
    back = from_proto(mask_to_proto(mask, "mask")).pil
    assert back.mode == "L"
    assert back.getextrema() == (255, 255)


def test_output_options_name_format_quality_and_losslessness() -> None:
    assert output_options(None, None, False) is None
    assert output_options("webp", 80, True) == image_pb2.OutputOptions(
        format=image_pb2.IMAGE_FORMAT_WEBP, quality=80, lossless=True
    )
    with pytest.raises(InvalidArgument, match=r"output\.format.*gif"):
        output_options("gif", None, False)
    with pytest.raises(InvalidArgument, match=r"output\.quality.*101"):
        output_options("jpeg", 101, False)


def test_saving_keeps_the_servers_bytes_where_the_format_agrees(tmp_path: Path) -> None:
    data = file_of(gradient(), "JPEG")
    picture = Picture(data, "jpeg")
    picture.save(tmp_path / "same.jpg")
    assert (tmp_path / "same.jpg").read_bytes() == data
    picture.save(tmp_path / "other.png")
    with Image.open(tmp_path / "other.png") as other:
        assert other.format == "PNG"
        assert other.size == (31, 17)
