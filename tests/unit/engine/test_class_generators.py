"""What a bundle must say of a class-conditional generator."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from velatura.server.engine.errors import BundleError
from velatura.server.engine.manifest_check import check_manifest
from velatura.v1.bundle_pb2 import BundleManifest, ModelEntry, Role, TensorSpec

Change = Callable[[ModelEntry], object]


def manifest(change: Change = lambda _: None) -> BundleManifest:
    entry = ModelEntry(
        name="shapes",
        role=Role.ROLE_CLASS_GENERATOR,
        file="shapes.onnx",
        sha256="0" * 64,
        labels=["circle", "star"],
        inputs=[
            TensorSpec(name="z", dtype="float32", shape=[-1, 4]),
            TensorSpec(name="class_weights", dtype="float32", shape=[-1, 2]),
        ],
        outputs=[TensorSpec(name="image", dtype="float32", shape=[-1, 3, 8, 8])],
    )
    change(entry)
    return BundleManifest(schema_version=1, name="test", models=[entry])


def set_shape(kind: str, index: int, shape: list[int]) -> Change:
    def change(entry: ModelEntry) -> None:
        getattr(entry, kind)[index].shape[:] = shape

    return change


def test_one_that_fits_is_accepted() -> None:
    check_manifest(manifest(), "manifest.json")


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        (lambda entry: entry.labels.append("square"), ".labels", "one name a class"),
        (lambda entry: entry.labels.__setitem__(1, "circle"), ".labels", "every name once"),
        (set_shape("inputs", 1, [-1, -1]), ".labels", "one name a class"),
        (set_shape("inputs", 0, [-1, -1]), ".z.shape", "dimensions of z"),
        (set_shape("inputs", 0, [-1, 4, 1]), ".z.shape", "dimensions of z"),
        (set_shape("outputs", 0, [-1, 3, -1, 8]), ".image.shape", "height, width"),
        (set_shape("outputs", 0, [-1, 4, 8, 8]), ".image.shape", "height, width"),
        (set_shape("outputs", 0, [-1, 3, 8]), ".image.shape", "height, width"),
    ],
)
def test_one_that_does_not_is_refused_by_field(change: Change, field: str, expected: str) -> None:
    with pytest.raises(BundleError) as caught:
        check_manifest(manifest(change), "manifest.json")
    assert f"models[0] (shapes){field}" in str(caught.value)
    assert expected in str(caught.value)
