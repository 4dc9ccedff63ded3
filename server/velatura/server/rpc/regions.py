"""Regions and frames between the wire and the domain."""

from __future__ import annotations

from velatura.server.imaging.frames import Frame
from velatura.server.imaging.picture import Picture
from velatura.server.imaging.regions import (
    BoxPart,
    ClassPart,
    ClickPart,
    MaskPart,
    RegionPart,
    RegionSpec,
)
from velatura.server.pipelines.errors import InvalidRequest
from velatura.server.pipelines.job import Job
from velatura.server.pipelines.workers import every
from velatura.server.rpc.backend import Backend
from velatura.server.rpc.images import read_image
from velatura.v1 import region_pb2


async def read_region(
    job: Job, backend: Backend, region: region_pb2.Region | None, field: str = "region"
) -> RegionSpec | None:
    """The region of a message, its masks decoded side by side; None where there is none."""
    if region is None:
        return None
    parts = await every(
        [
            _part(job, backend, part, f"{field}.parts[{index}]")
            for index, part in enumerate(region.parts)
        ]
    )
    return RegionSpec(tuple(parts), region.grow_px, region.feather_px, region.invert)


async def _part(job: Job, backend: Backend, part: region_pb2.RegionPart, field: str) -> RegionPart:
    match part.WhichOneof("shape"):
        case "class_name":
            return ClassPart(part.class_name, part.subtract)
        case "mask":
            mask = await read_image(job, backend, part.mask, f"{field}.mask")
            # A grey image has three equal channels; of a coloured one the green is nearest to its
            # brightness.
            return MaskPart(mask.rgb[..., 1], part.subtract)
        case "box":
            box = part.box
            return BoxPart(box.x, box.y, box.width, box.height, part.subtract)
        case _:
            return ClickPart(part.click.x, part.click.y, part.subtract)


def read_frame(box: region_pb2.Box, picture: Picture, field: str = "frame") -> Frame:
    """The square of a picture that the generator sees; raises `InvalidRequest` unless square and
    inside."""
    if box.width != box.height:
        raise InvalidRequest.of(
            field, f"{box.width}×{box.height} is not square. Give equal width and height."
        )
    inside = (
        box.x >= 0
        and box.y >= 0
        and box.x + box.width <= picture.width
        and box.y + box.height <= picture.height
    )
    if not inside:
        raise InvalidRequest.of(
            field,
            f"the square x={box.x}, y={box.y}, {box.width} px reaches outside the image of "
            f"{picture.width}×{picture.height}. Keep it inside.",
        )
    return Frame(box.x, box.y, box.width)
