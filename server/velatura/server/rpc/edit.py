"""EditService: EditImage and Encode."""

# ruff: noqa: ARG002, N802 - names and parameters are gRPC's

from __future__ import annotations

from typing import Any

import grpc

from velatura.server.imaging.frames import central_frame
from velatura.server.imaging.picture import ImageFormat, Picture
from velatura.server.pipelines.edit import EditOrder, edit
from velatura.server.pipelines.encode import encode
from velatura.server.pipelines.errors import InvalidRequest
from velatura.server.pipelines.job import Job
from velatura.server.pipelines.workers import both
from velatura.server.rpc.backend import Backend, timings, versions
from velatura.server.rpc.images import change_report, output_format, read_image, write_image
from velatura.server.rpc.regions import read_frame, read_region
from velatura.server.rpc.steps import read_steps
from velatura.server.rpc.tokens import read_token, write_token
from velatura.v1 import edit_pb2, edit_pb2_grpc
from velatura.v1.bundle_pb2 import GeneratorEntry

Context = grpc.aio.ServicerContext[Any, Any]


class EditServicer(edit_pb2_grpc.EditServiceServicer):
    """Translates requests to `EditOrder` and `encode`, and their results back."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def EditImage(
        self, request: edit_pb2.EditImageRequest, context: Context
    ) -> edit_pb2.EditImageResponse:
        """Apply edits to one image, inside one region."""
        with self._backend.job() as job:
            order = await self._order(job, request)
            source = order.picture.source_format if order.picture else ImageFormat.PNG
            wanted = output_format(request.output, source)
            edited = await edit(job, order)
            image = await write_image(job, self._backend, edited.picture, request.output, wanted)
            sha256 = self._backend.synthesis_sha256(order.generator)
            return edit_pb2.EditImageResponse(
                image=image,
                change=None if edited.change is None else change_report(edited.change),
                latent_token=write_token(edited.w_plus, sha256),
                models=versions(job),
                timings=timings(job),
            )

    async def _order(self, job: Job, request: edit_pb2.EditImageRequest) -> EditOrder:
        backend = self._backend
        if not request.HasField("image") and not request.latent_token:
            raise InvalidRequest.of(
                "image", "there is nothing to edit. Send an image, a latent_token or both."
            )
        generator = backend.generator(request.generator)
        segmenter = backend.segmenter(request.segmenter)
        latents = None
        if request.latent_token:
            sha256 = backend.synthesis_sha256(generator)
            latents = read_token(request.latent_token, generator, sha256)
        region_message = request.region if request.HasField("region") else None
        if _decodes_more(request):
            picture, (steps, region) = await both(
                self._picture(job, request, generator),
                both(
                    read_steps(job, backend, request.edits, generator),
                    read_region(job, backend, region_message),
                ),
            )
        else:  # nothing else to wait for
            steps = await read_steps(job, backend, request.edits, generator)
            region = await read_region(job, backend, region_message)
            picture = await self._picture(job, request, generator)
        frame = None
        if request.HasField("frame"):
            if picture is None:
                raise InvalidRequest.of(
                    "frame", "a frame needs an image. Leave it out or send the image."
                )
            frame = read_frame(request.frame, picture)
        return EditOrder(
            picture=picture,
            latents=latents,
            steps=steps,
            generator=generator,
            directions=backend.bundle.directions(generator.name),
            region=region,
            segmenter=segmenter,
            frame=frame,
        )

    async def _picture(
        self, job: Job, request: edit_pb2.EditImageRequest, generator: GeneratorEntry
    ) -> Picture | None:
        if not request.HasField("image"):
            return None
        ahead = [[(generator.synthesis, 2)]]
        if generator.encoder and not request.latent_token:
            ahead.insert(0, [(generator.encoder, 1)])
        return await read_image(job, self._backend, request.image, "image", ahead)

    async def Encode(
        self, request: edit_pb2.EncodeRequest, context: Context
    ) -> edit_pb2.EncodeResponse:
        """Find an image's latents and hand them out as a token."""
        backend = self._backend
        with backend.job() as job:
            generator = backend.generator(request.generator)
            ahead = [[(generator.encoder, 1)]] if generator.encoder else []
            picture = await read_image(job, backend, request.image, "image", ahead)
            wanted = output_format(request.output, picture.source_format)
            frame = central_frame(picture.width, picture.height)
            if request.HasField("frame"):
                frame = read_frame(request.frame, picture)
            found = await encode(
                job, picture, generator, frame, reconstruct=request.with_reconstruction
            )
            image = None
            if found.reconstruction is not None:
                image = await write_image(
                    job, backend, found.reconstruction, request.output, wanted
                )
            return edit_pb2.EncodeResponse(
                latent_token=write_token(found.w_plus, backend.synthesis_sha256(generator)),
                reconstruction=image,
                reconstruction_psnr_db=found.psnr_db,
                models=versions(job),
                timings=timings(job),
            )


def _decodes_more(request: edit_pb2.EditImageRequest) -> bool:
    """Whether there are pictures besides the one to be edited."""
    references = any(edit.WhichOneof("kind") == "reference" for edit in request.edits)
    return references or any(part.WhichOneof("shape") == "mask" for part in request.region.parts)
