"""A gRPC server in this process: it answers with canned messages and remembers what it was sent."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from PIL import Image

from velatura.client import AsyncClient, Client
from velatura.v1 import (
    bundle_pb2,
    catalog_pb2,
    edit_pb2,
    generate_pb2,
    image_pb2,
    segment_pb2,
    stylize_pb2,
)

Call = Callable[..., Any]


def png(color: tuple[int, int, int] = (200, 30, 40), size: tuple[int, int] = (6, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass
class Fake:
    """The server's address, what it received, and how it shall answer."""

    target: str = ""
    requests: list[Any] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)
    # method's last name → called instead of the canned answer; may abort through the context
    behaviours: dict[str, Callable[[Any, grpc.ServicerContext], Any]] = field(default_factory=dict)
    status: int = health_pb2.HealthCheckResponse.SERVING
    stream_cancelled: threading.Event = field(default_factory=threading.Event)


_VERSION = image_pb2.ModelVersion(name="avatar-synthesis", version="1", sha256="ab" * 32)
_CHANGE = image_pb2.ChangeReport(
    max_difference_outside=0, mean_difference_inside=12.5, region_share=0.25
)
_TIMINGS = [
    image_pb2.Timing(stage="encoder", milliseconds=3.0),
    image_pb2.Timing(stage="encoder", milliseconds=1.5),
    image_pb2.Timing(stage="decode", milliseconds=1.0),
]


def _label_map() -> bytes:
    image = Image.new("L", (6, 4), 0)
    image.paste(2, (1, 1, 3, 3))  # four pixels of class 2
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _answers(fake: Fake) -> dict[str, tuple[type[Message], Callable[[Any], Message]]]:
    def echo(image: image_pb2.Image) -> image_pb2.Image:
        return image if image.WhichOneof("source") else image_pb2.Image(encoded=png())

    return {
        "/velatura.v1.EditService/EditImage": (
            edit_pb2.EditImageRequest,
            lambda r: edit_pb2.EditImageResponse(
                image=echo(r.image),
                change=_CHANGE if r.HasField("image") else None,
                latent_token=b"edited",
                models=[_VERSION],
                timings=_TIMINGS,
            ),
        ),
        "/velatura.v1.EditService/Encode": (
            edit_pb2.EncodeRequest,
            lambda r: edit_pb2.EncodeResponse(
                latent_token=b"token",
                reconstruction=image_pb2.Image(encoded=png()) if r.with_reconstruction else None,
                reconstruction_psnr_db=23.5 if r.with_reconstruction else 0,
                models=[_VERSION],
            ),
        ),
        "/velatura.v1.StyleService/Stylize": (
            stylize_pb2.StylizeRequest,
            lambda r: stylize_pb2.StylizeResponse(
                image=echo(r.content), change=_CHANGE, models=[_VERSION], tiles=2
            ),
        ),
        "/velatura.v1.SegmentService/Segment": (
            segment_pb2.SegmentRequest,
            lambda r: segment_pb2.SegmentResponse(
                label_map=image_pb2.Image(encoded=_label_map()),
                areas=[
                    segment_pb2.RegionArea(index=0, name="background", pixels=20, share=20 / 24),
                    segment_pb2.RegionArea(index=2, name="hair", pixels=4, share=4 / 24),
                ],
                overlay=image_pb2.Image(encoded=png()) if r.with_overlay else None,
            ),
        ),
        "/velatura.v1.CatalogService/ListModels": (
            catalog_pb2.ListModelsRequest,
            lambda _: catalog_pb2.ListModelsResponse(
                bundle_name="avatars",
                bundle_version="1.0",
                manifest_sha256="cd" * 32,
                server_version="0.1.0",
                models=[
                    catalog_pb2.ModelInfo(
                        entry=bundle_pb2.ModelEntry(
                            name="avatar-synthesis",
                            role=bundle_pb2.ROLE_SYNTHESIS,
                            parameters=1_800_000,
                            figures=[bundle_pb2.Figure(name="PSNR", value=23.25, unit="dB")],
                        ),
                        ready=True,
                        provider="CPUExecutionProvider",
                    )
                ],
                generators=[bundle_pb2.GeneratorEntry(name="avatar", num_ws=12, w_dim=128)],
            ),
        ),
        "/velatura.v1.CatalogService/ListDirections": (
            catalog_pb2.ListDirectionsRequest,
            lambda _: catalog_pb2.ListDirectionsResponse(
                generator="avatar",
                directions=[
                    bundle_pb2.DirectionEntry(
                        name="smile",
                        layer_start=2,
                        layer_end=8,
                        min_strength=-2,
                        max_strength=2,
                        regions=["mouth"],
                        description="Smiles.",
                    )
                ],
            ),
        ),
        "/velatura.v1.CatalogService/ListStyles": (
            catalog_pb2.ListStylesRequest,
            lambda _: catalog_pb2.ListStylesResponse(
                styles=[bundle_pb2.StyleEntry(name="night-city", model="style-presets")]
            ),
        ),
        "/velatura.v1.CatalogService/ListRegionClasses": (
            catalog_pb2.ListRegionClassesRequest,
            lambda _: catalog_pb2.ListRegionClassesResponse(
                segmenter="avatar-segmenter",
                classes=[catalog_pb2.RegionClass(index=6, name="mouth")],
            ),
        ),
        "/grpc.health.v1.Health/Check": (
            health_pb2.HealthCheckRequest,
            lambda _: health_pb2.HealthCheckResponse(status=fake.status),  # type: ignore[arg-type]
        ),
    }


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, fake: Fake) -> None:
        self._fake = fake
        self._answers = _answers(fake)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        fake, method = self._fake, details.method
        fake.metadata.append(dict(details.invocation_metadata or ()))
        if method == "/velatura.v1.GenerateService/Generate":
            return grpc.unary_stream_rpc_method_handler(
                self._generate,
                request_deserializer=generate_pb2.GenerateRequest.FromString,
                response_serializer=generate_pb2.GenerateResponse.SerializeToString,
            )
        if method not in self._answers:
            return None
        kind, answer = self._answers[method]

        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            fake.requests.append(request)
            behaviour = fake.behaviours.get(method.rpartition("/")[2])
            instead = behaviour(request, context) if behaviour else None
            return answer(request) if instead is None else instead

        return grpc.unary_unary_rpc_method_handler(
            handle,
            request_deserializer=kind.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def _generate(
        self, request: generate_pb2.GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[generate_pb2.GenerateResponse]:
        self._fake.requests.append(request)
        context.add_callback(
            lambda: None if context.is_active() else self._fake.stream_cancelled.set()
        )
        behaviour = self._fake.behaviours.get("Generate")
        for index, seed in enumerate(request.seeds):
            if behaviour is not None:
                behaviour(request, context)
            yield generate_pb2.GenerateResponse(
                index=index,
                seed=seed,
                image=image_pb2.Image(encoded=png((seed % 256, 0, 0))),
                latent_token=b"w%d" % seed,
            )


@pytest.fixture
def fake() -> Iterator[Fake]:
    state = Fake()
    server = grpc.server(
        ThreadPoolExecutor(8),
        handlers=[_Handlers(state)],
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
    )
    state.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield state
    server.stop(None).wait()


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, fake: Fake) -> Call:
    """`call(method, …)` through a client of either kind; streams come back as lists."""

    def through_sync(method: str, *args: Any, options: dict[str, Any], **kwargs: Any) -> Any:
        with Client(fake.target, **options) as client:
            result = getattr(client, method)(*args, **kwargs)
            return list(result) if method == "generate" else result

    async def through_async(method: str, *args: Any, options: dict[str, Any], **kwargs: Any) -> Any:
        async with AsyncClient(fake.target, **options) as client:
            result = getattr(client, method)(*args, **kwargs)
            if method == "generate":
                return [sample async for sample in result]
            return await result

    def call(method: str, *args: Any, options: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        if request.param == "sync":
            return through_sync(method, *args, options=options or {}, **kwargs)
        return asyncio.run(through_async(method, *args, options=options or {}, **kwargs))

    return call
