"""OpenVINO: its options, what happens where it or bfloat16 is missing, and the plugin itself on
small graphs, from two threads at a time.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from velatura.server.engine import openvino, providers
from velatura.server.engine.bundle import Bundle
from velatura.server.engine.engine import LocalEngine
from velatura.server.engine.errors import ProviderError
from velatura.server.engine.loading import Loader
from velatura.server.engine.openvino import (
    OPENVINO,
    NoOpenvino,
    OpenvinoOptions,
    Precision,
    cpu_device,
    used_providers,
)
from velatura.server.engine.options import EngineOptions
from velatura.server.engine.providers import CPU, Provider, ProviderPlan, confirm_provider
from velatura.server.engine.providers import plan_providers as plan_all
from velatura.server.engine.sessions import OrtSession
from velatura.server.engine.warming import Sizes, sample_inputs
from velatura.server.observability.metrics import Metrics
from velatura.server.settings import default_bundle
from velatura.v1.bundle_pb2 import ModelEntry, Role

from ...openvino_cpu import openvino_cpu

ON_CPU = ProviderPlan(Provider.CPU, True, [CPU])
SIZES = Sizes(2)


def plan_for(
    precision: Precision = Precision.F32, *, strict: bool = True, instances: int = 0
) -> ProviderPlan:
    options = OpenvinoOptions(precision, instances)
    return ProviderPlan(Provider.OPENVINO, strict, [OPENVINO, CPU], openvino=options)


def plan_providers(precision: Precision, strict: bool, metrics: Metrics) -> ProviderPlan:
    options = OpenvinoOptions(precision)
    return plan_all(Provider.OPENVINO, strict=strict, metrics=metrics, openvino=options)


def fallbacks(metrics: Metrics, reason: str) -> float:
    labels = {"requested": "openvino", "reason": reason}
    return metrics.registry.get_sample_value("velatura_provider_fallback_total", labels) or 0.0


def device(capabilities: str = "FP32 INT8 BIN", **metadata: str) -> Any:
    found = {"ov_device": "CPU", "OPTIMIZATION_CAPABILITIES": capabilities} | metadata
    return SimpleNamespace(ep_name=OPENVINO, ep_metadata=found)


@pytest.fixture
def unregistered(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not asked for OpenVINO yet."""
    monkeypatch.setattr(openvino, "_registered", set())


@pytest.fixture
def plugin() -> Any:
    """OpenVINO's CPU, where the plugin is installed."""
    return openvino_cpu()


@pytest.fixture
def bf16(plugin: Any) -> None:
    openvino_cpu(Precision.BF16)


@pytest.fixture
def bundle(bundle_root: Path) -> Bundle:
    return Bundle.load(bundle_root)


@pytest.mark.parametrize(
    ("threads", "instances", "streams"), [(1, 0, 4), (4, 0, 1), (3, 0, 1), (8, 0, 1), (2, 3, 3)]
)
def test_a_session_has_a_stream_for_each_run_beside_another(
    monkeypatch: pytest.MonkeyPatch, threads: int, instances: int, streams: int
) -> None:
    monkeypatch.setattr(openvino, "cpu_budget", lambda: 4)
    options = OpenvinoOptions(Precision.BF16, instances)
    assert json.loads(options.load_config(threads)) == {
        "CPU": {
            "INFERENCE_PRECISION_HINT": "bf16",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams * threads,
            "ENABLE_CPU_PINNING": False,
            "ENABLE_HYPER_THREADING": True,
            "CPU_RUNTIME_CACHE_CAPACITY": 256,
        }
    }


def test_the_operators_words_reach_openvino() -> None:
    options = EngineOptions(openvino_precision=Precision.BF16, instances=3)
    assert options.openvino() == OpenvinoOptions(Precision.BF16, 3)
    assert EngineOptions().openvino().precision is Precision.F32  # exact unless asked


def test_it_counts_as_the_cpu() -> None:
    plan = plan_for()
    assert plan.wanted == OPENVINO
    assert not plan.wants_gpu
    assert plan.on_cpu() == ProviderPlan(Provider.OPENVINO, True, [CPU])
    found = ProviderPlan(Provider.OPENVINO, True, [CPU])
    assert not found.wants_gpu


def test_latents_are_mapped_in_float32() -> None:
    plan = plan_for(Precision.BF16)
    mapped = plan.fitted(ModelEntry(role=Role.ROLE_MAPPING), SIZES)
    assert mapped == plan_for(Precision.F32)
    assert plan.fitted(ModelEntry(role=Role.ROLE_SYNTHESIS), SIZES) is plan


def test_without_the_plugin(
    unregistered: None,
    metrics: Metrics,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    real = importlib.import_module

    def missing(name: str) -> Any:
        if name == "onnxruntime_ep_openvino":
            raise ModuleNotFoundError(name)
        return real(name)

    monkeypatch.setattr(openvino.importlib, "import_module", missing)
    with pytest.raises(ProviderError, match=r'pip install "velatura-server\[cpu,openvino\]"'):
        plan_providers(Precision.F32, True, metrics)
    assert fallbacks(metrics, "no_openvino") == 0
    plan = plan_providers(Precision.F32, False, metrics)
    assert (plan.providers, plan.openvino) == ([CPU], None)
    assert fallbacks(metrics, "no_openvino") == 1
    assert caplog.records[-1].levelno == logging.WARNING
    assert "pip install" in caplog.records[-1].getMessage()


def test_a_plugin_that_does_not_load(
    unregistered: None, metrics: Metrics, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "plugin.so"
    broken.write_bytes(b"no library")
    module = SimpleNamespace(get_library_path=lambda: str(broken))
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", module)
    with pytest.raises(ProviderError, match=r"does not load .* --upgrade"):
        plan_providers(Precision.F32, True, metrics)
    assert plan_providers(Precision.F32, False, metrics).providers == [CPU]
    assert fallbacks(metrics, "openvino_failed") == 1


def test_an_onnxruntime_that_takes_no_plugins(unregistered: None) -> None:
    with pytest.raises(NoOpenvino, match=r"onnxruntime 1\.21 takes no plugins") as caught:
        cpu_device(SimpleNamespace(__version__="1.21"))
    assert not caught.value.installed


def test_a_machine_whose_cpu_openvino_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "_registered", {openvino._NAME})
    others = [device(ov_device="GPU"), SimpleNamespace(ep_name=CPU, ep_metadata={})]
    ort = SimpleNamespace(get_ep_devices=lambda: others)
    with pytest.raises(NoOpenvino, match="knows no CPU") as caught:
        cpu_device(ort)
    assert caught.value.installed
    others.append(device())
    assert cpu_device(ort) is others[-1]


def test_a_cpu_without_bfloat16(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(providers, "cpu_device", lambda _: device("FP32 XBF16 INT8"))
    with pytest.raises(ProviderError, match="--openvino-precision f32"):
        plan_providers(Precision.BF16, True, metrics)
    plan = plan_providers(Precision.BF16, False, metrics)
    assert plan == plan_for(Precision.F32, strict=False)
    assert fallbacks(metrics, "no_bf16") == 1
    assert "running on OpenVINOExecutionProvider in f32 (no_bf16)" in caplog.text
    assert plan_providers(Precision.F32, True, metrics) == plan_for(Precision.F32)
    monkeypatch.setattr(providers, "cpu_device", lambda _: device("BF16 FP32"))
    assert plan_providers(Precision.BF16, True, metrics) == plan_for(Precision.BF16)


def test_nobody_gets_it_unasked(metrics: Metrics, plugin: Any) -> None:
    plan = plan_all(Provider.AUTO, strict=True, metrics=metrics, available=[CPU])
    assert plan.providers == [CPU]


def test_the_provider_is_the_one_that_runs_nodes(metrics: Metrics) -> None:
    def session(*running: str) -> Any:
        parts = [SimpleNamespace(ep_name=name) for name in running]
        return SimpleNamespace(
            get_providers=lambda: [OPENVINO, CPU],
            get_provider_graph_assignment_info=lambda: parts,
        )

    assert used_providers(session(CPU, OPENVINO)) == [OPENVINO, CPU]
    assert used_providers(session(CPU)) == [CPU]
    assert used_providers(session()) == [OPENVINO, CPU]
    assert used_providers(SimpleNamespace(get_providers=lambda: [OPENVINO])) == [OPENVINO]
    with pytest.raises(ProviderError, match="should run on OpenVINOExecutionProvider"):
        confirm_provider(plan_for(), [CPU], "m", metrics)
    assert confirm_provider(plan_for(strict=False), [CPU], "m", metrics) == CPU
    assert fallbacks(metrics, "openvino_failed") == 1


def test_small_graphs_give_what_onnxruntime_gives(bundle: Bundle, plugin: Any) -> None:
    for entry in bundle.manifest.models:
        file = bundle.model_file(entry.name)
        ours = OrtSession(entry, file, plan_for(), 1, Metrics())
        assert ours.provider == OPENVINO
        plain = OrtSession(entry, file, ON_CPU, 1, Metrics())
        for batch, side in ((3, 64), (1, 100), (3, 64)):
            inputs = sample_inputs(entry, batch, side)
            expected = plain.run(inputs)
            for name, array in ours.run(inputs).items():
                assert array.shape == expected[name].shape
                np.testing.assert_allclose(array, expected[name], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("side", "aside"), [(800, False), (820, True), (1200, True)])
def test_large_pictures_run_beside_openvino(
    bundle: Bundle, plugin: Any, side: int, aside: bool
) -> None:
    """It would keep their activations for ever."""
    entry = bundle.model("tiny-presets")
    session = OrtSession(entry, bundle.model_file(entry.name), plan_for(), 1, Metrics())
    inputs = sample_inputs(entry, 1, side)
    factor = inputs["style_weights"].sum()
    np.testing.assert_allclose(session.run(inputs)["image_out"], inputs["image"] * factor, 1e-5)
    assert (session._aside is not None) == aside
    if session._aside is not None:
        assert session._aside.provider == CPU


def test_items_of_a_batch_run_one_after_the_other(bundle: Bundle, plugin: Any) -> None:
    entry = bundle.model("tiny-presets")
    session = OrtSession(entry, bundle.model_file(entry.name), plan_for(), 1, Metrics())
    real, sizes = session._session, []

    def run(names: list[str], inputs: Any, options: Any) -> Any:
        sizes.append(len(inputs["image"]))
        return real.run(names, inputs, options)

    session._session = SimpleNamespace(run=run)
    inputs = sample_inputs(entry, 3, 640)  # the batch, not an item, is over the limit
    weights = inputs["style_weights"].sum(axis=1)[:, None, None, None]
    np.testing.assert_allclose(session.run(inputs)["image_out"], inputs["image"] * weights, 1e-5)
    assert sizes == [1, 1, 1]
    assert session._aside is None


@pytest.mark.parametrize("name", ["avatar-synthesis", "style-presets"])
def test_runs_of_one_session_from_two_threads_keep_apart(name: str, plugin: Any) -> None:
    """Of several sizes at once, so that kernels are made while others run."""
    embedded = Bundle.load(default_bundle())
    entry, file = embedded.model(name), embedded.model_file(name)
    session = OrtSession(entry, file, plan_for(instances=2), 1, Metrics())
    cases = [
        {key: array + np.float32(0.01 * number) for key, array in inputs.items()}
        for number, (batch, side) in enumerate([(1, 64), (2, 96), (3, 64), (1, 80)])
        for inputs in [sample_inputs(entry, batch, side)]
    ]
    expected = [session.run(inputs) for inputs in cases]
    wrong: list[float] = []

    def repeat(first: int) -> None:
        for turn in range(8):
            which = (first + turn) % len(cases)
            for key, array in session.run(cases[which]).items():
                wrong.append(float(np.abs(array - expected[which][key]).max()))

    threads = [threading.Thread(target=repeat, args=(first,)) for first in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 16
    assert max(wrong) < 1e-5


async def test_the_engine_says_what_it_runs_on(bundle: Bundle, plugin: Any) -> None:
    metrics = Metrics()
    options = EngineOptions(provider=Provider.OPENVINO, strict=True)
    engine = LocalEngine(bundle, options, metrics)
    await engine.start()
    assert engine.provider("tiny-segmenter") == OPENVINO
    lanes = engine.batcher("tiny-segmenter").lanes
    assert lanes.narrow.name == "narrow"
    assert lanes.narrow.threads == 1
    labels = {"requested": "openvino", "provider": OPENVINO}
    labels["onnxruntime_version"] = onnxruntime.__version__
    assert metrics.registry.get_sample_value("velatura_provider_info", labels) == 4
    image = np.random.default_rng(1).uniform(-1, 1, (2, 3, 8, 8)).astype(np.float32)
    assert (await engine.run("tiny-segmenter", {"image": image}))["logits"].shape == (2, 3, 8, 8)
    await engine.close()


def test_a_network_that_bfloat16_ruins_keeps_float32(
    bf16: None, caplog: pytest.LogCaptureFixture
) -> None:
    """The embedded mapping subtracts large numbers; as a network without a role nobody knows."""
    embedded = Bundle.load(default_bundle())
    mapping = embedded.model("avatar-mapping")
    mapping.role = Role.ROLE_UNSPECIFIED
    metrics = Metrics()
    options = EngineOptions(provider=Provider.OPENVINO, intra_threads=1)
    loader = Loader(embedded, options, plan_for(Precision.BF16), metrics, OrtSession)
    with caplog.at_level(logging.INFO):
        opened = loader._told(loader._open_fixed(mapping))
    assert opened.provider == OPENVINO
    assert fallbacks(metrics, "bf16_inexact") == 1
    assert "avatar-mapping: ready on OpenVINOExecutionProvider in f32" in caplog.text
