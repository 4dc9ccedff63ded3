"""Image → W+ latents, and back: encoder and synthesis of one generator, once for the same input."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from velatura.server.imaging.frames import Frame, central_frame, crop_to_network, to_samples
from velatura.server.imaging.picture import F32, Picture
from velatura.server.pipelines.caches import digest_of_array, frozen
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
    runs = encoder_runs(job, picture, frame, generator)
    stages = [[(generator.encoder, 1)] if runs else []]
    if reconstruct:
        stages.append([(generator.synthesis, 1)])
    with job.promise(stages):
        w_plus = await latents_of(job, picture, frame, generator)
        if not reconstruct:
            return Encoding(w_plus)
        image = await reconstruction(job, w_plus, generator)  # [3, R, R]
    pixels = pixels_in(picture, generator)
    size = generator.resolution
    seen = await job.compute_few("prepare", pixels, network_view, picture, frame, size)
    psnr = peak_signal_to_noise(seen[0], image)
    return Encoding(w_plus, await job.compute_few("finish", pixels, picture_of, image), psnr)


async def encode_centre(job: Job, picture: Picture, generator: GeneratorEntry) -> F32:
    """Latents float32 [num_ws, w_dim] of a picture's largest central square."""
    frame = central_frame(picture.width, picture.height)
    return await latents_of(job, picture, frame, generator)


async def latents_of(job: Job, picture: Picture, frame: Frame, generator: GeneratorEntry) -> F32:
    """Latents float32 [num_ws, w_dim] of a picture inside `frame`, not to be changed."""
    if not generator.encoder:
        raise Unsupported(
            "generator",
            f"the generator {generator.name!r} has no encoder.",
            "Send a latent_token, or choose a generator with an encoder; ListModels shows them.",
        )
    size = generator.resolution

    async def encoded() -> F32:
        pixels = pixels_in(picture, generator)
        # [1, 3, R, R]
        seen = await job.compute_few("prepare", pixels, network_view, picture, frame, size)
        outputs = await job.infer("encoder", generator.encoder, {"image": seen})
        return frozen(outputs["w_plus"][0])

    if not picture.digest:
        return await encoded()
    key = _key(picture, frame, generator)
    return await job.recall(job.caches.latents, "encoder", generator.encoder, key, encoded)


def pixels_in(picture: Picture | None, generator: GeneratorEntry) -> int:
    """Pixels of the picture or of the generator's own, whichever are more."""
    own = 0 if picture is None else picture.width * picture.height
    return max(own, generator.resolution**2)


def encoder_runs(job: Job, picture: Picture, frame: Frame, generator: GeneratorEntry) -> bool:
    """Whether the picture's latents are still to be found."""
    if not generator.encoder:
        return False
    key = _key(picture, frame, generator)
    return not picture.digest or job.costs_a_run(job.caches.latents, generator.encoder, key)


def _key(picture: Picture, frame: Frame, generator: GeneratorEntry) -> tuple[Hashable, ...]:
    """All that a picture's latents depend on besides the encoder."""
    return (picture.digest, frame, generator.resolution)


async def reconstruction(job: Job, w_plus: F32, generator: GeneratorEntry) -> F32:
    """What latents [num_ws, w_dim] show: float32 [3, R, R], about [-1, 1], not to be changed."""

    async def decoded() -> F32:
        return frozen((await synthesise(job, w_plus[None], generator))[0])

    memo, network = job.caches.images, generator.synthesis
    key = (digest_of_array(w_plus),)
    if not _repeats_exactly(job, network):
        return await job.share(memo, "generator", network, key, decoded)
    return await job.recall(memo, "generator", network, key, decoded)


async def before_and_after(
    job: Job, w_plus: F32, edited: F32, generator: GeneratorEntry
) -> tuple[F32, F32]:
    """What latents [num_ws, w_dim] show before an edit and after it: float32 [3, R, R] each.

    One call for both images, so that rounding in the network cancels out, unless the first is known
    from an earlier edit of the same latents: a slider costs one image a step.
    """
    memo, network = job.caches.images, generator.synthesis
    exact = _repeats_exactly(job, network)
    key, key_after = digest_of_array(w_plus), digest_of_array(edited)
    before = job.kept(memo, "generator", network, (key,)) if exact else None
    latents = np.stack([w_plus, edited]) if before is None else edited[None]  # [N, num_ws, w_dim]

    async def decoded() -> F32:
        images = await synthesise(job, latents, generator)
        if exact and before is None:
            job.keep(memo, network, (key,), frozen(images[0]))
        return images

    pair = (key, key_after, len(latents))
    images = await job.share(memo, "generator", network, pair, decoded)  # [N, 3, R, R]
    return (images[0] if before is None else before), images[-1]


def _repeats_exactly(job: Job, network: str) -> bool:
    """Whether an image comes out the same, bit for bit, whatever batch it is in: onnxruntime's CPU
    kernels do that, and OpenVINO's of generators (a test holds them to it), while those of GPUs are
    chosen by the batch's size.
    """
    return job.engine.provider(network).startswith(("CPU", "OpenVINO"))


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
