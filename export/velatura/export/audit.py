"""Checks a bundle that lies on disk: files whole, graphs loadable, tensors as the manifest says."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from velatura.export.bundle import read_manifest, sha256_of
from velatura.export.checkpoints.native import load_directions
from velatura.export.errors import ExportError
from velatura.export.specification import Port, Size
from velatura.export.verify import open_graph, run_graph
from velatura.v1 import bundle_pb2

_BATCH = 2
_FREE_SIZE: Size = (96, 128)


def audit(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield, for each network and index, its name and what is wrong with it ("" when nothing is).

    Raises ExportError when there is no readable manifest.
    """
    manifest = read_manifest(folder)
    for model in manifest.models:
        try:
            _check_model(folder, model)
        except ExportError as error:
            yield model.name, str(error)
        else:
            yield model.name, ""
    for generator in manifest.generators:
        if not generator.directions:
            continue
        try:
            _check_directions(folder, manifest, generator)
        except ExportError as error:
            yield generator.directions, str(error)
        else:
            yield generator.directions, ""


def _inside(folder: Path, relative: str) -> Path:
    path = (folder / relative).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ExportError(f"{relative}: lies outside the bundle")
    if not path.is_file():
        raise ExportError(f"{relative}: no such file in the bundle")
    return path


def _check_model(folder: Path, model: bundle_pb2.ModelEntry) -> None:
    path = _inside(folder, model.file)
    found = sha256_of(path)
    if found != model.sha256:
        raise ExportError(f"{model.file}: sha256 is {found}, the manifest says {model.sha256}")
    _inside(folder, model.card)
    session = open_graph(path)
    for kind, specs, values in (
        ("input", model.inputs, session.get_inputs()),
        ("output", model.outputs, session.get_outputs()),
    ):
        names = [value.name for value in values]
        if names != [spec.name for spec in specs]:
            raise ExportError(
                f"{model.file}: {kind}s are {names}, the manifest says {[s.name for s in specs]}"
            )
    rng = np.random.default_rng(0)
    step = math.lcm(*(max(1, spec.multiple_of) for spec in model.inputs))
    size = (math.ceil(_FREE_SIZE[0] / step) * step, math.ceil(_FREE_SIZE[1] / step) * step)
    inputs = {spec.name: _port(spec).sample(rng, _BATCH, size) for spec in model.inputs}
    try:
        outputs = run_graph(session, inputs)
    except Exception as error:  # onnxruntime's exceptions share no public base class
        raise ExportError(f"{model.file}: does not run at batch {_BATCH}: {error}") from error
    for spec in model.outputs:
        shape = _port(spec).resolved(_BATCH, size)
        value = outputs[spec.name]
        # Feature maps are smaller than the picture; only the roles' pictures keep its size.
        sized = model.role != bundle_pb2.ROLE_UNSPECIFIED
        known = [sized or extent != -1 or not axis for axis, extent in enumerate(spec.shape)]
        if value.ndim != len(shape) or any(
            checked and got != want
            for checked, got, want in zip(known, value.shape, shape, strict=True)
        ):
            raise ExportError(f"{model.file}: {spec.name!r} is {value.shape}, expected {shape}")
        if not np.isfinite(value).all():
            raise ExportError(f"{model.file}: {spec.name!r} is not finite")


def _port(spec: bundle_pb2.TensorSpec) -> Port:
    return Port(spec.name, tuple(spec.shape), spec.range_min, spec.range_max)


def _check_directions(
    folder: Path, manifest: bundle_pb2.BundleManifest, generator: bundle_pb2.GeneratorEntry
) -> None:
    path = _inside(folder, generator.directions)
    found = load_directions(path, generator.num_ws, generator.w_dim)
    owner = next((m.sha256 for m in manifest.models if m.name == generator.synthesis), "missing")
    if found.generator_sha256 != owner:
        raise ExportError(
            f"{generator.directions}: belongs to synthesis {found.generator_sha256}, "
            f"{generator.synthesis} is {owner}"
        )
