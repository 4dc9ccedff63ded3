"""Images between the wire and `Picture`; every decode and encode runs in the thread pool. A picture
that is sent again is decoded once."""

from __future__ import annotations

import dataclasses
import time

from velatura.server.engine.promise import Stages
from velatura.server.imaging import codecs
from velatura.server.imaging.compositing import ChangeFigures
from velatura.server.imaging.picture import U8, ImageFormat, Limits, Picture
from velatura.server.pipelines.caches import digest_of
from velatura.server.pipelines.errors import InvalidRequest
from velatura.server.pipelines.job import FEW_PIXELS, Job
from velatura.server.rpc.backend import Backend
from velatura.v1 import image_pb2

DEFAULT_QUALITY = 95
# Digests of larger messages than this (0.2 ms) are taken in the pool.
DIGEST_IN_POOL_BYTES = 1 << 20

_FORMATS = {
    image_pb2.IMAGE_FORMAT_PNG: ImageFormat.PNG,
    image_pb2.IMAGE_FORMAT_JPEG: ImageFormat.JPEG,
    image_pb2.IMAGE_FORMAT_WEBP: ImageFormat.WEBP,
    image_pb2.IMAGE_FORMAT_RAW: ImageFormat.RAW,
}


async def read_image(
    job: Job, backend: Backend, image: image_pb2.Image, field: str, ahead: Stages = ()
) -> Picture:
    """The picture in a message, not to be changed; raises `ImageError` naming `field`.

    A picture that is not known yet is not even decoded where the networks `ahead` would not be done
    in time: raises the engine's errors.
    """
    size = len(image.encoded) + len(image.raw.data)
    job.picture_bytes = max(job.picture_bytes, size)
    if size > DIGEST_IN_POOL_BYTES:
        digest = await job.compute("decode", _digest, image)
    else:
        digest = _digest(image)

    async def decoded() -> Picture:
        start = time.monotonic()
        cost = codecs.decoding_cost(image.encoded, FEW_PIXELS) if image.encoded else size
        picture = await job.compute_few("decode", cost, _decode, image, backend.limits, field)
        pixels = picture.width * picture.height
        _observe(job, backend, "decode", pixels, picture.source_format, start)
        picture.rgb.flags.writeable = False
        return dataclasses.replace(picture, digest=digest)

    memo = job.caches.pictures
    picture = job.kept(memo, "decode", "", (digest,))
    if picture is None:
        job.reserve(ahead)
        # What is wrong with an image is told with its field, so only one field's callers share it.
        picture = await job.share(memo, "decode", "", (digest,), decoded, variant=field, keep=True)
    job.record.pixels_in += picture.width * picture.height
    return picture


def _digest(image: image_pb2.Image) -> bytes:
    if image.WhichOneof("source") == "raw":
        raw = image.raw
        return digest_of(raw.data, raw.width, raw.height, raw.channels)
    return digest_of(image.encoded)


def _decode(image: image_pb2.Image, limits: Limits, field: str) -> Picture:
    if image.WhichOneof("source") == "raw":
        raw = image.raw
        where = f"{field}.raw"
        return codecs.decode_raw(raw.width, raw.height, raw.channels, raw.data, limits, where)
    return codecs.decode(image.encoded, limits, field)


def output_format(
    options: image_pb2.OutputOptions, source: ImageFormat = ImageFormat.PNG, field: str = "output"
) -> ImageFormat:
    """The format to write: the one asked for, or the source's own. Refuses options that it cannot
    honour."""
    wanted = _FORMATS.get(options.format, source)
    if options.lossless and wanted is ImageFormat.JPEG:
        raise InvalidRequest.of(
            f"{field}.lossless", "JPEG always loses. Ask for WebP or PNG, or leave lossless out."
        )
    return wanted


async def write_image(
    job: Job,
    backend: Backend,
    picture: Picture,
    options: image_pb2.OutputOptions,
    wanted: ImageFormat,
) -> image_pb2.Image:
    """The message with a picture in the wanted format."""
    start = time.monotonic()
    quality = options.quality or DEFAULT_QUALITY
    pixels = picture.width * picture.height
    cost = codecs.encoding_cost(picture, wanted)
    data = await job.compute_few(
        "encode", cost, codecs.encode, picture, wanted, quality, options.lossless
    )
    job.record.pixels_out += pixels
    _observe(job, backend, "encode", pixels, wanted, start)
    if wanted is not ImageFormat.RAW:
        return image_pb2.Image(encoded=data)
    channels = 3 if picture.alpha is None else 4
    raw = image_pb2.RawImage(
        width=picture.width, height=picture.height, channels=channels, data=data
    )
    return image_pb2.Image(raw=raw)


async def write_grey(job: Job, backend: Backend, samples: U8) -> image_pb2.Image:
    """The message with uint8 [H, W] samples as a grey PNG."""
    start = time.monotonic()
    data = await job.compute("encode", codecs.encode_grey, samples)
    job.record.pixels_out += samples.size
    _observe(job, backend, "encode", samples.size, ImageFormat.PNG, start)
    return image_pb2.Image(encoded=data)


def change_report(change: ChangeFigures) -> image_pb2.ChangeReport:
    """The figures of a change as a message."""
    return image_pb2.ChangeReport(
        max_difference_outside=change.max_difference_outside,
        mean_difference_inside=change.mean_difference_inside,
        region_share=change.region_share,
    )


def _observe(
    job: Job, backend: Backend, operation: str, pixels: int, kind: ImageFormat, start: float
) -> None:
    # The pool's queue is part of the time: it is what the caller waits for.
    seconds = time.monotonic() - start
    images = backend.metrics.images
    images.coded(operation, kind.value, seconds, pixels, job.record.exemplar)
