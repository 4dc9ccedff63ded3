"""What the servicers share: the engine, the thread pool, limits, and the way from names to the
bundle's entries."""

from __future__ import annotations

from dataclasses import dataclass, field

from velatura.server.engine.bundle import Bundle
from velatura.server.engine.engine import Engine
from velatura.server.engine.errors import UnknownName
from velatura.server.imaging.picture import Limits
from velatura.server.observability.metrics import Metrics
from velatura.server.pipelines.caches import Caches
from velatura.server.pipelines.errors import UnknownThing, Unsupported
from velatura.server.pipelines.job import Job
from velatura.server.pipelines.workers import Workers
from velatura.server.rpc.call import current_call, current_tenant
from velatura.v1 import image_pb2
from velatura.v1.bundle_pb2 import GeneratorEntry, ModelEntry, Role


@dataclass(frozen=True, slots=True)
class Backend:
    """Handed to every servicer by the composition root."""

    engine: Engine
    workers: Workers
    metrics: Metrics
    limits: Limits = field(default_factory=Limits)
    caches: Caches = field(default_factory=Caches)

    @property
    def bundle(self) -> Bundle:
        """The bundle being served."""
        return self.engine.bundle

    def job(self) -> Job:
        """The bookkeeping of the call that this task serves."""
        call = current_call.get()
        return Job(
            self.engine,
            self.workers,
            call.deadline,
            call.record,
            self.caches,
            current_tenant.get(),
        )

    def generator(self, name: str) -> GeneratorEntry:
        """A generator by name, the default one for ""; raises `UnknownThing` or `Unsupported`."""
        if not self.bundle.manifest.generators:
            raise Unsupported(
                "generator", "the server's bundle has no generator.", "Serve another bundle."
            )
        try:
            return self.bundle.generator(name)
        except UnknownName as error:
            raise UnknownThing("generator", name, error.known, "generator") from None

    def synthesis_sha256(self, generator: GeneratorEntry) -> str:
        """Hash of a generator's synthesis network: what latent tokens are bound to."""
        return self.bundle.model(generator.synthesis).sha256

    def segmenter(self, name: str, field_name: str = "segmenter") -> ModelEntry | None:
        """A segmenter by name; for "" the default one, None where the bundle has none."""
        known = [entry.name for entry in self.bundle.models_of(Role.ROLE_SEGMENTER)]
        wanted = name or self.bundle.default_segmenter
        if not wanted:
            return None
        if wanted not in known:
            raise UnknownThing("segmenter", wanted, known, field_name)
        return self.bundle.model(wanted)


def versions(job: Job) -> list[image_pb2.ModelVersion]:
    """The networks that took part in a job, for its response."""
    return [
        image_pb2.ModelVersion(name=entry.name, version=entry.version, sha256=entry.sha256)
        for entry in job.models
    ]


def timings(job: Job) -> list[image_pb2.Timing]:
    """A job's stages, for its response."""
    return [
        image_pb2.Timing(stage=stage, milliseconds=milliseconds)
        for stage, milliseconds in job.timings.items()
    ]
