"""StyleService: Stylize."""

# ruff: noqa: ARG002, N802 - names and parameters are gRPC's

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from velatura.server.engine.bundle import Bundle
from velatura.server.imaging.picture import Picture
from velatura.server.pipelines.errors import InvalidRequest, UnknownThing, Unsupported
from velatura.server.pipelines.job import Job
from velatura.server.pipelines.stylize import PictureGroup, PresetGroup, StyleOrder, stylise
from velatura.server.pipelines.workers import both, every
from velatura.server.rpc.backend import Backend, timings, versions
from velatura.server.rpc.images import change_report, output_format, read_image, write_image
from velatura.server.rpc.regions import read_region
from velatura.v1 import stylize_pb2, stylize_pb2_grpc
from velatura.v1.bundle_pb2 import ModelEntry, Role, StyleEntry

Context = grpc.aio.ServicerContext[Any, Any]
PRESET_ROLES = (Role.ROLE_PRESET_STYLE, Role.ROLE_FIXED_STYLE)


class StyleServicer(stylize_pb2_grpc.StyleServiceServicer):
    """Translates requests to `StyleOrder`, and the result back."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def Stylize(
        self, request: stylize_pb2.StylizeRequest, context: Context
    ) -> stylize_pb2.StylizeResponse:
        """Fuse one image's content with styles, inside one region."""
        backend, job = self._backend, self._backend.job()
        order = await self._order(job, request)
        wanted = output_format(request.output, order.content.source_format)
        done = await stylise(job, order)
        return stylize_pb2.StylizeResponse(
            image=await write_image(job, backend, done.picture, request.output, wanted),
            change=change_report(done.change),
            models=versions(job),
            timings=timings(job),
            tiles=done.tiles,
        )

    async def _order(self, job: Job, request: stylize_pb2.StylizeRequest) -> StyleOrder:
        backend = self._backend
        check_model(backend.bundle, request.styles, request.model)
        presets = preset_groups(backend.bundle, request.styles)
        segmenter = backend.segmenter(request.segmenter)
        region_message = request.region if request.HasField("region") else None
        (content, pictures), region = await both(
            both(
                read_image(job, backend, request.content, "content"),
                self._pictures(job, request.styles),
            ),
            read_region(job, backend, region_message),
        )
        return StyleOrder(
            content=content,
            groups=[*presets, *picture_groups(backend.bundle, pictures, request.model)],
            strength=request.strength if request.HasField("strength") else 1.0,
            preserve_colour=request.preserve_color,
            region=region,
            segmenter=segmenter,
        )

    async def _pictures(
        self, job: Job, styles: Sequence[stylize_pb2.StyleSource]
    ) -> list[tuple[Picture, float]]:
        """The uploaded styles with their weights."""
        chosen = [(index, style) for index, style in enumerate(styles) if style.HasField("image")]
        pictures = await every(
            [
                read_image(job, self._backend, style.image, f"styles[{index}].image")
                for index, style in chosen
            ]
        )
        weights = [weight_of(style) for _, style in chosen]
        return list(zip(pictures, weights, strict=True))


def weight_of(style: stylize_pb2.StyleSource) -> float:
    """A style's share; 0 stands for 1."""
    return style.weight or 1.0


def check_model(bundle: Bundle, styles: Sequence[stylize_pb2.StyleSource], name: str) -> None:
    """Refuse a style model that is not there, or cannot do the kind of style asked for."""
    if not name:
        return
    entries = [
        entry
        for role in (*PRESET_ROLES, Role.ROLE_STYLE_TRANSFORMER)
        for entry in bundle.models_of(role)
    ]
    entry = next((entry for entry in entries if entry.name == name), None)
    if entry is None:
        raise UnknownThing("style model", name, [entry.name for entry in entries], "model")
    kind = "preset" if entry.role in PRESET_ROLES else "image"
    for index, style in enumerate(styles):
        if style.WhichOneof("source") != kind:
            raise InvalidRequest.of(
                "model",
                f"{name!r} takes styles of the kind {kind!r}, and styles[{index}] is none. "
                "Leave the model out to have it chosen.",
            )


def preset_groups(bundle: Bundle, styles: Sequence[stylize_pb2.StyleSource]) -> list[PresetGroup]:
    """The presets asked for, grouped by the model that knows them; raises `UnknownThing`."""
    known: Mapping[str, StyleEntry] = bundle.styles()
    weights: dict[str, dict[int, float]] = {}
    for index, style in enumerate(styles):
        if style.WhichOneof("source") != "preset":
            continue
        entry = known.get(style.preset)
        if entry is None:
            raise UnknownThing("style", style.preset, sorted(known), f"styles[{index}].preset")
        group = weights.setdefault(entry.model, {})
        group[entry.index] = group.get(entry.index, 0.0) + weight_of(style)
    return [PresetGroup(bundle.model(model), group) for model, group in weights.items()]


def picture_groups(
    bundle: Bundle, pictures: Sequence[tuple[Picture, float]], model: str
) -> list[PictureGroup]:
    """The uploaded styles with the networks for them, one group or none."""
    if not pictures:
        return []
    transformer = first_of(bundle, Role.ROLE_STYLE_TRANSFORMER)
    if model:
        transformer = bundle.model(model)
    predictor = predictor_for(bundle, transformer)
    if predictor is None or transformer is None:
        raise Unsupported(
            "styles", "the server's bundle has no networks for style pictures.", "Use presets."
        )
    images = [picture for picture, _ in pictures]
    return [PictureGroup(predictor, transformer, images, [weight for _, weight in pictures])]


def predictor_for(bundle: Bundle, transformer: ModelEntry | None) -> ModelEntry | None:
    """The first predictor whose code is as long as the one that the transformer takes: a bundle may
    hold several pairs."""
    if transformer is None:
        return None
    wanted = next(list(spec.shape) for spec in transformer.inputs if spec.name == "style_code")
    return next(
        (
            entry
            for entry in bundle.models_of(Role.ROLE_STYLE_PREDICTOR)
            for spec in entry.outputs
            if spec.name == "style_code" and list(spec.shape) == wanted
        ),
        None,
    )


def first_of(bundle: Bundle, role: Role) -> ModelEntry | None:
    """The bundle's first network of a role."""
    return next(iter(bundle.models_of(role)), None)
