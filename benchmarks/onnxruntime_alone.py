"""What onnxruntime does with a bundle's graphs when nothing stands around it.

No wire, no pictures to decode, no queue: the figure that a server on an idle machine approaches.
On a machine with other work it can pass it, for onnxruntime's threads spin by default and the
server's do not.
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

BATCH = 8  # the server's own limit by default

# Networks that one request runs, in order: name, and the extent of axes that the graph leaves free.
Steps = tuple[tuple[str, int], ...]


class Alone:
    """A bundle's sessions in this process, each on all CPUs, with onnxruntime's own defaults."""

    def __init__(self, bundle: Path) -> None:
        text = (bundle / "manifest.json").read_text()
        manifest = json_format.Parse(text, bundle_pb2.BundleManifest(), ignore_unknown_fields=True)
        self._bundle = bundle
        self._entries = {entry.name: entry for entry in manifest.models}
        self._sessions: dict[str, ort.InferenceSession] = {}

    def images_per_second(self, steps: Steps, seconds: float) -> float:
        """Rate of whole requests in batches of `BATCH`, over `seconds` or two batches if longer."""
        work = [(self._session(name), self._inputs(name, size)) for name, size in steps]
        for session, inputs in work:  # the first run allocates
            session.run(None, inputs)
        begin, batches = time.perf_counter(), 0
        while batches < 2 or time.perf_counter() - begin < seconds:
            for session, inputs in work:
                session.run(None, inputs)
            batches += 1
        return batches * BATCH / (time.perf_counter() - begin)

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

    def _inputs(self, name: str, size: int) -> dict[str, np.ndarray[Any, Any]]:
        """Noise in each input's range, [BATCH, …]."""
        rng, inputs = np.random.default_rng(0), {}
        for spec in self._entries[name].inputs:
            shape = (BATCH, *(size if extent == -1 else extent for extent in list(spec.shape)[1:]))
            low, high = spec.range_min, spec.range_max
            values = (
                rng.uniform(low, high, math.prod(shape))
                if high > low
                else rng.standard_normal(math.prod(shape))
            )
            inputs[spec.name] = values.reshape(shape).astype(spec.dtype)
        return inputs
