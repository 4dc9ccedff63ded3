"""Real graphs on onnxruntime: outputs by name, faults as DeviceFailed, warm-up and the sizes it
learns from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from velatura.server.engine.bundle import Bundle
from velatura.server.engine.errors import DeviceFailed, FailureKind
from velatura.server.engine.finite import is_finite
from velatura.server.engine.providers import CPU, Provider, ProviderPlan
from velatura.server.engine.sessions import OrtSession, session_options
from velatura.server.engine.warming import Sizes, item_work, sample_inputs, warm_up
from velatura.server.observability.metrics import Metrics

PLAN = ProviderPlan(Provider.CPU, True, [CPU])


@pytest.fixture
def bundle(bundle_root: Path) -> Bundle:
    return Bundle.load(bundle_root)


def open_session(bundle: Bundle, name: str) -> OrtSession:
    return OrtSession(bundle.model(name), bundle.model_file(name), PLAN, 1, Metrics())


def test_outputs_by_name(bundle: Bundle) -> None:
    session = open_session(bundle, "tiny-mapping")
    z = np.arange(8, dtype=np.float32).reshape(2, 4)
    outputs = session.run({"z": z, "truncation_psi": np.array([1.0, 0.5], np.float32)})
    assert list(outputs) == ["w"]
    np.testing.assert_array_equal(outputs["w"], z * [[1.0], [0.5]])
    assert session.provider == CPU


def test_overflow_is_a_failure_not_an_answer(bundle: Bundle) -> None:
    session = open_session(bundle, "tiny-mapping")
    huge = np.full((1, 4), 3e38, np.float32)
    with pytest.raises(DeviceFailed, match="'w' has NaN or infinity") as caught:
        session.run({"z": huge, "truncation_psi": np.array([10.0], np.float32)})
    assert caught.value.reason is FailureKind.NON_FINITE
    assert session.run(sample_inputs(bundle.model("tiny-mapping"), 1))["w"].shape == (1, 4)


def test_onnxruntime_error_is_wrapped(bundle: Bundle) -> None:
    session = open_session(bundle, "tiny-segmenter")
    with pytest.raises(DeviceFailed) as caught:
        session.run({"image": np.zeros((1, 3, 5, 5), np.float32)})
    assert caught.value.reason is FailureKind.EXECUTION
    assert caught.value.model == "tiny-segmenter"


class Broken:
    """An onnxruntime session that fails as CUDA's do."""

    def run(self, *_: Any) -> Any:
        raise RuntimeError("CUDNN failure 4: CUDNN_STATUS_INTERNAL_ERROR ; GPU=0")


def test_cuda_words_mean_a_lost_device(bundle: Bundle) -> None:
    session = open_session(bundle, "tiny-mapping")
    session._session = Broken()
    with pytest.raises(DeviceFailed) as caught:
        session.run(sample_inputs(bundle.model("tiny-mapping"), 1))
    assert caught.value.reason is FailureKind.DEVICE_LOST


def test_unloadable_file_is_wrapped(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"x")
    with pytest.raises(DeviceFailed):
        OrtSession(bundle.model("tiny-mapping"), tmp_path / "x.onnx", PLAN, 1, Metrics())


@pytest.mark.parametrize(("threads", "within_a_run"), [(1, "0"), (3, "1")])
def test_threads_do_not_spin_between_runs(bundle: Bundle, threads: int, within_a_run: str) -> None:
    options = session_options(bundle.model("tiny-segmenter"), threads)
    entry = options.get_session_config_entry
    assert entry("session.force_spinning_stop") == "1"
    assert entry("session.intra_op.allow_spinning") == within_a_run


def test_options(bundle: Bundle) -> None:
    options = session_options(bundle.model("tiny-segmenter"), 3)
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    assert options.enable_mem_pattern
    assert not session_options(bundle.model("tiny-presets"), 3).enable_mem_pattern


def test_samples_follow_the_manifest(bundle: Bundle) -> None:
    samples = sample_inputs(bundle.model("tiny-presets"), 2)
    assert samples["image"].shape == (2, 3, 128, 128)
    assert samples["image"].dtype == np.float32
    assert samples["image"].min() >= 0.0
    assert samples["image"].max() <= 1.0
    again = sample_inputs(bundle.model("tiny-presets"), 2)
    np.testing.assert_array_equal(samples["image"], again["image"])


def test_work_follows_the_pixels(bundle: Bundle) -> None:
    shapes = {"image": (3, 3, 256, 128), "style_weights": (3, 2)}
    assert item_work(bundle.model("tiny-presets"), shapes) == 2.0
    assert item_work(bundle.model("tiny-segmenter"), {"image": (5, 3, 8, 8)}) == 1.0


@pytest.mark.parametrize(("largest", "sizes"), [(1, [1]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_warm_up_visits_the_sizes(bundle: Bundle, largest: int, sizes: list[int]) -> None:
    entry = bundle.model("tiny-mapping")
    timings = warm_up(open_session(bundle, "tiny-mapping"), entry, Sizes(largest))
    assert [work for work, _ in timings] == sizes
    assert all(seconds > 0.0 for _, seconds in timings)


def test_a_large_picture_runs_with_its_memory_given_back(bundle: Bundle) -> None:
    session = open_session(bundle, "tiny-presets")
    image = np.full((1, 3, 1200, 1200), 0.5, np.float32)
    outputs = session.run({"image": image, "style_weights": np.array([[1.0, 0.0]], np.float32)})
    np.testing.assert_array_equal(outputs["image_out"], image)


@pytest.mark.parametrize(
    ("array", "finite"),
    [
        (np.array([1.0, np.nan]), False),
        (np.array([np.inf, -np.inf], np.float32), False),
        (np.full(1000, 3e38, np.float32), True),  # the sum overflows, the numbers do not
        (np.full(1000, 6e4, np.float16), True),
        (np.full(10, 1e308), True),
        (np.arange(4), True),
        (np.zeros((0, 3), np.float32), True),
    ],
)
def test_is_finite(array: Any, finite: bool) -> None:
    assert is_finite(array) is finite
