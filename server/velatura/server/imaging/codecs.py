"""Bytes to pictures and back: PNG, JPEG, WebP and raw samples, upright and in sRGB.

Pillow decodes, because it says when a file ends too early; OpenCV is a fifth faster, but fills the
missing part with grey or black and calls that success. OpenCV writes PNG, at more than twice
Pillow's speed. Known limits: 16-bit samples keep their high byte; a JPEG that was cut short and
then given a new end marker cannot be told from a whole one.
"""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image, ImageCms

from velatura.server.imaging.errors import ImageError, Reason
from velatura.server.imaging.headers import Header, corrupt, read_header, truncated
from velatura.server.imaging.picture import (
    U8,
    ImageFormat,
    Limits,
    Picture,
    check_bytes,
    check_dimensions,
)
from velatura.server.imaging.png_rows import holds_every_row, is_interlaced

_EXIF_ORIENTATION = 0x0112
_RAW_CHANNELS = (1, 3, 4)
# What may make a file of few pixels take long: colour profiles, and text that Pillow inflates.
_SLOW_MARKS = (b"iCCP", b"ICC_PROFILE", b"ICCP", b"zTXt", b"iTXt")
_SCAN_MARK, _USUAL_SCANS = b"\xff\xda", 12
_MOST_BYTES_A_PIXEL, _BYTES_BESIDE = 5, 4096
_WEBP_COST = 10  # for each pixel, in those of PNG
_LONGEST_SIDE = {ImageFormat.JPEG: 65_500, ImageFormat.WEBP: 16_383}
_PROFILE_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}

# Run lengths of differences from the row above: the quickest setting on photographs and drawings
# alike.
_PNG_SETTINGS = (
    cv2.IMWRITE_PNG_COMPRESSION,
    1,
    cv2.IMWRITE_PNG_STRATEGY,
    cv2.IMWRITE_PNG_STRATEGY_RLE,
    cv2.IMWRITE_PNG_FILTER,
    cv2.IMWRITE_PNG_FILTER_UP,
)


def decode(data: bytes, limits: Limits = Limits(), field: str = "image") -> Picture:  # noqa: B008
    """The picture in a PNG, JPEG or WebP file: upright, sRGB, 8 bits a sample, alpha kept.

    Greys, palettes, CMYK and 16-bit samples are converted. Bytes, pixels and sides are checked
    against `limits` before anything is decoded. Raises `ImageError` naming `field` for whatever
    cannot be used.
    """
    check_bytes(len(data), limits, field)
    header = read_header(data, field)
    if header.animated:
        raise ImageError(
            Reason.ANIMATED,
            field,
            f"the {header.format} file is an animation.",
            "Send one frame as a still image.",
        )
    check_dimensions(header.width, header.height, limits, field)
    try:
        return _decode_still(data, header, field)
    except ImageError:
        raise
    except MemoryError:
        raise
    except Exception as error:
        # Pillow's plugins answer damaged files with a dozen kinds of exception.
        if "truncated" in str(error).lower():
            raise truncated(field) from error
        raise corrupt(field, "its pixels cannot be decoded") from error


def decode_raw(
    width: int,
    height: int,
    channels: int,
    data: bytes,
    limits: Limits = Limits(),  # noqa: B008
    field: str = "image",
) -> Picture:
    """The picture in interleaved 8-bit samples, rows from the top: 1 (grey), 3 (RGB) or 4 (RGBA).

    Raises `ImageError` for other channel counts, for dimensions over the limits, and for too many
    or too few bytes.
    """
    check_dimensions(width, height, limits, field)
    check_bytes(len(data), limits, field)
    if channels not in _RAW_CHANNELS:
        raise ImageError(
            Reason.OUT_OF_RANGE,
            f"{field}.channels",
            f"{channels} samples a pixel are not supported.",
            "Use 1 (grey), 3 (RGB) or 4 (RGBA).",
            limit="1, 3, 4",
            actual=channels,
        )
    expected = width * height * channels
    if len(data) != expected:
        raise ImageError(
            Reason.WRONG_SIZE,
            f"{field}.data",
            f"{width}×{height}×{channels} samples need {expected:,} bytes, and {len(data):,} came.",
            "Send width × height × channels bytes.",
            limit=expected,
            actual=len(data),
        )
    samples = np.frombuffer(data, np.uint8).reshape(height, width, channels)
    if channels == 1:
        return Picture(np.repeat(samples, 3, axis=2), None, ImageFormat.RAW)
    rgb = np.ascontiguousarray(samples[..., :3])
    alpha = np.ascontiguousarray(samples[..., 3]) if channels == 4 else None
    return Picture(rgb, alpha, ImageFormat.RAW)


def decoding_cost(data: bytes, most: int) -> int:
    """The pixels of a file, where they say how long `decode` takes and there are at most `most`;
    else more than `most`."""
    too_many = most + 1
    if len(data) > _MOST_BYTES_A_PIXEL * most + _BYTES_BESIDE:
        return too_many
    if any(mark in data for mark in _SLOW_MARKS) or data.count(_SCAN_MARK) > _USUAL_SCANS:
        return too_many
    try:
        header = read_header(data)
    except ImageError:  # for `decode` to say
        return too_many
    return header.width * header.height


def encoding_cost(picture: Picture, fmt: ImageFormat) -> int:
    """How long `encode` takes, as the pixels for which any other step would take as long."""
    return picture.width * picture.height * (_WEBP_COST if fmt is ImageFormat.WEBP else 1)


def encode(
    picture: Picture,
    fmt: ImageFormat,
    quality: int = 95,
    lossless: bool = False,
    field: str = "output",
) -> bytes:
    """The picture as a file, or as interleaved RGB(A) samples for RAW.

    PNG, RAW and lossless WebP give back every sample, alpha and the colours under it included. JPEG
    is written 4:4:4 and drops alpha. `quality` (1..100) is for JPEG and lossy WebP. Raises
    `ImageError` for a quality out of range, and for sides longer than the format can hold.
    """
    if not 1 <= quality <= 100:
        raise ImageError(
            Reason.OUT_OF_RANGE,
            f"{field}.quality",
            f"{quality} is not a quality.",
            "Use 1 to 100.",
            limit="1..100",
            actual=quality,
        )
    longest = max(picture.width, picture.height)
    if longest > _LONGEST_SIDE.get(fmt, longest):
        raise ImageError(
            Reason.SIDE_TOO_LONG,
            f"{field}.format",
            f"{fmt} holds sides of at most {_LONGEST_SIDE[fmt]:,} pixels, and this is {longest:,}.",
            "Ask for PNG.",
            limit=_LONGEST_SIDE[fmt],
            actual=longest,
        )
    if fmt is ImageFormat.RAW:
        return _interleaved(picture).tobytes()
    if fmt is ImageFormat.PNG:
        to_bgr = cv2.COLOR_RGB2BGR if picture.alpha is None else cv2.COLOR_RGBA2BGRA
        return _png(np.asarray(cv2.cvtColor(_interleaved(picture), to_bgr), np.uint8))
    buffer = io.BytesIO()
    if fmt is ImageFormat.JPEG:
        Image.fromarray(picture.rgb).save(buffer, "JPEG", quality=quality, subsampling=0)
    elif lossless:
        # For lossless files "quality" is effort. `exact` keeps the colours of transparent pixels.
        image = Image.fromarray(_interleaved(picture))
        image.save(buffer, "WEBP", lossless=True, exact=True, quality=0, method=0)
    else:
        image = Image.fromarray(_interleaved(picture))
        image.save(buffer, "WEBP", quality=quality, alpha_quality=100, method=2)
    return buffer.getvalue()


def encode_grey(samples: U8) -> bytes:
    """A grey PNG of uint8 [H, W] samples, such as a label map or a mask."""
    return _png(samples)


def _png(samples: U8) -> bytes:
    """PNG of uint8 [H, W], BGR [H, W, 3] or BGRA [H, W, 4]."""
    done, file = cv2.imencode(".png", samples, _PNG_SETTINGS)
    if not done:
        raise RuntimeError(f"OpenCV did not write a PNG of shape {samples.shape}")
    return file.tobytes()


def _interleaved(picture: Picture) -> U8:
    """Uint8 [H, W, 3], or [H, W, 4] where the picture has alpha."""
    if picture.alpha is None:
        return picture.rgb
    return np.dstack((picture.rgb, picture.alpha))


def _decode_still(data: bytes, header: Header, field: str) -> Picture:
    """Decode behind the limits; raises whatever Pillow raises."""
    with Image.open(io.BytesIO(data), formats=(header.format.value,)) as image:
        if image.size != (header.width, header.height):
            raise corrupt(field, "it contradicts itself about its dimensions")
        image.load()
        if header.format is ImageFormat.PNG:
            _check_rows(image, data, field)
        orientation = _orientation(image)
        profile = image.info.get("icc_profile")
        colour, alpha = _separate(image)
    colour, profile_name = _to_srgb(colour, profile)
    return Picture(
        rgb=_upright(np.asarray(colour), orientation),
        alpha=None if alpha is None else _upright(alpha, orientation),
        source_format=header.format,
        orientation=orientation,
        colour_profile=profile_name,
    )


def _check_rows(image: Image.Image, data: bytes, field: str) -> None:
    """Refuse a PNG whose rows did not all come. Only zeros in the last row can mean that."""
    suspicious = is_interlaced(data) or not np.asarray(image)[-1].any()
    if suspicious and not holds_every_row(data):
        raise truncated(field)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; 1 where there is none or the metadata is damaged."""
    try:
        value = int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # damaged metadata is no reason to refuse intact pixels
        return 1
    return value if 1 <= value <= 8 else 1


def _separate(image: Image.Image) -> tuple[Image.Image, U8 | None]:
    """Colour (mode L, RGB or CMYK) and alpha (uint8 [H, W] or None) of an image of any mode."""
    if image.mode == "1":
        image = image.convert("L")  # keeps info, the transparent grey included
    transparent = image.info.get("transparency")
    if image.mode == "L" or image.mode.startswith("I"):
        grey = np.asarray(image)  # [H, W] uint8, or 16 bits in uint16 or int32
        alpha = np.where(grey == transparent, 0, 255) if isinstance(transparent, int) else None
        high = grey if image.mode == "L" else grey >> 8
        return Image.fromarray(high.astype(np.uint8)), None if alpha is None else alpha.astype(
            np.uint8
        )
    if image.mode == "LA":
        return image.getchannel("L"), np.asarray(image.getchannel("A"))
    if image.mode in {"RGBA", "PA"} or transparent is not None:
        rgba = image.convert("RGBA")
        return rgba.convert("RGB"), np.asarray(rgba.getchannel("A"))
    if image.mode == "CMYK":
        return image, None
    return image.convert("RGB"), None


def _to_srgb(colour: Image.Image, profile: bytes | None) -> tuple[Image.Image, str]:
    """The image in sRGB, and the description of its profile ("" for none or a damaged one)."""
    if not profile:
        return colour.convert("RGB"), ""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = ImageCms.getProfileDescription(source).strip()
        fits = source.profile.xcolor_space.strip() == _PROFILE_SPACES[colour.mode]
        # sRGB to sRGB would only add rounding, and cost a lossless round trip.
        if not fits or "srgb" in name.lower():
            return colour.convert("RGB"), name
        converted = ImageCms.profileToProfile(
            colour,
            source,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        # As browsers do: a damaged profile is ignored, the samples are taken for sRGB.
        return colour.convert("RGB"), ""
    return (colour.convert("RGB"), "") if converted is None else (converted, name)


def _upright(samples: U8, orientation: int) -> U8:
    """Turn [H, W, …] the way EXIF `orientation` asks for; contiguous."""
    if orientation >= 5:
        samples = samples.swapaxes(0, 1)  # [W, H, …]
    if orientation in {3, 4, 7, 8}:
        samples = samples[::-1]
    if orientation in {2, 3, 6, 7}:
        samples = samples[:, ::-1]
    return np.ascontiguousarray(samples)
