"""Opens a network on OpenVINO only as far as it computes there what onnxruntime's own kernels do.

Rounding to bfloat16 costs most networks nothing that shows, but some subtract large numbers from
each other, and then nothing is left of their outputs. Which ones cannot be told from outside, so
each is asked at the start: bfloat16 first, then float32, then the CPU provider.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from velatura.server.engine.errors import DeviceFailed, ProviderError
from velatura.server.engine.openvino import OPENVINO, Precision
from velatura.server.engine.providers import CPU, FallbackReason, ProviderPlan, fall_back
from velatura.server.engine.sessions import Session
from velatura.server.engine.warming import sample_inputs
from velatura.server.observability.metrics import Metrics
from velatura.v1.bundle_pb2 import ModelEntry

log = logging.getLogger(__name__)

# Peak signal to noise that every output must reach. Float32 leaves over 110 dB, bfloat16 36 and
# more of networks that bear it, and 15 of one that does not.
LEAST_DB = {Precision.F32: 60.0, Precision.BF16: 30.0}
# Where outputs are equal.
EQUAL_DB = 200.0

MoreT = TypeVar("MoreT")
Outputs = Mapping[str, NDArray[Any]]


def open_agreeing(
    entry: ModelEntry,
    plan: ProviderPlan,
    batch: int,
    metrics: Metrics,
    open_with: Callable[[ProviderPlan], tuple[Session, MoreT]],
    reference: Callable[[], Session],
) -> tuple[tuple[Session, MoreT], ProviderPlan]:
    """What `open_with` makes of the best plan that computes `entry` as `reference` does, seen on a
    batch of `batch` items; and that plan. Each step down is logged and counted.

    Raises ProviderError under `strict` where that would be the CPU provider, and what `open_with`
    raises on it.
    """
    if plan.openvino is None:
        return open_with(plan), plan
    inputs = sample_inputs(entry, batch)
    expected = reference().run(inputs)
    for candidate, precision in _downwards(plan, plan.openvino.precision):
        try:
            session, more = open_with(candidate)
            if session.provider != OPENVINO:  # it can run none of the nodes, and has said so
                return (session, more), plan.on_cpu()
            found = agreement(expected, session.run(inputs))
        except DeviceFailed as error:
            reason = FallbackReason.OPENVINO_FAILED
            _step_down(entry.name, plan, precision, reason, str(error), metrics)
            continue
        least = LEAST_DB[precision]
        if found >= least:
            log.info(
                "model %s: OpenVINO in %s, PSNR %.0f dB against onnxruntime's float32",
                entry.name,
                precision,
                found,
            )
            return (session, more), candidate
        precise = precision is Precision.F32
        reason = FallbackReason.OPENVINO_INEXACT if precise else FallbackReason.BF16_INEXACT
        said = f"PSNR {found:.0f} dB against onnxruntime's float32, {least:.0f} are asked for"
        _step_down(entry.name, plan, precision, reason, said, metrics)
    cpu = plan.on_cpu()
    return open_with(cpu), cpu


def agreement(expected: Outputs, found: Outputs) -> float:
    """Peak signal to noise of the output that is worst, dB; -inf where one is not finite."""
    return min(_decibels(array, found[name]) for name, array in expected.items())


def _decibels(expected: NDArray[Any], found: NDArray[Any]) -> float:
    ours, theirs = expected.astype(np.float64), found.astype(np.float64)
    error = float(np.square(ours - theirs).mean()) if ours.size else 0.0
    if error == 0.0:
        return EQUAL_DB
    if not math.isfinite(error):
        return -math.inf
    peak = float(np.ptp(ours)) or float(np.abs(ours).max()) or 1.0
    return min(EQUAL_DB, 10 * math.log10(peak**2 / error))


def _downwards(
    plan: ProviderPlan, precision: Precision
) -> Iterator[tuple[ProviderPlan, Precision]]:
    if precision is not Precision.F32:
        yield plan, precision
    yield plan.in_float32(), Precision.F32


def _step_down(
    model: str,
    plan: ProviderPlan,
    precision: Precision,
    reason: FallbackReason,
    said: str,
    metrics: Metrics,
) -> None:
    """From `precision`, in which OpenVINO cannot run `model` for what is `said`, to the next."""
    last = precision is Precision.F32
    if last and plan.strict:
        raise ProviderError(
            f"model {model!r} should run on {OPENVINO} but cannot: {said}. "
            "Start with --provider cpu, or without the strict flag to run this one there."
        )
    fall_back(plan.requested, reason, metrics, model, CPU if last else f"{OPENVINO} in f32", said)
