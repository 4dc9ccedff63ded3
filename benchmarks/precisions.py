"""The ways to compute a generator that `benchmarks.export` measures besides float32 in onnxruntime:
its graph on OpenVINO in float32 and bfloat16, and for the sake of fairness both eager forms in
bfloat16, by torch's autocast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

from velatura.export.specification import FloatArray
from velatura.server.engine.openvino import (
    NoOpenvino,
    OpenvinoOptions,
    Precision,
    computes_in,
    cpu_device,
)

Call = Callable[[], Any]
Inputs = Mapping[str, FloatArray]

PUBLISHED, OURS = "published, bf16", "ours, bf16"
HEADING = (
    "network", "threads", "batch",
    "OpenVINO f32, ms", "faster than published by", "than ours by",
    "OpenVINO bf16, ms", "faster than published by", "than ours by", "PSNR, dB",
    "eager torch as published in bf16, ms", "PSNR, dB",
    "eager torch, ours, in bf16, ms", "PSNR, dB",
    "OpenVINO bf16 faster than published in bf16 by", "than ours in bf16 by",
)  # fmt: skip


def unavailable(precision: Precision) -> str:
    """Why OpenVINO cannot compute in `precision` here, in a word or two; "" where it can."""
    try:
        device = cpu_device(ort)
    except NoOpenvino as error:
        return "does not load" if error.installed else "no plugin"
    return "" if computes_in(device, precision) else f"CPU without {precision}"


def openvino_session(graph: Path, threads: int, precision: Precision) -> ort.InferenceSession:
    """As the server opens its wide lane. Raises NoOpenvino."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    OpenvinoOptions(precision, instances=1).join(options, ort, threads)
    return ort.InferenceSession(str(graph), options)


def ways(graph: Path, threads: int, inputs: Inputs, published: Call, ours: Call) -> dict[str, Call]:
    """What to call, by name; OpenVINO's are missing where it cannot. Each returns images
    [N, 3, R, R].
    """
    found: dict[str, Call] = {}
    for precision in Precision:
        if not unavailable(precision):
            session = openvino_session(graph, threads, precision)
            found[precision] = _running(session, inputs)
    return found | {PUBLISHED: _autocast(published), OURS: _autocast(ours)}


def row(
    head: str,
    calls: Mapping[str, Call],
    seconds: Mapping[str, float],
    eager: tuple[float, float],
    reference: FloatArray,
) -> str:
    """One line of the table under `HEADING`, after its first cells, `head`.

    `seconds` are those of `calls`, `eager` of the eager forms in float32: as published, and ours.
    `reference` is what onnxruntime computes in float32.
    """

    def quality(name: str) -> str:
        return f"{psnr(reference, calls[name]()):.1f}"

    cells = [head]
    for precision in Precision:
        if precision not in calls:
            cells += [unavailable(precision), "", ""]
        else:
            cells.append(_ms(seconds[precision]))
            cells += [_times(each, seconds[precision]) for each in eager]
        if precision is Precision.BF16:
            cells.append(quality(precision) if precision in calls else "")
    for name in (PUBLISHED, OURS):
        cells += [_ms(seconds[name]), quality(name)]
    best = seconds.get(Precision.BF16)
    cells += [_times(seconds[name], best) if best else "" for name in (PUBLISHED, OURS)]
    return f"| {' | '.join(cells)} |"


def psnr(reference: FloatArray, found: FloatArray) -> float:
    """Peak signal to noise of images in [-1, 1], clipped to that, dB."""
    error = np.clip(reference, -1, 1).astype(np.float64) - np.clip(found, -1, 1)
    noise = float(np.square(error).mean())
    return 10 * math.log10(4 / noise) if noise else math.inf


def _running(session: ort.InferenceSession, inputs: Inputs) -> Call:
    return lambda: session.run(None, dict(inputs))[0]


def _autocast(eager: Call) -> Call:
    """`eager`, which gives a tensor or an array, where torch puts bfloat16 wherever it would."""

    def call() -> FloatArray:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            images: FloatArray = eager().float().numpy()
        return images

    return call


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f}"


def _times(slower: float, faster: float) -> str:
    return f"{slower / faster:.2f} ×"
