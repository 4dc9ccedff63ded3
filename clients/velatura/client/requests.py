"""Operations: a call's method, its request, and how its answer becomes a result. No I/O here.

Both clients build the same operations and differ only in how they send them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from velatura.client import results
from velatura.client.edits import (
    EditsInput,
    Layers,
    StylesInput,
    edits_to_protos,
    layers_to_proto,
    styles_to_protos,
)
from velatura.client.errors import ResourceExhausted, invalid
from velatura.client.images import Format, ImageInput, Upload, output_options, to_proto
from velatura.client.regions import Box, RegionInput, box_to_proto
from velatura.client.regions import to_proto as region_to_proto
from velatura.v1 import catalog_pb2, edit_pb2, generate_pb2, segment_pb2, stylize_pb2

Response = TypeVar("Response", bound=Message)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Operation(Generic[Response, Result]):
    """One call: `method` is the full gRPC path, `parse` turns each answer into what the caller
    gets."""

    method: str
    request: Message
    response_type: type[Response]
    parse: Callable[[Response], Result]


def edit_image(
    image: ImageInput | None,
    edits: EditsInput,
    *,
    region: RegionInput | None,
    latent_token: bytes | None,
    frame: Box | Sequence[int] | None,
    generator: str,
    segmenter: str,
    output: Format | None,
    quality: int | None,
    lossless: bool,
    upload: Upload,
) -> Operation[edit_pb2.EditImageResponse, results.EditResult]:
    if image is None and not latent_token:
        raise invalid("image", "give an image, a latent token, or both")
    request = edit_pb2.EditImageRequest(
        image=None if image is None else to_proto(image, "image", upload),
        latent_token=latent_token or b"",
        edits=edits_to_protos(edits, upload),
        region=region_to_proto(region),
        generator=generator,
        segmenter=segmenter,
        output=output_options(output, quality, lossless),
        frame=None if frame is None else box_to_proto(frame, "frame"),
    )
    return Operation(
        "/velatura.v1.EditService/EditImage",
        request,
        edit_pb2.EditImageResponse,
        results.edit_result,
    )


def encode(
    image: ImageInput,
    *,
    with_reconstruction: bool,
    frame: Box | Sequence[int] | None,
    generator: str,
    output: Format | None,
    upload: Upload,
) -> Operation[edit_pb2.EncodeResponse, results.EncodeResult]:
    request = edit_pb2.EncodeRequest(
        image=to_proto(image, "image", upload),
        generator=generator,
        with_reconstruction=with_reconstruction,
        output=output_options(output, None, False),
        frame=None if frame is None else box_to_proto(frame, "frame"),
    )
    return Operation(
        "/velatura.v1.EditService/Encode",
        request,
        edit_pb2.EncodeResponse,
        results.encode_result,
    )


def stylize(
    image: ImageInput,
    styles: StylesInput,
    *,
    strength: float,
    preserve_color: bool,
    region: RegionInput | None,
    model: str,
    segmenter: str,
    output: Format | None,
    quality: int | None,
    lossless: bool,
    upload: Upload,
) -> Operation[stylize_pb2.StylizeResponse, results.StylizeResult]:
    request = stylize_pb2.StylizeRequest(
        content=to_proto(image, "content", upload),
        styles=styles_to_protos(styles, upload),
        strength=strength,
        preserve_color=preserve_color,
        region=region_to_proto(region),
        model=model,
        segmenter=segmenter,
        output=output_options(output, quality, lossless),
    )
    return Operation(
        "/velatura.v1.StyleService/Stylize",
        request,
        stylize_pb2.StylizeResponse,
        results.stylize_result,
    )


def segment(
    image: ImageInput, *, with_overlay: bool, model: str, output: Format | None, upload: Upload
) -> Operation[segment_pb2.SegmentResponse, results.SegmentResult]:
    request = segment_pb2.SegmentRequest(
        image=to_proto(image, "image", upload),
        model=model,
        with_overlay=with_overlay,
        output=output_options(output, None, False),
    )
    return Operation(
        "/velatura.v1.SegmentService/Segment",
        request,
        segment_pb2.SegmentResponse,
        results.segment_result,
    )


def generate(
    seeds: int | Iterable[int],
    *,
    truncation_psi: float | None,
    edits: EditsInput | None,
    mix_seed: int | None,
    mix_layers: Layers | None,
    class_name: str,
    generator: str,
    output: Format | None,
    quality: int | None,
    upload: Upload,
) -> Operation[generate_pb2.GenerateResponse, results.Sample]:
    if (mix_seed is None) != (mix_layers is None):
        raise invalid("mixing", "give a second seed together with the layers that come from it")
    mixing = None
    if mix_seed is not None:
        _check_seeds("mixing.seed", [mix_seed])
        mixing = generate_pb2.StyleMixing(
            seed=mix_seed, layers=layers_to_proto(mix_layers, "mixing.layers")
        )
    wanted = [seeds] if isinstance(seeds, int) else list(seeds)
    _check_seeds("seeds", wanted)
    request = generate_pb2.GenerateRequest(
        seeds=wanted,
        truncation_psi=truncation_psi,
        generator=generator,
        class_name=class_name,
        mixing=mixing,
        edits=edits_to_protos(edits, upload) if edits else [],
        output=output_options(output, quality, False),
    )
    return Operation(
        "/velatura.v1.GenerateService/Generate",
        request,
        generate_pb2.GenerateResponse,
        results.sample,
    )


def list_models() -> Operation[catalog_pb2.ListModelsResponse, results.Catalog]:
    return Operation(
        "/velatura.v1.CatalogService/ListModels",
        catalog_pb2.ListModelsRequest(),
        catalog_pb2.ListModelsResponse,
        results.catalog,
    )


def list_directions(
    generator: str,
) -> Operation[catalog_pb2.ListDirectionsResponse, tuple[results.DirectionInfo, ...]]:
    return Operation(
        "/velatura.v1.CatalogService/ListDirections",
        catalog_pb2.ListDirectionsRequest(generator=generator),
        catalog_pb2.ListDirectionsResponse,
        results.directions,
    )


def list_styles() -> Operation[catalog_pb2.ListStylesResponse, tuple[results.StyleInfo, ...]]:
    return Operation(
        "/velatura.v1.CatalogService/ListStyles",
        catalog_pb2.ListStylesRequest(),
        catalog_pb2.ListStylesResponse,
        results.styles,
    )


def list_region_classes(
    segmenter: str,
) -> Operation[catalog_pb2.ListRegionClassesResponse, tuple[results.RegionClass, ...]]:
    return Operation(
        "/velatura.v1.CatalogService/ListRegionClasses",
        catalog_pb2.ListRegionClassesRequest(segmenter=segmenter),
        catalog_pb2.ListRegionClassesResponse,
        results.region_classes,
    )


def health(service: str) -> Operation[health_pb2.HealthCheckResponse, results.HealthStatus]:
    def parse(response: health_pb2.HealthCheckResponse) -> results.HealthStatus:
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)
        return results.HealthStatus(name)

    return Operation(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest(service=service),
        health_pb2.HealthCheckResponse,
        parse,
    )


def check_size(operation: Operation[Response, Result], limit: int) -> None:
    """Refuse what cannot be sent, before gRPC does so (and retries) without saying what to do."""
    size = operation.request.ByteSize()
    if size > limit:
        raise ResourceExhausted(
            f"the request has {size} bytes, more than the client's max_message_bytes of {limit}; "
            "send smaller or more strongly compressed images",
            reason="MESSAGE_TOO_LARGE",
        )


def _check_seeds(field: str, seeds: Sequence[int]) -> None:
    for seed in seeds:
        if not 0 <= seed < 2**64:
            raise invalid(field, f"{seed} is not in 0..2^64-1")
