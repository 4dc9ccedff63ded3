"""SegmentService: Segment."""

# ruff: noqa: ARG002, N802 - names and parameters are gRPC's

from __future__ import annotations

from typing import Any

import grpc

from velatura.server.pipelines.errors import Unsupported
from velatura.server.pipelines.segment import segment
from velatura.server.rpc.backend import Backend, timings, versions
from velatura.server.rpc.images import output_format, read_image, write_grey, write_image
from velatura.v1 import segment_pb2, segment_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class SegmentServicer(segment_pb2_grpc.SegmentServiceServicer):
    """Translates requests to `segment`, and the result back."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def Segment(
        self, request: segment_pb2.SegmentRequest, context: Context
    ) -> segment_pb2.SegmentResponse:
        """Give every pixel of an image a class."""
        backend = self._backend
        with backend.job() as job:
            segmenter = backend.segmenter(request.model, "model")
            if segmenter is None:
                raise Unsupported(
                    "model", "the server's bundle has no segmenter.", "Serve another bundle."
                )
            ahead = [[(segmenter.name, 1)]]
            picture = await read_image(job, backend, request.image, "image", ahead)
            wanted = output_format(request.output, picture.source_format)
            found = await segment(job, picture, segmenter, overlay=request.with_overlay)
            label_map = await write_grey(job, backend, found.labels)
            overlay = None
            if found.overlay is not None:
                overlay = await write_image(job, backend, found.overlay, request.output, wanted)
            total = picture.width * picture.height
            areas = [
                segment_pb2.RegionArea(index=index, name=name, pixels=pixels, share=pixels / total)
                for index, (name, pixels) in enumerate(
                    zip(segmenter.labels, found.pixels, strict=True)
                )
            ]
            return segment_pb2.SegmentResponse(
                label_map=label_map,
                areas=areas,
                overlay=overlay,
                models=versions(job),
                timings=timings(job),
            )
