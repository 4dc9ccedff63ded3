"""What the scheduler and the networks do, by network."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import Counter

from velatura.server.observability.instruments import (
    BATCH_ITEMS,
    RUN_SECONDS,
    Exemplar,
    Instruments,
)

# How a request to a network can end.
OUTCOMES = ("ok", "refused", "cancelled", "expired", "invalid", "device", "other")


class ModelsMetrics:
    """The metrics of all networks; `of` hands out those of one."""

    def __init__(self, make: Instruments) -> None:
        self._make = make
        self._models: dict[str, ModelMetrics] = {}
        self._declare_requests()
        self._declare_batches()
        self._declare_limits()
        self.ready = make.gauge(
            "velatura_model_ready", "1 where the network takes requests, else 0.", "model"
        )
        self.info = make.gauge(
            "velatura_model_info",
            "Always 1; the labels describe a network of the bundle.",
            "model",
            "version",
            "role",
            "sha256",
            "provider",
        )
        self.provider_info = make.gauge(
            "velatura_provider_info",
            "Networks that run on an execution provider, count.",
            "requested",
            "provider",
            "onnxruntime_version",
        )
        self.provider_fallback = make.counter(
            "velatura_provider_fallback_total",
            "Times that a lesser provider, or a slower precision, was taken than asked or hoped "
            "for, count.",
            "requested",
            "reason",
        )

    def _declare_requests(self) -> None:
        make = self._make
        self.requests = make.counter(
            "velatura_model_requests_total",
            "Requests to a network, count, by outcome: ok, refused, cancelled, expired, invalid, "
            "device or other.",
            "model",
            "outcome",
        )
        self.refusals = make.counter(
            "velatura_admission_refusals_total",
            "Requests refused at arrival, count, by reason.",
            "model",
            "reason",
        )
        self.stretch = make.gauge(
            "velatura_admission_stretch_ratio",
            "What admission multiplies its estimates of waiting and running by, because requests "
            "were seen to take so much longer, ratio.",
            "model",
        )
        self.dropped = make.counter(
            "velatura_queue_dropped_total",
            "Items that left the queue without a run, count, by reason: cancelled, expired, "
            "failed, drained, late (nothing could meet the deadline any more) or displaced (their "
            "caller had most of a full queue, and another came).",
            "model",
            "reason",
        )
        self.queue_depth = make.gauge(
            "velatura_queue_depth", "Items that wait for the device, count.", "model"
        )
        self.queue_bytes = make.gauge(
            "velatura_queue_bytes", "Size of the items that wait for the device, bytes.", "model"
        )
        self.queue_wait = make.histogram(
            "velatura_queue_wait_seconds",
            "Time from arrival to the device, seconds.",
            "model",
            buckets=RUN_SECONDS,
        )

    def _declare_batches(self) -> None:
        make = self._make
        self.batch_size = make.histogram(
            "velatura_batch_size",
            "Items in a batch that was run, count.",
            "model",
            buckets=BATCH_ITEMS,
        )
        self.batch_closed = make.counter(
            "velatura_batch_closed_total",
            "Batches that were run, count, by what closed them: full, device_free, delay, "
            "deadline, cost, shape or retry.",
            "model",
            "reason",
        )
        self.lane_runs = make.counter(
            "velatura_lane_runs_total",
            "Batches that were run, count, by lane: wide (alone on all threads), narrow (side by "
            "side), fixed (as set) or device.",
            "model",
            "lane",
        )
        self.padding = make.counter(
            "velatura_batch_padding_items_total",
            "Items added to batches to reach an allowed size, count.",
            "model",
        )
        self.inference = make.histogram(
            "velatura_inference_seconds",
            "Time of one batch on the device, seconds.",
            "model",
            buckets=RUN_SECONDS,
        )
        self.failures = make.counter(
            "velatura_model_failures_total",
            "Runs of a network that failed, count, by reason.",
            "model",
            "reason",
        )
        self.cost_item = make.gauge(
            "velatura_model_cost_item_seconds",
            "Learned cost of one more item in a batch, the a of a*n+b, seconds.",
            "model",
        )
        self.cost_batch = make.gauge(
            "velatura_model_cost_batch_seconds",
            "Learned cost of a batch besides its items, the b of a*n+b, seconds.",
            "model",
        )

    def _declare_limits(self) -> None:
        make = self._make
        self.batch_limit = make.gauge(
            "velatura_model_batch_limit", "Most items in a batch, count.", "model"
        )
        self.queue_limit = make.gauge(
            "velatura_model_queue_limit", "Most items that may wait, count.", "model"
        )
        self.instances = make.gauge(
            "velatura_model_instances", "Batches that run at a time, count.", "model"
        )

    def of(self, model: str) -> ModelMetrics:
        """The metrics of one network of the bundle."""
        if model not in self._models:
            self._models[model] = ModelMetrics(self, model)
        return self._models[model]


class ModelMetrics:
    """Metrics of one network with their label bound: looking up labels costs more than counting."""

    def __init__(self, metrics: ModelsMetrics, model: str) -> None:
        self.model = model
        self._metrics = metrics
        self._outcomes = {each: metrics.requests.labels(model, each) for each in OUTCOMES}
        self._closed: dict[str, Counter] = {}
        self._lanes: dict[str, Counter] = {}
        self._refused: dict[str, Counter] = {}
        self._padding = metrics.padding.labels(model)
        self.batch_size = metrics.batch_size.labels(model)
        self.queue_depth = metrics.queue_depth.labels(model)
        self.queue_bytes = metrics.queue_bytes.labels(model)
        self.queue_wait = metrics.queue_wait.labels(model)
        self.inference = metrics.inference.labels(model)
        self.ready = metrics.ready.labels(model)

    def declare(
        self,
        closed: Iterable[str],
        refused: Iterable[str],
        dropped: Iterable[str],
        lanes: Iterable[str],
    ) -> None:
        """Show the reasons and lanes that there can be, as 0, before any of them comes up."""
        batches = self._metrics.batch_closed
        self._lanes = {lane: self._metrics.lane_runs.labels(self.model, lane) for lane in lanes}
        self._closed = {reason: batches.labels(self.model, reason) for reason in closed}
        refusals = self._metrics.refusals
        self._refused = {reason: refusals.labels(self.model, reason) for reason in refused}
        for reason in dropped:
            self._metrics.dropped.labels(self.model, reason)

    def limits(self, batch: int, queue: int, instances: int) -> None:
        """Tell what the network's scheduler is set to."""
        self._metrics.batch_limit.labels(self.model).set(batch)
        self._metrics.queue_limit.labels(self.model).set(queue)
        self._metrics.instances.labels(self.model).set(instances)

    def learned(
        self,
        item: Callable[[], float],
        batch: Callable[[], float],
        stretch: Callable[[], float],
    ) -> None:
        """Where to ask, at every scrape, what has been learned: seconds for an item, and for a
        batch besides, and by how much estimates are stretched."""
        self._metrics.stretch.labels(self.model).set_function(stretch)
        self._metrics.cost_item.labels(self.model).set_function(item)
        self._metrics.cost_batch.labels(self.model).set_function(batch)

    def outcome(self, outcome: str) -> None:
        """Count one request by how it ended, one of OUTCOMES."""
        self._outcomes[outcome].inc()

    def refused(self, reason: str) -> None:
        """Count one request that was not admitted."""
        self._refused[reason].inc()

    def closed(self, reason: str, items: int) -> None:
        """Count one batch by what closed it, and its items."""
        if reason not in self._closed:
            self._closed[reason] = self._metrics.batch_closed.labels(self.model, reason)
        self._closed[reason].inc()
        self.batch_size.observe(items)

    def lane(self, name: str) -> None:
        """Count one batch by the lane that runs it."""
        self._lanes[name].inc()

    def padded(self, items: int) -> None:
        """Count items that were added to a batch for its size alone."""
        if items:
            self._padding.inc(items)

    def waited(self, seconds: float, exemplar: Exemplar = None) -> None:
        """Count one request's time in the queue."""
        self.queue_wait.observe(seconds, exemplar)

    def ran(self, seconds: float, exemplar: Exemplar = None) -> None:
        """Count one batch's time on the device."""
        self.inference.observe(seconds, exemplar)

    def dropped(self, reason: str, items: int) -> None:
        """Count items that left the queue without a run."""
        self._metrics.dropped.labels(self.model, reason).inc(items)

    def failed(self, reason: str) -> None:
        """Count one failed run."""
        self._metrics.failures.labels(self.model, reason).inc()
