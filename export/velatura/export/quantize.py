"""An encoder or segmenter of a bundle in int8: what it loses, what it wins, and whether it pays.

Weights become int8 by channel. Static quantisation also fixes the range of every intermediate
tensor from pictures that it is shown; dynamic quantisation measures ranges at each run, and changes
matrix products alone.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from velatura.export.compress import widen_weights
from velatura.export.errors import ExportError
from velatura.export.formats import Quantisation
from velatura.export.quantized_bundle import BundleNetworks
from velatura.export.specification import FloatArray
from velatura.export.verify import open_graph, run_graph
from velatura.v1 import bundle_pb2

LEAST_SPEED = 1.2  # times as fast, or int8 does not pay
LEAST_MIOU = 0.97  # of a segmenter's labels with those of float32
LEAST_PSNR = 35.0  # dB, of an encoder's reconstructions against those by float32
_CALIBRATION = 64  # pictures that set ranges; others measure
_BATCHES = (1, 8)


@dataclass(frozen=True)
class Outcome:
    """What int8 did to one network."""

    method: Quantisation
    measure: str
    """"mIoU" or "PSNR", each against the float32 network."""
    quality: float
    speed: dict[int, float]
    """Times as fast as float32, by batch."""
    bytes: tuple[int, int]
    """Of the file in the bundle, and in int8."""
    images: int

    @property
    def pays(self) -> bool:
        least = LEAST_MIOU if self.measure == "mIoU" else LEAST_PSNR
        return self.quality >= least and min(self.speed.values()) >= LEAST_SPEED

    def to_figures(self) -> list[bundle_pb2.Figure]:
        seen = f"{self.images} pictures, against float32"
        unit = "dB" if self.measure == "PSNR" else ""
        quality = bundle_pb2.Figure(
            name=f"int8/{self.measure}", value=round(self.quality, 4), unit=unit, measured_on=seen
        )
        speeds = [
            bundle_pb2.Figure(
                name=f"int8/speed at batch {batch}",
                value=round(factor, 2),
                unit="×",
                measured_on="the exporting machine's CPU, one thread, in turns with float32",
            )
            for batch, factor in self.speed.items()
        ]
        return [quality, *speeds]


class _Pictures(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """One picture at a time, as the calibration asks for them."""

    def __init__(self, name: str, images: FloatArray) -> None:
        self._items = iter([{name: image[None]} for image in images])

    def get_next(self) -> dict[str, FloatArray] | None:
        return next(self._items, None)


def quantize(
    networks: BundleNetworks,
    name: str,
    images: FloatArray,
    method: Quantisation,
    out: Path,
    *,
    seconds: float = 2.0,
) -> Outcome:
    """Write the network in int8 to `out` and measure it on `images` [N, 3, S, S].

    The first 64, or half of fewer, set the ranges of static quantisation; the others measure.
    Raises ExportError for a network that is no encoder or segmenter, and for less than two
    pictures.
    """
    entry = networks.picture_network(name)
    if len(images) < 2:
        raise ExportError(
            f"{len(images)} pictures: give two at least, to set ranges and to measure"
        )
    shown = min(_CALIBRATION, len(images) // 2)
    wide = out.with_suffix(".wide.onnx")
    logging.disable(logging.WARNING)  # advice to fold first, which the exporter has done
    try:
        widen_weights(networks.path(entry), wide)
        if method is Quantisation.STATIC:
            _static(wide, out, entry.inputs[0].name, images[:shown])
        else:
            quantize_dynamic(
                wide,
                out,
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=True,
                weight_type=QuantType.QInt8,
            )
    finally:
        logging.disable(logging.NOTSET)
        wide.unlink(missing_ok=True)
    exact, small = open_graph(networks.path(entry)), open_graph(out)
    held_out = images[shown:]
    measure, quality = _quality(networks, entry, exact, small, held_out)
    return Outcome(
        method,
        measure,
        quality,
        {batch: _speed(exact, small, entry, held_out, batch, seconds) for batch in _BATCHES},
        (networks.path(entry).stat().st_size, out.stat().st_size),
        len(held_out),
    )


def _static(source: Path, out: Path, tensor: str, images: FloatArray) -> None:
    quantize_static(
        source,
        out,
        _Pictures(tensor, images),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "MatMul", "Gemm"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8,
    )


def _quality(
    networks: BundleNetworks,
    entry: bundle_pb2.ModelEntry,
    exact: ort.InferenceSession,
    small: ort.InferenceSession,
    images: FloatArray,
) -> tuple[str, float]:
    """How close int8 comes to float32, in what the network is for."""
    tensor, output = entry.inputs[0].name, entry.outputs[0].name
    pairs = [
        tuple(run_graph(session, {tensor: part})[output] for session in (exact, small))
        for part in _parts(images)
    ]
    if entry.role == bundle_pb2.ROLE_SEGMENTER:
        labels = [np.concatenate([np.argmax(p[i], axis=1).ravel() for p in pairs]) for i in (0, 1)]
        return "mIoU", mean_iou(labels[0], labels[1])
    synthesis = networks.synthesis_of(entry.name)
    squares = [(networks.draw(synthesis, a) - networks.draw(synthesis, b)) ** 2 for a, b in pairs]
    error = float(np.concatenate(squares).mean())
    return "PSNR", min(10 * float(np.log10(4 / max(error, 1e-20))), 200.0)


def mean_iou(expected: npt.NDArray[np.int64], actual: npt.NDArray[np.int64]) -> float:
    """Intersection over union, averaged over the classes that occur."""
    shares = []
    for label in np.union1d(expected, actual):
        mine, other = expected == label, actual == label
        shares.append(float((mine & other).sum() / (mine | other).sum()))
    return statistics.fmean(shares)


def _parts(images: FloatArray) -> Iterator[FloatArray]:
    return (images[start : start + 8] for start in range(0, len(images), 8))


def _speed(
    exact: ort.InferenceSession,
    small: ort.InferenceSession,
    entry: bundle_pb2.ModelEntry,
    images: FloatArray,
    batch: int,
    seconds: float,
) -> float:
    """float32's median time over int8's, in turns."""
    inputs = {entry.inputs[0].name: np.resize(images, (batch, *images.shape[1:]))}
    sessions: Sequence[ort.InferenceSession] = (exact, small)
    times: tuple[list[float], list[float]] = ([], [])
    for session in sessions:  # the first run allocates
        run_graph(session, inputs)
    begin = time.perf_counter()
    while len(times[0]) < 3 or time.perf_counter() - begin < seconds:
        for taken, session in zip(times, sessions, strict=True):
            start = time.perf_counter()
            run_graph(session, inputs)
            taken.append(time.perf_counter() - start)
    return statistics.median(times[0]) / statistics.median(times[1])
