"""Which lane runs an item, and in which company, must not show in its answer: caches rest on it,
and the promise that a request repeated gives the same image.
"""

from __future__ import annotations

import numpy as np
import pytest

from velatura.server.engine.bundle import Bundle
from velatura.server.engine.openvino import OPENVINO, OpenvinoOptions, Precision
from velatura.server.engine.providers import CPU, Provider, ProviderPlan
from velatura.server.engine.sessions import OrtSession
from velatura.server.engine.warming import sample_inputs
from velatura.server.observability.metrics import Metrics
from velatura.server.settings import default_bundle

from ...openvino_cpu import openvino_cpu


@pytest.fixture(params=["cpu", *Precision])
def plan(request: pytest.FixtureRequest) -> ProviderPlan:
    """onnxruntime's own kernels, and OpenVINO's in each precision where they can be had."""
    if request.param == "cpu":
        return ProviderPlan(Provider.CPU, True, [CPU])
    openvino_cpu(request.param)
    options = OpenvinoOptions(request.param)
    return ProviderPlan(Provider.OPENVINO, True, [OPENVINO, CPU], openvino=options)


@pytest.mark.parametrize("name", ["avatar-synthesis", "avatar-encoder", "avatar-segmenter"])
def test_threads_and_company_do_not_change_a_bit(name: str, plan: ProviderPlan) -> None:
    bundle = Bundle.load(default_bundle())
    entry, file = bundle.model(name), bundle.model_file(name)
    inputs = sample_inputs(entry, 3)
    alone = {key: array[:1] for key, array in inputs.items()}
    narrow, wide = (OrtSession(entry, file, plan, threads, Metrics()) for threads in (1, 2))
    expected = narrow.run(inputs)
    for key, array in wide.run(inputs).items():
        np.testing.assert_array_equal(array, expected[key])
    for key, array in wide.run(alone).items():
        np.testing.assert_array_equal(array, expected[key][:1])
