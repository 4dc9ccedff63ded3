"""An engine of plain functions that remembers what it was asked to run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from velatura.server.engine.gate import Gate
from velatura.server.engine.promise import Promise, Stages
from velatura.server.pipelines.job import Job
from velatura.server.pipelines.workers import Workers
from velatura.v1.bundle_pb2 import (
    DirectionEntry,
    GeneratorEntry,
    ModelEntry,
    Role,
    TensorSpec,
)

Network = Callable[[Mapping[str, Any]], Any]
NUM_WS, W_DIM, SIZE, CODE = 4, 3, 8, 5

GENERATOR = GeneratorEntry(
    name="fake", synthesis="synthesis", mapping="mapping", encoder="encoder",
    num_ws=NUM_WS, w_dim=W_DIM, z_dim=W_DIM, resolution=SIZE,
)  # fmt: skip


def entry(name: str, role: int = Role.ROLE_UNSPECIFIED, labels: tuple[str, ...] = ()) -> ModelEntry:
    spec = TensorSpec(name="image", shape=[-1, 3, SIZE, SIZE])
    return ModelEntry(
        name=name,
        role=role,
        sha256=f"{name}-hash",
        labels=labels,
        inputs=[spec],  # type: ignore[arg-type]
    )


def direction(name: str = "smile", layers: tuple[int, int] = (1, 3)) -> DirectionEntry:
    offsets = np.arange(NUM_WS * W_DIM, dtype=np.float32)
    return DirectionEntry(
        name=name, layer_start=layers[0], layer_end=layers[1], offsets=offsets.tolist()
    )


class FakeBundle:
    """Knows any model by name."""

    def __init__(self, *entries: ModelEntry) -> None:
        self._entries = {each.name: each for each in entries}

    def model(self, name: str) -> ModelEntry:
        return self._entries.get(name, entry(name))

    def models_of(self, role: int) -> list[ModelEntry]:
        return [each for each in self._entries.values() if each.role == role]


class FakeEngine:
    """`networks` take the inputs and give the outputs; every run is recorded with its inputs."""

    def __init__(self, networks: Mapping[str, Network], *entries: ModelEntry) -> None:
        self.networks = dict(networks)
        self.bundle = FakeBundle(*entries)
        self.runs: list[tuple[str, Mapping[str, Any]]] = []
        self.deadlines: list[float | None] = []
        self.cancelled: list[str] = []
        self.promised: list[Stages] = []
        self.reserved: list[tuple[Stages, float | None]] = []
        self.delays: dict[str, float] = {}
        self.not_ready: set[str] = set()
        self.providers: dict[str, str] = {}
        self.leaves_cpus = True

    def provider(self, model: str) -> str:
        return self.providers.get(model, "CPUExecutionProvider")

    def ready(self, model: str) -> bool:
        return model not in self.not_ready

    def reserve(
        self, stages: Stages, deadline: float | None, *, nbytes: int = 0, admit: bool = True
    ) -> Promise:
        assert nbytes >= 0
        if admit:
            self.reserved.append((stages, deadline))
        return Promise(Gate(), ())

    @contextmanager
    def promise(self, stages: Stages, reserved: Promise | None = None) -> Iterator[None]:
        assert reserved is not None
        self.promised.append(stages)
        yield

    async def run(
        self, model: str, inputs: Mapping[str, Any], *, deadline: float | None = None
    ) -> dict[str, Any]:
        self.runs.append((model, inputs))
        self.deadlines.append(deadline)
        try:
            await asyncio.sleep(self.delays.get(model, 0))
        except asyncio.CancelledError:
            self.cancelled.append(model)
            raise
        outputs = self.networks[model](inputs)
        assert isinstance(outputs, dict)
        return outputs

    def ran(self, model: str) -> list[Mapping[str, Any]]:
        return [inputs for name, inputs in self.runs if name == model]


def job_on(engine: FakeEngine, workers: Workers, deadline: float | None = None) -> Job:
    return Job(engine, workers, deadline)  # type: ignore[arg-type]


def synthesis(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Every pixel of an image is a hundredth of its latents' mean."""
    means = inputs["w_plus"].mean(axis=(1, 2)) / 100
    shape = (len(means), 3, SIZE, SIZE)
    return {"image": np.broadcast_to(means[:, None, None, None], shape).astype(np.float32)}


def encoder(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Every latent is the image's mean."""
    means = inputs["image"].mean(axis=(1, 2, 3))
    shape = (len(means), NUM_WS, W_DIM)
    return {"w_plus": np.broadcast_to(means[:, None, None], shape).astype(np.float32)}


def mapping(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """w = psi · z."""
    return {"w": (inputs["z"] * inputs["truncation_psi"][:, None]).astype(np.float32)}
