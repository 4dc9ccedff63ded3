"""What the process is made of and how busy it is: pixels, threads, the event loop."""

from __future__ import annotations

import asyncio
import contextlib

import psutil
from prometheus_client import Counter, Gauge, Histogram

from velatura.server.observability.instruments import (
    CODEC_SECONDS,
    LAG_SECONDS,
    Exemplar,
    Instruments,
)

LAG_INTERVAL_S = 0.25


class ImageMetrics:
    """Decoding and encoding, and the pool of threads that does it."""

    def __init__(self, make: Instruments) -> None:
        self.codec_seconds = make.histogram(
            "velatura_codec_seconds",
            "Time to decode or encode one image, seconds.",
            "operation",
            "format",
            buckets=CODEC_SECONDS,
        )
        self.pixels = make.counter(
            "velatura_pixels_total",
            "Pixels decoded from or encoded into images, count.",
            "operation",
        )
        for operation in ("decode", "encode"):
            self.pixels.labels(operation)
        self._bound: dict[tuple[str, str], tuple[Histogram, Counter]] = {}
        self.threads = make.gauge(
            "velatura_pixel_threads",
            "Threads for decoding, compositing and encoding, count.",
        )
        self.running = make.gauge(
            "velatura_pixel_tasks_running", "Tasks that those threads work on, count."
        )
        self.waiting = make.gauge(
            "velatura_pixel_tasks_waiting", "Tasks that wait for one of those threads, count."
        )

    def coded(
        self, operation: str, kind: str, seconds: float, pixels: int, exemplar: Exemplar
    ) -> None:
        """Count one image decoded or encoded ("decode" or "encode"), of format `kind`."""
        key = (operation, kind)
        if key not in self._bound:  # looking up labels costs more than counting
            self._bound[key] = (
                self.codec_seconds.labels(operation, kind),
                self.pixels.labels(operation),
            )
        timed, counted = self._bound[key]
        timed.observe(seconds, exemplar)
        counted.inc(pixels)


class ServerMetrics:
    """State and limits of the whole server."""

    def __init__(self, make: Instruments) -> None:
        self._make = make
        self.ready = make.gauge(
            "velatura_ready", "1 while the server serves and every network is ready, else 0."
        )
        self.requests_limit = make.gauge(
            "velatura_requests_limit", "Most requests in work at once, count."
        )
        self.cpus = make.gauge("velatura_cpus", "CPUs that the process may use, count.")
        self.threads = make.gauge(
            "velatura_threads", "Threads of the process, onnxruntime's among them, count."
        )
        process = psutil.Process()
        self.threads.set_function(process.num_threads)
        self.tasks = make.gauge(
            "velatura_event_loop_tasks", "Tasks on the event loop, waiting ones included, count."
        )
        self.lag = make.histogram(
            "velatura_event_loop_lag_seconds",
            "Lateness of a timer on the event loop, four times a second, seconds.",
            buckets=LAG_SECONDS,
        )

    def describe(self, build: dict[str, str], bundle: dict[str, str]) -> None:
        """Tell which build serves which bundle; call it once."""
        text = "Always 1; the labels say which {} is served."
        self._make.info("velatura_build_info", "Always 1; the labels say which build runs.", build)
        self._make.info("velatura_bundle_info", text.format("bundle"), bundle)


class LoopLag:
    """Watches how late the event loop is: what blocks it delays every caller. And how many tasks
    it has: those that stay when callers are gone are a leak.
    """

    def __init__(self, histogram: Histogram, tasks: Gauge) -> None:
        self._histogram = histogram
        self._tasks = tasks
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Watch the running loop from now on."""
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        """Stop watching; nothing happens where nobody does."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_INTERVAL_S
            await asyncio.sleep(LAG_INTERVAL_S)
            self._histogram.observe(max(0.0, loop.time() - due))
            self._tasks.set(len(asyncio.all_tasks(loop)))
