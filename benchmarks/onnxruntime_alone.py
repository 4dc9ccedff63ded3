"""What onnxruntime does with a bundle's graphs when nothing stands around it: no wire, no pictures
to decode, no queue.

It gets all CPUs, its own defaults (its threads spin, which a server that shares the CPUs with
clients cannot afford) and the batch size that suits each network best.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from google.protobuf import json_format

from velatura.v1 import bundle_pb2

BATCHES = (1, 2, 4, 8, 16)
# Of an axis that the graph leaves free, where nothing else is said.
EXTENT = 256


class Alone:
    """A bundle's sessions in this process, each on all CPUs."""

    def __init__(self, bundle: Path) -> None:
        text = (bundle / "manifest.json").read_text()
        manifest = json_format.Parse(text, bundle_pb2.BundleManifest(), ignore_unknown_fields=True)
        self._bundle = bundle
        self._entries = {entry.name: entry for entry in manifest.models}
        self._sessions: dict[str, ort.InferenceSession] = {}
        self._inputs: dict[tuple[str, int, int], dict[str, np.ndarray[Any, Any]]] = {}
        self._best: dict[tuple[str, int], int] = {}

    def rate(self, name: str, batch: int, seconds: float, extent: int = EXTENT) -> float:
        """Items a second in batches of `batch`, over `seconds` or one batch if that is longer."""
        session, inputs = self._session(name), self._filled(name, batch, extent)
        session.run(None, inputs)  # the first run of a shape allocates
        begin, runs = time.perf_counter(), 0
        while not runs or time.perf_counter() - begin < seconds:
            session.run(None, inputs)
            runs += 1
        return runs * batch / (time.perf_counter() - begin)

    def best_batch(self, name: str, seconds: float, extent: int = EXTENT) -> int:
        """The one of `BATCHES` with the highest rate; each is tried twice for `seconds`, once a
        network."""
        key = (name, extent)
        if key not in self._best:
            rates = dict.fromkeys(BATCHES, 0.0)
            for _ in range(2):
                for batch in BATCHES:
                    rates[batch] = max(rates[batch], self.rate(name, batch, seconds, extent))
            self._best[key] = max(rates, key=rates.__getitem__)
        return self._best[key]

    def _session(self, name: str) -> ort.InferenceSession:
        if name not in self._sessions:
            options = ort.SessionOptions()
            options.intra_op_num_threads = len(os.sched_getaffinity(0))
            self._sessions[name] = ort.InferenceSession(
                str(self._bundle / self._entries[name].file),
                sess_options=options,
                providers=["CPUExecutionProvider"],
            )
        return self._sessions[name]

    def _filled(self, name: str, batch: int, extent: int) -> dict[str, np.ndarray[Any, Any]]:
        """Noise in each input's range, [batch, …]."""
        key = (name, batch, extent)
        if key not in self._inputs:
            rng, inputs = np.random.default_rng(0), {}
            for spec in self._entries[name].inputs:
                shape = (batch, *(extent if n == -1 else n for n in list(spec.shape)[1:]))
                low, high = spec.range_min, spec.range_max
                values = (
                    rng.uniform(low, high, math.prod(shape))
                    if high > low
                    else rng.standard_normal(math.prod(shape))
                )
                inputs[spec.name] = values.reshape(shape).astype(spec.dtype)
            self._inputs[key] = inputs
        return self._inputs[key]
