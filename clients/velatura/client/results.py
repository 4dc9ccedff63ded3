"""What calls return: frozen dataclasses, with images decoded only when looked at."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from PIL import Image as PilImage

from velatura.client.images import Picture, from_proto
from velatura.v1 import (
    bundle_pb2,
    catalog_pb2,
    edit_pb2,
    generate_pb2,
    image_pb2,
    segment_pb2,
    stylize_pb2,
)


class HealthStatus(enum.StrEnum):
    """The answer of `grpc.health.v1` for one service."""

    UNKNOWN = "UNKNOWN"
    SERVING = "SERVING"
    NOT_SERVING = "NOT_SERVING"
    SERVICE_UNKNOWN = "SERVICE_UNKNOWN"


@dataclass(frozen=True)
class ModelVersion:
    """A network that took part in an answer."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class ChangeReport:
    """What an operation did to the image, measured by the server before lossy encoding."""

    max_difference_outside: int  # 0..255; 0 unless there is a defect
    mean_difference_inside: float  # 0..255
    region_share: float  # 0..1


@dataclass(frozen=True)
class _ImageResult:
    """What every answer with one image shares."""

    picture: Picture
    models: tuple[ModelVersion, ...]

    @property
    def image(self) -> PilImage.Image:
        """The image, decoded."""
        return self.picture.pil

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the image; the server's own bytes where the format agrees with the name."""
        self.picture.save(path)


@dataclass(frozen=True)
class _ChangedImage(_ImageResult):
    """An image and what was changed in it; the figures are None when no image was sent."""

    timings: Mapping[str, float]  # stage → milliseconds, queueing included
    change: ChangeReport | None

    @property
    def max_difference_outside(self) -> int | None:
        """Largest difference of a sample outside the region, 0..255."""
        return self.change.max_difference_outside if self.change else None

    @property
    def mean_difference_inside(self) -> float | None:
        """Mean absolute difference of the samples inside the region, 0..255."""
        return self.change.mean_difference_inside if self.change else None

    @property
    def region_share(self) -> float | None:
        """Share of the image that the region covers, 0..1."""
        return self.change.region_share if self.change else None


@dataclass(frozen=True)
class EditResult(_ChangedImage):
    """The edited image, and a token of the edited latents."""

    latent_token: bytes


@dataclass(frozen=True)
class StylizeResult(_ChangedImage):
    """The stylised image."""

    tiles: int  # how many tiles the image was cut into


@dataclass(frozen=True)
class EncodeResult:
    """A token of the image's latents, and the reconstruction where it was asked for."""

    latent_token: bytes
    reconstruction: Picture | None
    reconstruction_psnr_db: float | None
    models: tuple[ModelVersion, ...]
    timings: Mapping[str, float]

    @property
    def image(self) -> PilImage.Image | None:
        """The reconstruction, decoded."""
        return self.reconstruction.pil if self.reconstruction else None


@dataclass(frozen=True)
class Sample(_ImageResult):
    """One generated image."""

    index: int
    seed: int
    latent_token: bytes  # empty for generators without W+


@dataclass(frozen=True)
class RegionArea:
    """One class of a segmenter and how much of the image it covers."""

    index: int
    name: str
    pixels: int
    share: float  # 0..1


@dataclass(frozen=True)
class SegmentResult:
    """A label map and its legend."""

    picture: Picture
    areas: tuple[RegionArea, ...]
    overlay_picture: Picture | None
    models: tuple[ModelVersion, ...]
    timings: Mapping[str, float]

    @property
    def image(self) -> PilImage.Image:
        """The label map: mode L, each sample a class's index."""
        return self.picture.pil

    @property
    def overlay(self) -> PilImage.Image | None:
        """The classes painted over the image, where asked for."""
        return self.overlay_picture.pil if self.overlay_picture else None

    def mask(self, *names: str) -> PilImage.Image:
        """A mask (mode L, 255 inside) of the named classes, ready to be used as a region.

        Raises:
            KeyError: for a name that the segmenter does not have.
        """
        index_of = {area.name: area.index for area in self.areas}
        unknown = [name for name in names if name not in index_of]
        if unknown:
            raise KeyError(f"no class {', '.join(unknown)}; there are {', '.join(index_of)}")
        wanted = {index_of[name] for name in names}
        return self.image.point([255 if value in wanted else 0 for value in range(256)])


@dataclass(frozen=True)
class Figure:
    """One measured quality of a network or a direction."""

    name: str
    value: float
    unit: str
    measured_on: str


@dataclass(frozen=True)
class ModelInfo:
    """One network of the server's bundle."""

    name: str
    version: str
    role: str  # "synthesis", "segmenter", …
    description: str
    ready: bool
    provider: str
    sha256: str
    license: str
    source: str
    labels: tuple[str, ...]
    parameters: int
    flops: int
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class GeneratorInfo:
    """The networks of one W+ generator and its sizes."""

    name: str
    synthesis: str
    mapping: str
    encoder: str
    num_ws: int
    w_dim: int
    resolution: int


@dataclass(frozen=True)
class Catalog:
    """The bundle as it is being served."""

    bundle_name: str
    bundle_version: str
    manifest_sha256: str
    server_version: str
    models: tuple[ModelInfo, ...]
    generators: tuple[GeneratorInfo, ...]


@dataclass(frozen=True)
class DirectionInfo:
    """One named direction of a generator."""

    name: str
    attribute: str
    description: str
    layers: tuple[int, int]  # [start, end)
    default_strength: float
    min_strength: float
    max_strength: float
    method: str
    regions: tuple[str, ...]
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class StyleInfo:
    """One style preset."""

    name: str
    description: str
    model: str


@dataclass(frozen=True)
class RegionClass:
    """One class of a segmenter, as regions use it."""

    index: int
    name: str


def edit_result(response: edit_pb2.EditImageResponse) -> EditResult:
    return EditResult(
        picture=from_proto(response.image),
        models=_versions(response.models),
        timings=_timings(response.timings),
        change=_change(response.change) if response.HasField("change") else None,
        latent_token=response.latent_token,
    )


def stylize_result(response: stylize_pb2.StylizeResponse) -> StylizeResult:
    return StylizeResult(
        picture=from_proto(response.image),
        models=_versions(response.models),
        timings=_timings(response.timings),
        change=_change(response.change) if response.HasField("change") else None,
        tiles=response.tiles,
    )


def encode_result(response: edit_pb2.EncodeResponse) -> EncodeResult:
    decoded = response.HasField("reconstruction")
    return EncodeResult(
        latent_token=response.latent_token,
        reconstruction=from_proto(response.reconstruction) if decoded else None,
        reconstruction_psnr_db=response.reconstruction_psnr_db if decoded else None,
        models=_versions(response.models),
        timings=_timings(response.timings),
    )


def segment_result(response: segment_pb2.SegmentResponse) -> SegmentResult:
    return SegmentResult(
        picture=from_proto(response.label_map),
        areas=tuple(RegionArea(a.index, a.name, a.pixels, a.share) for a in response.areas),
        overlay_picture=from_proto(response.overlay) if response.HasField("overlay") else None,
        models=_versions(response.models),
        timings=_timings(response.timings),
    )


def sample(response: generate_pb2.GenerateResponse) -> Sample:
    return Sample(
        picture=from_proto(response.image),
        models=_versions(response.models),
        index=response.index,
        seed=response.seed,
        latent_token=response.latent_token,
    )


def catalog(response: catalog_pb2.ListModelsResponse) -> Catalog:
    return Catalog(
        bundle_name=response.bundle_name,
        bundle_version=response.bundle_version,
        manifest_sha256=response.manifest_sha256,
        server_version=response.server_version,
        models=tuple(_model(m) for m in response.models),
        generators=tuple(
            GeneratorInfo(
                g.name, g.synthesis, g.mapping, g.encoder, g.num_ws, g.w_dim, g.resolution
            )
            for g in response.generators
        ),
    )


def directions(response: catalog_pb2.ListDirectionsResponse) -> tuple[DirectionInfo, ...]:
    return tuple(
        DirectionInfo(
            name=d.name,
            attribute=d.attribute,
            description=d.description,
            layers=(d.layer_start, d.layer_end),
            default_strength=d.default_strength,
            min_strength=d.min_strength,
            max_strength=d.max_strength,
            method=d.method,
            regions=tuple(d.regions),
            figures=_figures(d.figures),
        )
        for d in response.directions
    )


def styles(response: catalog_pb2.ListStylesResponse) -> tuple[StyleInfo, ...]:
    return tuple(StyleInfo(s.name, s.description, s.model) for s in response.styles)


def region_classes(response: catalog_pb2.ListRegionClassesResponse) -> tuple[RegionClass, ...]:
    return tuple(RegionClass(c.index, c.name) for c in response.classes)


def _model(info: catalog_pb2.ModelInfo) -> ModelInfo:
    entry = info.entry
    return ModelInfo(
        name=entry.name,
        version=entry.version,
        role=bundle_pb2.Role.Name(entry.role).removeprefix("ROLE_").lower(),
        description=entry.description,
        ready=info.ready,
        provider=info.provider,
        sha256=entry.sha256,
        license=entry.license,
        source=entry.source,
        labels=tuple(entry.labels),
        parameters=entry.parameters,
        flops=entry.flops,
        figures=_figures(entry.figures),
    )


def _figures(figures: Iterable[bundle_pb2.Figure]) -> tuple[Figure, ...]:
    return tuple(Figure(f.name, f.value, f.unit, f.measured_on) for f in figures)


def _versions(models: Iterable[image_pb2.ModelVersion]) -> tuple[ModelVersion, ...]:
    return tuple(ModelVersion(m.name, m.version, m.sha256) for m in models)


def _change(change: image_pb2.ChangeReport) -> ChangeReport:
    return ChangeReport(
        change.max_difference_outside, change.mean_difference_inside, change.region_share
    )


def _timings(timings: Iterable[image_pb2.Timing]) -> Mapping[str, float]:
    # A stage that ran more than once (two references to encode) counts as the sum.
    total: dict[str, float] = {}
    for timing in timings:
        total[timing.stage] = total.get(timing.stage, 0.0) + timing.milliseconds
    return MappingProxyType(total)
