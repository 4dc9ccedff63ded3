"""Opens every network of a bundle in the lanes that it is to have, warm, with its costs known.

On the CPU and by load, a network has a narrow lane (one session of one thread, run by as many
threads as there are CPUs: sessions may be run side by side) and a wide lane (a session of all
threads). Its weights are in memory twice then.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from velatura.server.engine.agreement import open_agreeing
from velatura.server.engine.bundle import Bundle
from velatura.server.engine.cost import CostModel
from velatura.server.engine.cpu_budget import cpu_budget
from velatura.server.engine.graph_check import ends
from velatura.server.engine.lanes import Lane
from velatura.server.engine.options import EngineOptions
from velatura.server.engine.providers import CPU, ON_CPUS, Provider, ProviderPlan
from velatura.server.engine.sessions import Session, SessionFactory
from velatura.server.engine.thread_names import RUNS, name_thread, named_pool
from velatura.server.engine.warming import Sizes, warm_up
from velatura.server.observability.metrics import Metrics
from velatura.v1.bundle_pb2 import ModelEntry

log = logging.getLogger(__name__)

# A network whose item takes less on one thread gains nothing from more of them.
WIDE_PAYS_S = 0.002


@dataclass(frozen=True, slots=True)
class Opened:
    """One network, ready to run. `provider` is the one that really runs it."""

    entry: ModelEntry
    lanes: list[Lane]
    provider: str


class Loader:
    """Opens the networks of one bundle; `open_session` is how, for tests."""

    def __init__(
        self,
        bundle: Bundle,
        options: EngineOptions,
        plan: ProviderPlan,
        metrics: Metrics,
        open_session: SessionFactory,
    ) -> None:
        self._bundle = bundle
        self._options = options
        self._plan = plan
        self._metrics = metrics
        self._open_session = open_session
        self._cpus = cpu_budget()
        self._plans: dict[str, ProviderPlan] = {}  # what each network came to

    @property
    def gate_cpus(self) -> int | None:
        """CPUs that running networks may take together; None where they run on a GPU."""
        if self._plan.wants_gpu:
            return None
        options = self._options
        wanted = max(1, options.instances) * (options.intra_threads or 1)
        if options.instances and not options.intra_threads:
            wanted = options.instances * self._cpus
        return max(self._cpus, wanted)

    def open_all(self) -> list[Opened]:
        """On a thread: every network of the bundle. Raises ProviderError or DeviceFailed."""
        # onnxruntime's own threads begin here, and are named like the one that starts them.
        name_thread(f"{RUNS}session")
        try:
            return self._open_all()
        finally:
            name_thread("worker")

    def _open_all(self) -> list[Opened]:
        entries = list(self._bundle.manifest.models)
        if self._plan.wants_gpu or self._options.instances or self._options.intra_threads:
            return [self._told(self._open_fixed(entry)) for entry in entries]
        # Side by side, as under load: that is what their costs are wanted for.
        with named_pool(self._cpus, f"{RUNS}session") as pool:
            opened = list(pool.map(self._open_narrow, entries))
        return [self._told(self._widened(each)) for each in opened]

    def _open_fixed(self, entry: ModelEntry) -> Opened:
        """As many sessions' worth of threads as the settings say, or one on the device."""
        options = self._options
        threads = options.intra_threads or self._cpus
        places = options.instances or max(1, self._cpus // threads)
        sizes = options.sizes(entry, every=self._plan.wants_gpu)
        session, cost = self._open_first(entry, threads, sizes)
        if session.provider not in ON_CPUS:
            places = max(1, options.instances)
            return Opened(entry, [Lane("device", session.run, 0, places, cost)], session.provider)
        lane = self._lane("fixed", entry, session, threads, places, cost)
        return Opened(entry, [lane], session.provider)

    def _open_narrow(self, entry: ModelEntry) -> Opened:
        session, cost = self._open_first(entry, 1, self._options.brief_sizes(entry))
        lane = self._lane("narrow", entry, session, 1, self._cpus, cost)
        return Opened(entry, [lane], session.provider)

    def _widened(self, opened: Opened) -> Opened:
        """With a wide lane besides, where that can pay."""
        if self._cpus < 2 or opened.lanes[0].cost.estimate(1.0) < WIDE_PAYS_S:
            return opened
        sizes = self._options.brief_sizes(opened.entry)
        plan = self._plans[opened.entry.name]
        session, cost = self._open(opened.entry, plan, self._cpus, sizes)
        wide = self._lane("wide", opened.entry, session, self._cpus, 1, cost)
        return Opened(opened.entry, [wide, *opened.lanes], opened.provider)

    def _lane(
        self,
        name: str,
        entry: ModelEntry,
        session: Session,
        threads: int,
        places: int,
        cost: CostModel,
    ) -> Lane:
        """On CPUs."""
        file = self._bundle.model_file(entry.name)
        return Lane(name, session.run, threads, places, cost, ends(file))

    def _open_first(
        self, entry: ModelEntry, threads: int, sizes: Sizes
    ) -> tuple[Session, CostModel]:
        """As `_open`, by the plan that suits this network, which is kept for its other lanes."""
        file = self._bundle.model_file(entry.name)
        opened, plan = open_agreeing(
            entry,
            self._plan.fitted(entry, sizes),
            min(2, sizes.most),
            self._metrics,
            lambda plan: self._open(entry, plan, threads, sizes),
            lambda: self._open_session(entry, file, self._plan.on_cpu(), 1, self._metrics),
        )
        self._plans[entry.name] = plan
        return opened

    def _open(
        self, entry: ModelEntry, plan: ProviderPlan, threads: int, sizes: Sizes
    ) -> tuple[Session, CostModel]:
        """A session, warm, and what its batches cost."""
        file = self._bundle.model_file(entry.name)
        session = self._open_session(entry, file, plan.fitted(entry, sizes), threads, self._metrics)
        cost = CostModel()
        for work, seconds in warm_up(session, entry, sizes):
            cost.observe(work, seconds)
        return session, cost

    def _told(self, opened: Opened) -> Opened:
        self._warn_of_form(opened)
        openvino = self._plans[opened.entry.name].openvino
        log.info(
            "model %s: ready on %s%s: %s",
            opened.entry.name,
            opened.provider,
            f" in {openvino.precision}" if openvino else "",
            ", ".join(map(_described, opened.lanes)),
        )
        return opened

    def _warn_of_form(self, opened: Opened) -> None:
        """Of a graph whose form suits another provider than the one that it came to."""
        if opened.entry.written_for != Provider.CPU or opened.provider == CPU:
            return
        requested = self._plan.requested
        log.warning(
            "model %s: its graph was written for onnxruntime's CPU kernels, and %s would run "
            "another form faster; export it with --provider %s",
            opened.entry.name,
            opened.provider,
            Provider.CUDA if requested is Provider.AUTO else requested,
        )


def _described(lane: Lane) -> str:
    return (
        f"{lane.name} ({lane.places} × {lane.threads or 'no'} threads), a batch of n takes about "
        f"{lane.cost.a:.4f} n + {lane.cost.b:.4f} s"
    )
