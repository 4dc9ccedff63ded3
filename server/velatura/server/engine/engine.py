"""The engine: runs any network of a bundle by name. Pipelines know only the `Engine` protocol."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from numpy.typing import NDArray

from velatura.server.engine.batcher import Batcher
from velatura.server.engine.bundle import Bundle
from velatura.server.engine.errors import (
    DeadlineExceeded,
    DeviceFailed,
    Draining,
    InvalidTensor,
    QueueFull,
)
from velatura.server.engine.gate import Backlog, Gate
from velatura.server.engine.health import ModelHealth
from velatura.server.engine.lateness import Lateness
from velatura.server.engine.loading import Loader, Opened
from velatura.server.engine.options import EngineOptions
from velatura.server.engine.promise import (
    ALONE,
    Expected,
    Pixels,
    Promise,
    Stages,
    current_promise,
)
from velatura.server.engine.providers import ProviderPlan, load_onnxruntime, plan_providers
from velatura.server.engine.sessions import OrtSession, SessionFactory, Tensors
from velatura.server.engine.validation import check_finite, check_inputs
from velatura.server.engine.warming import item_work, sample_inputs
from velatura.server.observability.metrics import Metrics
from velatura.v1.bundle_pb2 import ModelEntry, Role

__all__ = ["SHOWN_HASH", "Engine", "EngineOptions", "LocalEngine"]

# Looking at every number of larger inputs (a 0.3-megapixel picture) happens on a thread.
CHECK_ON_THREAD_BYTES = 4 * 1024 * 1024
# Characters of a hash that metrics show: enough to tell, short enough to read.
SHOWN_HASH = 12

_OUTCOMES: dict[type[BaseException], str] = {
    InvalidTensor: "invalid",
    QueueFull: "refused",
    DeadlineExceeded: "expired",
    Draining: "refused",
    DeviceFailed: "device",
    asyncio.CancelledError: "cancelled",
}


class Engine(Protocol):
    """Runs networks. Everything that pipelines need; where the networks live is the engine's
    business.
    """

    @property
    def bundle(self) -> Bundle:
        """What can be run."""

    async def run(
        self, model: str, inputs: Mapping[str, NDArray[Any]], *, deadline: float | None = None
    ) -> dict[str, NDArray[Any]]:
        """Outputs of `model` by name; every array leads with the batch axis of n >= 1 items.

        `inputs` must not change until the answer. `deadline` is absolute, on time.monotonic()'s
        clock. Raises ModelNotFound, InvalidTensor, QueueFull, DeadlineExceeded (before dispatch),
        Draining or DeviceFailed. Cancelling the awaiting task drops the items that are not yet on
        the device and never hurts batch-mates.
        """

    def ready(self, model: str) -> bool:
        """Whether `model` takes requests; False for unknown names."""

    def provider(self, model: str) -> str:
        """Execution provider that really runs `model`, "" before the start, or ModelNotFound."""

    @property
    def leaves_cpus(self) -> bool:
        """Whether what is done on another thread is done beside the networks: they run, and leave
        CPUs free or need none.
        """

    def reserve(
        self, stages: Stages, deadline: float | None, *, nbytes: int = 0, admit: bool = True
    ) -> Promise:
        """A call's stages count as work that waits, until whoever asked releases the promise; and
        so does what calls with the same last networks, and pictures of about as many bytes, were
        seen to do besides.

        With `admit` the call is let in by that, before anything is spent on it, or QueueFull is
        raised where it would miss the deadline; without, the first network that it asks decides.
        """

    def promise(
        self, stages: Stages, reserved: Promise | None = None
    ) -> AbstractContextManager[None]:
        """For the time of a call: what it will ask of later networks counts as work that waits,
        and is kept free of its deadline. Without it every `run` stands for itself. What has been
        `reserved` for the call is not asked for again, and not released here.
        """

    async def start(self) -> None:
        """Load and warm up every network; raises ProviderError or DeviceFailed."""

    async def drain(self, timeout_s: float) -> None:
        """Take no new requests and finish the accepted ones, at most `timeout_s` seconds."""

    async def close(self) -> None:
        """Fail what is left and let go of the networks."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    entry: ModelEntry
    provider: str
    batcher: Batcher
    health: ModelHealth


class LocalEngine:
    """The engine on onnxruntime in this process; use it on one event loop."""

    def __init__(
        self,
        bundle: Bundle,
        options: EngineOptions,
        metrics: Metrics,
        *,
        open_session: SessionFactory = OrtSession,
    ) -> None:
        self._bundle = bundle
        self._options = options
        self._metrics = metrics
        self._open_session = open_session
        self._loaded: dict[str, _Loaded] = {}
        self._gate = Gate()
        self._pixels: defaultdict[tuple[tuple[str, ...], int], Pixels] = defaultdict(Pixels)
        self._started = False
        self._draining = False
        for entry in bundle.manifest.models:
            gauge = metrics.for_model(entry.name).ready
            gauge.set_function(partial(self.ready, entry.name))

    @property
    def bundle(self) -> Bundle:
        """What can be run."""
        return self._bundle

    def ready(self, model: str) -> bool:
        """Started, not draining, healthy, and no run of `model` hangs; asked at every scrape, from
        any thread.
        """
        loaded = self._loaded.get(model)
        return (
            loaded is not None
            and self._started
            and not self._draining
            and loaded.health.healthy
            and loaded.batcher.longest_run_s() < self._options.stall_timeout_s
        )

    def provider(self, model: str) -> str:
        """Execution provider that really runs `model`, "" before the start, or ModelNotFound."""
        self._bundle.model(model)
        loaded = self._loaded.get(model)
        return loaded.provider if loaded else ""

    @property
    def leaves_cpus(self) -> bool:
        """See `Engine.leaves_cpus`."""
        return self._gate.leaves_cpus

    def batcher(self, model: str) -> Batcher:
        """The scheduler of `model`, for tests and diagnosis; raises ModelNotFound, or Draining
        before the start.
        """
        entry = self._bundle.model(model)
        if entry.name not in self._loaded:
            raise Draining("the server has not loaded its networks yet")
        return self._loaded[entry.name].batcher

    async def start(self) -> None:
        """Load and warm up every network; raises ProviderError or DeviceFailed."""
        options = self._options
        plan = plan_providers(
            options.provider,
            strict=options.strict,
            metrics=self._metrics,
            gpu_mem_limit=options.gpu_mem_limit,
            cuda_graphs=options.cuda_graphs,
            tensorrt=options.tensorrt(),
            openvino=options.openvino(),
        )
        loader = Loader(self._bundle, options, plan, self._metrics, self._open_session)
        self._gate = Gate(loader.gate_cpus)
        backlog = Backlog(options.max_backlog_bytes, options.max_backlog_pixels)
        for opened in await asyncio.to_thread(loader.open_all):
            self._loaded[opened.entry.name] = self._scheduled(opened, backlog)
        self._publish(plan)
        self._started = True

    def reserve(
        self, stages: Stages, deadline: float | None, *, nbytes: int = 0, admit: bool = True
    ) -> Promise:
        """See `Engine.reserve`."""
        expected = self._all_expected(stages)
        kind = (tuple(model for model, _ in stages[-1]), nbytes.bit_length())
        admitted = self._admitted_early(stages, expected, deadline) if admit else None
        promise = Promise(self._gate, expected, self._pixels[kind])
        if admitted is not None:
            promise.admitted(*admitted, deadline)
        return promise

    def _admitted_early(
        self, stages: Stages, expected: Sequence[dict[str, Expected]], deadline: float | None
    ) -> tuple[Lateness, float]:
        """Who lets the call in, and what is expected of it."""
        (model, items), *_ = stages[0]
        later = sum(max(each.run_s for each in stage.values()) for stage in expected[1:])
        try:
            return self.batcher(model).entrance.admit_early(items, deadline, later)
        except QueueFull as error:
            self._metrics.for_model(model).outcome(_outcome(error))
            raise

    @contextmanager
    def promise(self, stages: Stages, reserved: Promise | None = None) -> Iterator[None]:
        """See `Engine.promise`."""
        promise = reserved or Promise(self._gate, ())
        promise.restate(self._all_expected(stages))
        token = current_promise.set(promise)
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            current_promise.reset(token)
            if reserved is None:
                promise.release(error)

    def _all_expected(self, stages: Stages) -> list[dict[str, Expected]]:
        return [{model: self._expected(model, items) for model, items in stage} for stage in stages]

    def _expected(self, model: str, items: int) -> Expected:
        """What `items` of usual size will cost."""
        lanes = self.batcher(model).lanes
        return Expected(lanes.soonest(float(items), 1), lanes.cpu_seconds(float(items), 1))

    async def run(
        self, model: str, inputs: Mapping[str, NDArray[Any]], *, deadline: float | None = None
    ) -> dict[str, NDArray[Any]]:
        """See `Engine.run`."""
        entry = self._bundle.model(model)
        metrics = self._metrics.for_model(model)
        try:
            if not self._started:
                raise Draining("the server has not loaded its networks yet")
            outputs = await self._checked_run(entry, inputs, deadline)
        except BaseException as error:
            metrics.outcome(_outcome(error))
            raise
        metrics.outcome("ok")
        return outputs

    async def drain(self, timeout_s: float) -> None:
        """Take no new requests and finish the accepted ones, at most `timeout_s` seconds."""
        self._draining = True
        await asyncio.gather(*(loaded.batcher.drain(timeout_s) for loaded in self._loaded.values()))

    async def close(self) -> None:
        """Fail what is left and let go of the networks."""
        self._draining = True
        for loaded in self._loaded.values():
            await loaded.health.close()
            await loaded.batcher.close()

    async def _checked_run(
        self, entry: ModelEntry, inputs: Mapping[str, NDArray[Any]], deadline: float | None
    ) -> Tensors:
        arrays = check_inputs(entry, inputs)
        if sum(array.nbytes for array in arrays.values()) > CHECK_ON_THREAD_BYTES:
            await asyncio.to_thread(check_finite, entry, arrays)
        else:
            check_finite(entry, arrays)
        work = item_work(entry, {name: array.shape for name, array in arrays.items()})
        if deadline is not None and math.isinf(deadline):
            deadline = None
        promise = current_promise.get()
        turn = promise.begun(entry.name) if promise else ALONE
        return await self._loaded[entry.name].batcher.submit(
            arrays,
            deadline=deadline,
            work_per_item=work,
            turn=turn,
        )

    def _scheduled(self, opened: Opened, backlog: Backlog) -> _Loaded:
        entry = opened.entry
        canary = sample_inputs(entry, 1)
        health = ModelHealth(
            entry.name,
            lambda: batcher.probe(canary),
            threshold=self._options.failure_threshold,
            interval_s=self._options.probe_interval_s,
        )
        batcher = Batcher(
            entry.name,
            opened.lanes,
            self._options.limits(entry),
            self._metrics.for_model(entry.name),
            gate=self._gate,
            backlog=backlog,
            on_success=health.succeeded,
            on_failure=health.failed,
        )
        return _Loaded(entry, opened.provider, batcher, health)

    def _publish(self, plan: ProviderPlan) -> None:
        version = str(load_onnxruntime().__version__)
        for loaded in self._loaded.values():
            provider = loaded.provider
            self._metrics.models.provider_info.labels(plan.requested, provider, version).inc()
            self._metrics.models.info.labels(
                loaded.entry.name,
                loaded.entry.version,
                Role.Name(loaded.entry.role),
                loaded.entry.sha256[:SHOWN_HASH],
                provider,
            ).set(1)


def _outcome(error: BaseException) -> str:
    return next((label for kind, label in _OUTCOMES.items() if isinstance(error, kind)), "other")
