"""Tensors that do not fit the manifest are refused with what was expected and what came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from velatura.server.engine.bundle import Bundle
from velatura.server.engine.errors import InvalidTensor
from velatura.server.engine.validation import check_finite, check_inputs, describe
from velatura.v1.bundle_pb2 import ModelEntry


@pytest.fixture
def entry(bundle_root: Path) -> ModelEntry:
    return Bundle.load(bundle_root, check_graphs=False).model("tiny-presets")


def inputs(**changed: Any) -> dict[str, Any]:
    good = {
        "image": np.zeros((2, 3, 8, 12), np.float32),
        "style_weights": np.zeros((2, 2), np.float32),
    }
    return {name: value for name, value in (good | changed).items() if value is not None}


def test_good_arrays_are_handed_on_uncopied(entry: ModelEntry) -> None:
    good = inputs()
    checked = check_inputs(entry, good)
    assert all(checked[name] is good[name] for name in good)


def test_strided_arrays_become_contiguous(entry: ModelEntry) -> None:
    hwc = np.random.default_rng(0).random((2, 8, 12, 3), np.float32)
    checked = check_inputs(entry, inputs(image=hwc.transpose(0, 3, 1, 2)))
    assert checked["image"].flags.c_contiguous
    np.testing.assert_array_equal(checked["image"][0, 1], hwc[0, ..., 1])


@pytest.mark.parametrize(
    ("changed", "name", "words"),
    [
        ({"image": None}, "image", "got nothing"),
        ({"picture": np.zeros(1)}, "picture", "expected one of image, style_weights"),
        ({"image": np.zeros((2, 3, 8, 12))}, "image", "got float64 [2, 3, 8, 12]"),
        ({"image": np.zeros((2, 3, 8, 12), ">f4")}, "image", "got >f4"),
        ({"image": np.zeros((3, 8, 12), np.float32)}, "image", "got float32 [3, 8, 12]"),
        ({"image": np.zeros((2, 4, 8, 12), np.float32)}, "image", "expected float32 [N, 3, *, *]"),
        ({"image": np.zeros((2, 3, 8, 10), np.float32)}, "image", "multiples of 4"),
        ({"image": np.zeros((2, 3, 0, 8), np.float32)}, "image", "got float32 [2, 3, 0, 8]"),
        ({"image": np.zeros((0, 3, 8, 8), np.float32)}, "image", "got float32 [0, 3, 8, 8]"),
        ({"image": [1.0]}, "image", "got list"),
        (
            {"style_weights": np.zeros((3, 2), np.float32)},
            "style_weights",
            "expected 2 items, as in 'image', got 3 items",
        ),
    ],
)
def test_misfit_names_the_tensor(
    entry: ModelEntry, changed: dict[str, Any], name: str, words: str
) -> None:
    with pytest.raises(InvalidTensor) as caught:
        check_inputs(entry, inputs(**changed))
    assert (caught.value.model, caught.value.input) == ("tiny-presets", name)
    assert words in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_must_be_finite(entry: ModelEntry, bad: float) -> None:
    arrays = inputs()
    check_finite(entry, arrays)
    arrays["image"][1, 2, 3, 4] = bad
    with pytest.raises(InvalidTensor, match=r"'image'.*expected finite numbers"):
        check_finite(entry, arrays)


def test_describe(entry: ModelEntry) -> None:
    assert describe(entry.inputs[1]) == "float32 [N, 2]"
    assert describe(entry.inputs[0]) == "float32 [N, 3, *, *] (free extents in multiples of 4)"
