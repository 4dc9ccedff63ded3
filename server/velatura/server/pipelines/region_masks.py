"""From a region as asked for to a mask of one picture; the segmenter runs only where the region
needs it."""

from __future__ import annotations

from velatura.server.imaging import regions
from velatura.server.imaging.picture import U8, Picture
from velatura.server.imaging.regions import Mask, RegionSpec
from velatura.server.pipelines.errors import Unsupported
from velatura.server.pipelines.job import Job
from velatura.server.pipelines.segment import label_map
from velatura.v1.bundle_pb2 import ModelEntry


def check_region(region: RegionSpec | None, segmenter: ModelEntry | None, picture: Picture) -> None:
    """Refuse, before any network runs, a region that does not fit the picture, the classes or the
    bundle."""
    if segmenter is None and regions.needs_segmenter(region):
        raise Unsupported(
            "region",
            "the server's bundle has no segmenter for classes and clicks.",
            "Use a mask or a box.",
        )
    regions.check(region, picture.width, picture.height, _names(segmenter))


async def labels_for_region(
    job: Job, region: RegionSpec | None, segmenter: ModelEntry | None, picture: Picture
) -> U8 | None:
    """The label map that a checked region needs, uint8 [H, W]; None where it needs none."""
    if segmenter is None or not regions.needs_segmenter(region):
        return None
    return await label_map(job, picture, segmenter)


def mask_of(
    region: RegionSpec | None, segmenter: ModelEntry | None, picture: Picture, labels: U8 | None
) -> Mask:
    """The mask of a region, given the labels that `labels_for_region` found."""
    return regions.resolve(region, picture.width, picture.height, labels, _names(segmenter))


def _names(segmenter: ModelEntry | None) -> list[str]:
    return list(segmenter.labels) if segmenter is not None else []
