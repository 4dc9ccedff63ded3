"""The engine: runs any network of a bundle by name. Pipelines know only the `Engine` protocol."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from numpy.typing import NDArray

from velatura.server.engine.admission import BatchLimits
from velatura.server.engine.batcher import Batcher
from velatura.server.engine.bundle import Bundle
from velatura.server.engine.cost import CostModel
from velatura.server.engine.cpu_budget import cpu_budget
from velatura.server.engine.errors import (
    DeadlineExceeded,
    DeviceFailed,
    Draining,
    InvalidTensor,
    QueueFull,
)
from velatura.server.engine.health import ModelHealth
from velatura.server.engine.providers import (
    Provider,
    ProviderPlan,
    load_onnxruntime,
    plan_providers,
)
from velatura.server.engine.sessions import (
    OrtSession,
    Session,
    SessionFactory,
    Tensors,
    item_work,
    sample_inputs,
    warm_up,
)
from velatura.server.engine.validation import check_finite, check_inputs
from velatura.server.observability.metrics import Metrics
from velatura.v1.bundle_pb2 import ModelEntry, Role

log = logging.getLogger(__name__)

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

    async def start(self) -> None:
        """Load and warm up every network; raises ProviderError or DeviceFailed."""

    async def drain(self, timeout_s: float) -> None:
        """Take no new requests and finish the accepted ones, at most `timeout_s` seconds."""

    async def close(self) -> None:
        """Fail what is left and let go of the networks."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How to run the networks. Sizes are per network; a manifest may lower `max_batch_size`, never
    raise it.
    """

    provider: Provider = Provider.AUTO
    strict: bool = False
    gpu_mem_limit: int = 0  # bytes, 0 for none
    intra_threads: int = 0  # 0: what affinity and cgroup allow
    instances: int = 1  # batches of one network at a time
    max_batch_size: int = 8
    max_batch_elements: int = 6_291_456  # input elements: 8 pictures of 512×512×3
    max_queue_items: int = 256
    max_queue_bytes: int = 512 * 1024 * 1024
    max_queue_delay_s: float = 0.0
    failure_threshold: int = 3  # failures in a row that cause a probe
    probe_interval_s: float = 5.0
    stall_timeout_s: float = 60.0  # a run that lasts longer makes its network not ready

    def limits(self, entry: ModelEntry) -> BatchLimits:
        """Limits of one network."""
        return BatchLimits(
            max_batch_size=min(self.max_batch_size, entry.max_batch_size or self.max_batch_size),
            max_batch_elements=self.max_batch_elements,
            max_queue_items=self.max_queue_items,
            max_queue_bytes=self.max_queue_bytes,
            max_queue_delay_s=self.max_queue_delay_s,
            instances=self.instances,
        )


@dataclass(frozen=True, slots=True)
class _Loaded:
    entry: ModelEntry
    session: Session
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
        return loaded.session.provider if loaded else ""

    def batcher(self, model: str) -> Batcher:
        """The scheduler of `model`, for tests and diagnosis; raises ModelNotFound, or Draining
        before the start.
        """
        entry = self._bundle.model(model)
        if entry.name not in self._loaded:
            raise Draining("the server has not loaded its networks yet")
        return self._loaded[entry.name].batcher

    async def start(self) -> None:
        """Load and warm up every network, one after the other; raises ProviderError or
        DeviceFailed.
        """
        plan = plan_providers(
            self._options.provider,
            strict=self._options.strict,
            metrics=self._metrics,
            gpu_mem_limit=self._options.gpu_mem_limit,
        )
        try:
            for entry in self._bundle.manifest.models:
                self._loaded[entry.name] = await self._load(entry, plan)
        except BaseException:
            await self.close()
            raise
        self._publish(plan)
        self._started = True

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
            metrics.outcome(_OUTCOMES.get(type(error), "other"))
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
        return await self._loaded[entry.name].batcher.submit(
            arrays, deadline=deadline, work_per_item=work
        )

    async def _load(self, entry: ModelEntry, plan: ProviderPlan) -> _Loaded:
        limits = self._options.limits(entry)
        began = time.monotonic()
        session, cost = await asyncio.to_thread(self._open, entry, plan, limits)
        canary = sample_inputs(entry, 1)
        health = ModelHealth(
            entry.name,
            lambda: batcher.probe(canary),
            threshold=self._options.failure_threshold,
            interval_s=self._options.probe_interval_s,
        )
        batcher = Batcher(
            entry.name,
            session.run,
            limits,
            self._metrics.for_model(entry.name),
            cost=cost,
            on_success=health.succeeded,
            on_failure=health.failed,
        )
        log.info(
            "model %s: ready on %s after %.2f s, a batch of n takes about %.4f n + %.4f s",
            entry.name,
            session.provider,
            time.monotonic() - began,
            cost.a,
            cost.b,
        )
        return _Loaded(entry, session, batcher, health)

    def _open(
        self, entry: ModelEntry, plan: ProviderPlan, limits: BatchLimits
    ) -> tuple[Session, CostModel]:
        """On a thread: the session, warm, and what its batches cost."""
        threads = self._options.intra_threads or cpu_budget()
        session = self._open_session(
            entry, self._bundle.model_file(entry.name), plan, threads, self._metrics
        )
        cost = CostModel()
        for work, seconds in warm_up(session, entry, limits.max_batch_size):
            cost.observe(work, seconds)
        return session, cost

    def _publish(self, plan: ProviderPlan) -> None:
        version = str(load_onnxruntime().__version__)
        for loaded in self._loaded.values():
            provider = loaded.session.provider
            self._metrics.models.provider_info.labels(plan.requested, provider, version).inc()
            self._metrics.models.info.labels(
                loaded.entry.name,
                loaded.entry.version,
                Role.Name(loaded.entry.role),
                loaded.entry.sha256[:SHOWN_HASH],
                provider,
            ).set(1)
