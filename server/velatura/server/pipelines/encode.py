"""Image → W+ latents, and back: encoder and synthesis of one generator."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from velatura.server.imaging.frames import Frame, central_frame, crop_to_network, to_samples
from velatura.server.imaging.picture import F32, Picture
from velatura.server.pipelines.errors import Unsupported
from velatura.server.pipelines.job import Job
from velatura.v1.bundle_pb2 import GeneratorEntry


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """Latents float32 [num_ws, w_dim]; the reconstruction and its PSNR in dB where asked for."""

    w_plus: F32
    reconstruction: Picture | None = None
    psnr_db: float = 0.0


async def encode(
    job: Job, picture: Picture, generator: GeneratorEntry, frame: Frame, *, reconstruct: bool
) -> Encoding:
    """Encode the part of a picture inside `frame`, and decode it again where asked to."""
    seen = await job.compute("prepare", network_view, picture, frame, generator.resolution)
    w_plus = await encode_view(job, seen, generator)
    if not reconstruct:
        return Encoding(w_plus)
    images = await synthesise(job, w_plus[None], generator)  # [1, 3, R, R]
    psnr = peak_signal_to_noise(seen[0], images[0])
    return Encoding(w_plus, await job.compute("finish", picture_of, images[0]), psnr)


async def encode_centre(job: Job, picture: Picture, generator: GeneratorEntry) -> F32:
    """Latents float32 [num_ws, w_dim] of a picture's largest central square."""
    frame = central_frame(picture.width, picture.height)
    seen = await job.compute("prepare", network_view, picture, frame, generator.resolution)
    return await encode_view(job, seen, generator)


async def encode_view(job: Job, seen: F32, generator: GeneratorEntry) -> F32:
    """Latents float32 [num_ws, w_dim] of one prepared image [1, 3, R, R] in [-1, 1]."""
    if not generator.encoder:
        raise Unsupported(
            "generator",
            f"the generator {generator.name!r} has no encoder.",
            "Send a latent_token, or choose a generator with an encoder; ListModels shows them.",
        )
    outputs = await job.infer("encoder", generator.encoder, {"image": seen})
    w_plus: F32 = outputs["w_plus"][0]
    return w_plus


async def synthesise(job: Job, w_plus: F32, generator: GeneratorEntry) -> F32:
    """Images float32 [N, 3, R, R], about [-1, 1], of latents [N, num_ws, w_dim]; one call, so one
    batch."""
    outputs = await job.infer("generator", generator.synthesis, {"w_plus": w_plus})
    images: F32 = outputs["image"]
    return images


def network_view(picture: Picture, frame: Frame, size: int) -> F32:
    """The frame as the encoder sees it: float32 [1, 3, size, size] in [-1, 1], transparency over
    white."""
    return crop_to_network(picture.opaque(), frame, size, -1.0, 1.0)


def picture_of(image: F32) -> Picture:
    """A generated image [3, R, R] in [-1, 1] as a picture; what lies beyond is clipped."""
    return Picture(to_samples(image, -1.0, 1.0))


def peak_signal_to_noise(reference: F32, image: F32) -> float:
    """PSNR in dB of two images in [-1, 1]; 100 for equal ones."""
    error = float(np.mean(np.square(np.clip(image, -1, 1) - reference), dtype=np.float64))
    return 100.0 if error < 4e-10 else 10.0 * math.log10(4.0 / error)
