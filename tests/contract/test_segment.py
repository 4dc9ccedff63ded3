"""SegmentService on a real server."""

from __future__ import annotations

import numpy as np
import pytest

from velatura.v1 import segment_pb2, segment_pb2_grpc

from ..running import opened, picture, png, samples

Stub = segment_pb2_grpc.SegmentServiceStub


@pytest.mark.parametrize("size", [(128, 128), (300, 200), (64, 250), (1, 1)])
def test_every_pixel_has_a_class_and_the_areas_add_up(
    segmenting: Stub, classes: list[str], size: tuple[int, int]
) -> None:
    answer = segmenting.Segment(segment_pb2.SegmentRequest(image=png(*size)))
    label_map = opened(answer.label_map)
    assert (label_map.size, label_map.mode, label_map.format) == (size, "L", "PNG")
    labels = np.asarray(label_map)
    assert [each.name for each in answer.areas] == classes
    assert [each.index for each in answer.areas] == list(range(len(classes)))
    counted = np.bincount(labels.ravel(), minlength=len(classes))
    assert [each.pixels for each in answer.areas] == counted.tolist()
    assert sum(each.share for each in answer.areas) == pytest.approx(1)
    assert not answer.HasField("overlay")
    assert [each.name for each in answer.models] == ["avatar-segmenter"]


def test_the_overlay_leaves_the_background_and_tints_the_rest(segmenting: Stub) -> None:
    request = segment_pb2.SegmentRequest(image=png(120, 90), with_overlay=True)
    answer = segmenting.Segment(request)
    labels = np.asarray(opened(answer.label_map))
    changed = (samples(answer.overlay) != np.asarray(picture(120, 90))).any(axis=2)
    assert opened(answer.overlay).size == (120, 90)
    assert not changed[labels == 0].any()
    if (labels > 0).any():
        assert changed[labels > 0].mean() > 0.9
