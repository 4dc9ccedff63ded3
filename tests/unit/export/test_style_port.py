"""The style networks compute what the package's graphs do, at any size and batch."""

from __future__ import annotations

import re

import numpy as np
import pytest

from velatura.export.specification import NetworkSpec
from velatura.export.style_networks import style_entries, style_specs

SPECS = {spec.name: spec for spec in style_specs()}


@pytest.fixture(params=sorted(SPECS))
def spec(request: pytest.FixtureRequest) -> NetworkSpec:
    return SPECS[request.param]


def test_parity_with_the_package_graph(spec: NetworkSpec) -> None:
    for reference in spec.references:
        (size, *_) = reference.sizes
        inputs = reference.inputs(1, size) if reference.inputs else spec.sample(1, size, seed=7)
        expected, actual = reference.run(inputs), spec.run_torch(inputs)
        for name, value in expected.items():
            error = np.abs(actual[name] - value).max()
            assert error <= reference.tolerance * max(1, np.abs(value).max()), reference.name


def test_one_reference_of_each_network_is_exact(spec: NetworkSpec) -> None:
    assert min(reference.tolerance for reference in spec.references) <= 1e-4


def test_a_batch_equals_its_items_alone(spec: NetworkSpec) -> None:
    inputs = spec.sample(3, (61, 50), seed=3)
    together = spec.run_torch(inputs)
    for i in range(3):
        alone = spec.run_torch({name: value[i : i + 1] for name, value in inputs.items()})
        for name, value in alone.items():
            np.testing.assert_allclose(together[name][i : i + 1], value, atol=2e-5)


@pytest.mark.parametrize("size", [(16, 16), (33, 64), (47, 18)])
def test_pictures_keep_their_size_and_range(size: tuple[int, int]) -> None:
    for name in ("style-transformer", "style-presets"):
        spec = SPECS[name]
        out = spec.run_torch(spec.sample(2, size))["image_out"]
        assert out.shape == (2, 3, *size)
        assert out.min() >= 0
        assert out.max() <= 1


def test_presets_are_named_once_each_and_differ() -> None:
    entries = style_entries()
    assert [entry.index for entry in entries] == list(range(26))
    assert len({entry.name for entry in entries}) == 26
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)+", entry.name) for entry in entries)
    assert all(entry.description.endswith(".") for entry in entries)
    spec = SPECS["style-presets"]
    picture = spec.sample(1, (32, 32))["image"]
    out = spec.run_torch(
        {"image": np.repeat(picture, 26, axis=0), "style_weights": np.eye(26, dtype=np.float32)}
    )["image_out"]
    flat = out.reshape(26, -1)
    distance = np.abs(flat[:, None] - flat[None]).mean(axis=2) + np.eye(26)
    assert distance.min() > 0.01
