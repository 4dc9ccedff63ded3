"""Proves that a written graph computes what its source does, or refuses it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

from velatura.export.errors import ExportError
from velatura.export.specification import Computed, FloatArray, NetworkSpec, Size
from velatura.v1 import bundle_pb2


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread: sums are split by the number of threads, and their last digits, which
    the manifest states, would otherwise be those of the machine that exported."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def open_graph(path: Path, threads: int = 1) -> ort.InferenceSession:
    """An onnxruntime session on the CPU. Raises ExportError when the file does not load."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no public base class
        raise ExportError(f"{path.name}: onnxruntime does not load it: {error}") from error


def run_graph(
    session: ort.InferenceSession, inputs: Mapping[str, FloatArray]
) -> dict[str, FloatArray]:
    """Outputs by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def verify(spec: NetworkSpec, path: Path) -> list[bundle_pb2.Verification]:
    """Compare the file with torch at the spec's batches and sizes, and with each reference.

    Raises ExportError at the first output that differs by more than its tolerance, has another
    shape, or is not finite.
    """
    _require_enough(spec)
    session = open_graph(path)
    source = f"torch {spec.precision}"
    done: list[bundle_pb2.Verification] = []
    for batch, size in _cases(spec.batch_sizes, spec.sizes):
        inputs = spec.sample(batch, size, seed=batch)
        actual = _run(spec, session, inputs, batch, size)
        expected: Computed = spec.run_torch(inputs)
        done += _compare(spec, source, expected, actual, spec.tolerance, batch, size)
    for reference in spec.references:
        for batch, size in _cases(reference.batch_sizes, reference.sizes):
            typical = reference.inputs
            inputs = typical(batch, size) if typical else spec.sample(batch, size, seed=100 + batch)
            actual = _run(spec, session, inputs, batch, size)
            expected = reference.run(inputs)
            done += _compare(
                spec, reference.name, expected, actual, reference.tolerance, batch, size
            )
    return done


def _require_enough(spec: NetworkSpec) -> None:
    """One batch or size could agree by chance with what was traced."""
    if len(set(spec.batch_sizes)) < 3:
        raise ExportError(f"{spec.name}: batches {spec.batch_sizes}; compare three different ones")
    if spec.free_size and len(set(spec.sizes)) < 2:
        raise ExportError(f"{spec.name}: sizes {spec.sizes}; compare two where they are free")


def _cases(
    batches: tuple[int, ...], sizes: tuple[Size | None, ...]
) -> Iterator[tuple[int, Size | None]]:
    return ((batch, size) for size in sizes for batch in batches)


def _run(
    spec: NetworkSpec,
    session: ort.InferenceSession,
    inputs: Mapping[str, FloatArray],
    batch: int,
    size: Size | None,
) -> dict[str, FloatArray]:
    try:
        return run_graph(session, inputs)
    except Exception as error:
        raise ExportError(
            f"{spec.name}: the graph does not run at batch {batch}{_at(size)}: {error}"
        ) from error


def _compare(
    spec: NetworkSpec,
    reference: str,
    expected: Computed,
    actual: Computed,
    tolerance: float,
    batch: int,
    size: Size | None,
) -> list[bundle_pb2.Verification]:
    results = []
    for port in spec.outputs:
        want, got = expected[port.name], actual[port.name]
        where = f"{spec.name}: {port.name!r} at batch {batch}{_at(size)}"
        if want.shape != got.shape:
            raise ExportError(f"{where} has shape {got.shape}, {reference} gives {want.shape}")
        if not np.isfinite(got).all():
            raise ExportError(f"{where} is not finite")
        error = float(np.abs(got.astype(np.float64) - want).max())
        magnitude = float(np.abs(want).max())
        allowed = tolerance * max(1.0, magnitude)
        if error > allowed:
            raise ExportError(
                f"{where} differs from {reference} by {error:.3g}, more than {allowed:.3g}; "
                "the graph was not written"
            )
        results.append(
            bundle_pb2.Verification(
                reference=reference + _at(size) if size and size[0] != size[1] else reference,
                output=port.name,
                batch_size=batch,
                size=max(size) if size else 0,
                max_abs_error=error,
                relative_error=error / magnitude if magnitude else 0.0,
                tolerance=allowed,
            )
        )
    return results


def _at(size: Size | None) -> str:
    return f" at {size[0]}×{size[1]}" if size else ""
