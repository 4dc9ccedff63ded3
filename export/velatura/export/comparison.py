"""What differs between two bundles or two ONNX files: tensors, results, speed and size."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from velatura.export.bundle import MANIFEST, read_manifest
from velatura.export.errors import ExportError
from velatura.export.inspection import Tensor, inspect_graph
from velatura.export.specification import FloatArray, Port, Size
from velatura.export.verify import open_graph, run_graph

_SIZE: Size = (128, 160)  # px, where they are free: multiples of what networks usually ask for
_BATCH = 2
_SHOWN = 1e-12


@dataclass(frozen=True)
class Difference:
    """One output of one network, on the same random inputs."""

    output: str
    largest: float
    relative: float
    """Over the largest magnitude of the first file's output."""


@dataclass(frozen=True)
class Pair:
    """A network of both, or of one only."""

    name: str
    problem: str = ""
    """Why it cannot be compared: missing on one side, or other tensors."""
    differences: tuple[Difference, ...] = ()
    faster: float = 0.0
    """How many times as fast the second file is."""
    bytes: tuple[int, int] = (0, 0)

    @property
    def same(self) -> bool:
        return not self.problem and all(d.largest == 0 for d in self.differences)


def compare(first: Path, second: Path, *, threads: int = 1, seconds: float = 0.5) -> list[Pair]:
    """Networks of the same name in two bundles, or two files. Raises ExportError when a file cannot
    be read, or a bundle is given beside a file."""
    if first.is_dir() != second.is_dir():
        raise ExportError(f"{first} and {second}: give two bundles or two ONNX files")
    if not first.is_dir():
        return [_pair(first.stem, first, second, {}, threads, seconds)]
    left, right = _files(first), _files(second)
    pairs = []
    for name in [*left, *(other for other in right if other not in left)]:
        if name not in right or name not in left:
            pairs.append(Pair(name, problem=f"only in {first if name in left else second}"))
            continue
        path, ports = left[name]
        pairs.append(_pair(name, path, right[name][0], ports, threads, seconds))
    return pairs


def _files(bundle: Path) -> dict[str, tuple[Path, dict[str, Port]]]:
    """Path and input ports, with their ranges, by network."""
    manifest = read_manifest(bundle)
    if not (bundle / MANIFEST).is_file():
        raise ExportError(f"{bundle}: is not a bundle")
    return {
        model.name: (
            bundle / model.file,
            {t.name: Port(t.name, tuple(t.shape), t.range_min, t.range_max) for t in model.inputs},
        )
        for model in manifest.models
    }


def _pair(
    name: str, first: Path, second: Path, ports: dict[str, Port], threads: int, seconds: float
) -> Pair:
    sizes = tuple(path.stat().st_size if path.is_file() else 0 for path in (first, second))
    pair = Pair(name, bytes=(sizes[0], sizes[1]))
    left, right = (inspect_graph(path, (1,), _SIZE) for path in (first, second))
    for kind, mine, other in (
        ("inputs", left.inputs, right.inputs),
        ("outputs", left.outputs, right.outputs),
    ):
        if mine != other:
            return replace(pair, problem=f"{kind} are {_listed(mine)} and {_listed(other)}")
    foreign = [tensor.name for tensor in left.inputs if tensor.dtype != "float32"]
    if foreign:
        return replace(pair, problem=f"inputs {foreign} are not float32, so that none were drawn")
    inputs = _inputs(left.inputs, ports)
    sessions = [open_graph(path, threads) for path in (first, second)]
    expected, actual = (run_graph(session, inputs) for session in sessions)
    times: tuple[list[float], list[float]] = ([], [])
    begin = time.perf_counter()
    while len(times[0]) < 3 or time.perf_counter() - begin < seconds:
        for taken, session in zip(times, sessions, strict=True):  # in turns
            start = time.perf_counter()
            run_graph(session, inputs)
            taken.append(time.perf_counter() - start)
    slow, fast = (statistics.median(taken) for taken in times)
    return replace(
        pair,
        differences=tuple(_difference(t.name, expected, actual) for t in left.outputs),
        faster=slow / fast,
    )


def _inputs(tensors: Sequence[Tensor], ports: dict[str, Port]) -> dict[str, FloatArray]:
    """The same random values each time; in the manifest's ranges where there is one."""
    rng = np.random.default_rng(0)
    drawn = {}
    for tensor in tensors:
        port = ports.get(tensor.name, Port(tensor.name, tensor.shape, 0, 0))
        # A file of its own says no range: pictures then get [0, 1], and all else normal values.
        if not ports and len(tensor.shape) == 4:
            port = replace(port, high=1.0)
        drawn[tensor.name] = port.sample(rng, _BATCH, _SIZE)
    return drawn


def _difference(
    name: str, expected: dict[str, FloatArray], actual: dict[str, FloatArray]
) -> Difference:
    want, got = expected[name].astype(np.float64), actual[name].astype(np.float64)
    if want.shape != got.shape:
        return Difference(name, float("inf"), float("inf"))
    largest = float(np.abs(got - want).max())
    return Difference(name, largest, largest / max(float(np.abs(want).max()), _SHOWN))


def _listed(tensors: Sequence[Tensor]) -> str:
    return ", ".join(f"{t.name} {t.dtype} {list(t.shape)}" for t in tensors)
