"""An ONNX network of somebody's own, from TensorFlow through tf2onnx or anywhere else.

It is wrapped so that its tensors are those of its role, and checked: standard operators only, a
free batch axis, and each item of a batch computed as if it were alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto
from torch import Tensor

from velatura.export.errors import ExportError
from velatura.export.onnx_manifest import OnnxManifest, read_onnx_manifest
from velatura.export.onnx_roles import INPUTS, STYLES, match_inputs, match_outputs
from velatura.export.onnx_source import free_batches, open_source, tensors_of
from velatura.export.onnx_wrapping import Adapter, feed, result, wrap
from velatura.export.specification import Background, FloatArray, Port, Size, TrainingRun
from velatura.export.verify import open_graph, run_graph
from velatura.v1 import bundle_pb2

BATCHES = (1, 2, 5)
TOLERANCE = 1e-4  # of outputs of magnitude one
REFERENCE = "the file as given, each item alone"
_STRIDE = 4  # px; the server pads pictures for style networks to multiples of at least this
_SIZES: tuple[Size, ...] = ((64, 96), (108, 60))  # or the next multiples


@dataclass(frozen=True)
class OnnxNetwork:
    """One network, ready to be written: the file in its role's terms, and the file as it was."""

    manifest: OnnxManifest
    graph: bytes
    given: ort.InferenceSession
    adapters_in: tuple[Adapter, ...]
    adapters_out: tuple[Adapter, ...]
    labels: tuple[str, ...]
    parameters: int
    freed: tuple[str, ...] = ()
    """Inputs whose batch the file fixed to one."""
    # What a traced network has besides; nobody knows it of a file that came ready.
    figures: tuple[bundle_pb2.Figure, ...] = ()
    counted_at: Size | None = None
    training: tuple[TrainingRun, ...] = ()
    pictures: Callable[[], Tensor] | None = None
    picture_columns: int = 0

    @property
    def version(self) -> str:
        return self.manifest.version

    @property
    def max_batch_size(self) -> int:
        return self.manifest.max_batch_size

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def role(self) -> bundle_pb2.Role:
        return self.manifest.role

    @property
    def inputs(self) -> tuple[Port, ...]:
        return tuple(adapter.port for adapter in self.adapters_in)

    @property
    def outputs(self) -> tuple[Port, ...]:
        return tuple(adapter.port for adapter in self.adapters_out)

    @property
    def background(self) -> Background:
        given = self.manifest
        return Background(
            description=given.description or f"{given.name}: a network of the owner's.",
            license=given.license,
            source=given.source or f"ONNX file {given.file.name}, given by its owner.",
            training_data=given.training_data or "Not stated when the bundle was written.",
            intended_use="What its owner made it for.",
            limits="Not measured here, only compared with the file that it was made from.",
        )

    def write(self, path: Path) -> list[bundle_pb2.Verification]:
        """Write the file and compare it with the one given, at several batches and sizes.

        Raises ExportError at the first output that differs by more than the tolerance.
        """
        path.write_bytes(self.graph)
        session = open_graph(path)
        done: list[bundle_pb2.Verification] = []
        for size in _sizes(self.inputs):
            rng = np.random.default_rng(0)
            inputs = {p.name: p.sample(rng, max(BATCHES), size) for p in self.inputs}
            alone = _alone(self, inputs, size)
            for batch in BATCHES:
                some = {name: value[:batch] for name, value in inputs.items()}
                together = self._together(session, some, batch)
                done += [
                    _compared(self, port, alone[port.name][:batch], together[port.name], size)
                    for port in self.outputs
                ]
        return done

    def _together(
        self, session: ort.InferenceSession, inputs: Mapping[str, FloatArray], batch: int
    ) -> dict[str, FloatArray]:
        try:
            return run_graph(session, inputs)
        except Exception as error:  # onnxruntime's exceptions share no public base class
            fixed = f" (its batch is declared as 1: {', '.join(self.freed)})" if self.freed else ""
            raise ExportError(
                f"{self.name}: does not run at a batch of {batch}{fixed}; export the network with "
                f"a free first axis: {error}"
            ) from error


def load_onnx(path: Path) -> OnnxNetwork:
    """Read a manifest and its network, and wrap it. Raises ExportError naming the file and the
    field that is wrong, before anything is written."""
    manifest = read_onnx_manifest(path)
    try:
        return _load(manifest)
    except ExportError as error:
        raise type(error)(f"--network {path}: {error}") from error


def style_entries(network: OnnxNetwork) -> list[bundle_pb2.StyleEntry]:
    """Presets that it adds: itself, or one for each of its labels, or none."""
    about, model = network.background.description, network.name
    if network.role == bundle_pb2.ROLE_FIXED_STYLE:
        return [bundle_pb2.StyleEntry(name=model, description=about, model=model)]
    if network.role == bundle_pb2.ROLE_PRESET_STYLE:
        return [
            bundle_pb2.StyleEntry(name=label, description=about, model=model, index=index)
            for index, label in enumerate(network.labels)
        ]
    return []


def _load(manifest: OnnxManifest) -> OnnxNetwork:
    model = open_source(manifest.file)
    found = tensors_of(model, "input")
    freed = tuple(free_batches(model, found))
    inputs = match_inputs(manifest, found)
    outputs = match_outputs(manifest, tensors_of(model, "output"))
    parameters = sum(
        math.prod(tensor.dims)
        for tensor in model.graph.initializer
        if tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    )
    given = _session(manifest.file, model)
    network = OnnxNetwork(
        manifest, b"", given, tuple(inputs), tuple(outputs), (), parameters, freed
    )
    shaped = tuple(_measured(network))
    labels = _labels(manifest, inputs, shaped)
    graph = wrap(model, inputs, shaped)
    return replace(network, graph=graph, adapters_out=shaped, labels=labels)


def _session(file: Path, model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's exceptions share no public base class
        raise ExportError(f"{file}: onnxruntime does not load it: {error}") from error


def _measured(network: OnnxNetwork) -> list[Adapter]:
    """The outputs with the extents that one item has; free ones stay free."""
    size = _sizes(network.inputs)[0]
    rng = np.random.default_rng(1)
    alone = _alone(network, {p.name: p.sample(rng, 1, size) for p in network.inputs}, size)
    shaped = []
    for adapter in network.adapters_out:
        port, shape = adapter.port, alone[adapter.port.name].shape
        if network.manifest.role in INPUTS and port.name != "image_out":
            port = replace(port, shape=(-1, *shape[1:]))
            _require_shape(network, port)
        shaped.append(replace(adapter, port=port))
    return shaped


def _require_shape(network: OnnxNetwork, port: Port) -> None:
    """Extents that the role promises and the file left open."""
    shape = port.shape
    match network.role:
        case bundle_pb2.ROLE_SEGMENTER:
            size = network.inputs[0].shape[2]
            fits, wanted = shape[2:] == (size, size) and len(shape) == 4, f"[N, C, {size}, {size}]"
        case bundle_pb2.ROLE_CLASS_GENERATOR:
            fits, wanted = len(shape) == 4 and shape[1] == 3, "[N, 3, height, width]"
        case _:
            fits, wanted = len(shape) == 2, "[N, a fixed number]"
    if not fits:
        raise ExportError(
            f"outputs.{port.name}: is {list(shape)} with -1 for the batch, the role promises "
            f"{wanted}"
        )


def _labels(
    manifest: OnnxManifest, inputs: Sequence[Adapter], outputs: Sequence[Adapter]
) -> tuple[str, ...]:
    """The manifest's, or numbers; one for each class or preset."""
    shapes = {adapter.port.name: adapter.port.shape for adapter in (*inputs, *outputs)}
    counted = {
        bundle_pb2.ROLE_PRESET_STYLE: "style_weights",
        bundle_pb2.ROLE_CLASS_GENERATOR: "class_weights",
        bundle_pb2.ROLE_SEGMENTER: "logits",
        bundle_pb2.ROLE_CLASSIFIER: "logits",
    }
    if manifest.role not in counted:
        return manifest.labels
    count = shapes[counted[manifest.role]][1]
    if manifest.labels and len(manifest.labels) != count:
        raise ExportError(f"labels: {len(manifest.labels)} names for {count} classes or presets")
    preset = f"{manifest.name}-" if manifest.role == bundle_pb2.ROLE_PRESET_STYLE else ""
    return manifest.labels or tuple(f"{preset}{i}" for i in range(count))


def _sizes(inputs: Sequence[Port]) -> tuple[Size | None, ...]:
    free = [port for port in inputs if -1 in port.shape[1:]]
    if not free:
        return (None,)
    step = math.lcm(_STRIDE, *(max(1, port.multiple_of) for port in free))
    height, width = ([math.ceil(s[i] / step) * step for s in _SIZES] for i in (0, 1))
    return ((height[0], width[0]), (height[1], width[1] + (step if width[1] == height[1] else 0)))


def _alone(
    network: OnnxNetwork, inputs: Mapping[str, FloatArray], size: Size | None
) -> dict[str, FloatArray]:
    """The given file's outputs for each item by itself, in the role's terms."""
    count = len(next(iter(inputs.values())))
    rows: dict[str, list[FloatArray]] = {port.name: [] for port in network.outputs}
    for item in range(count):
        feeds = {
            adapter.theirs: feed(adapter, inputs[adapter.port.name][item : item + 1])
            for adapter in network.adapters_in
        }
        try:
            values = network.given.run([a.theirs for a in network.adapters_out], feeds)
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise ExportError(
                f"{network.name}: the file does not run{_at(size)}, alone; if heights and widths "
                f"must be multiples of a number, state multiple_of: {error}"
            ) from error
        for adapter, value in zip(network.adapters_out, values, strict=True):
            rows[adapter.port.name].append(result(adapter, value))
    _require_same_size(network, rows, size)
    return {name: np.concatenate(values) for name, values in rows.items()}


def _require_same_size(
    network: OnnxNetwork, rows: Mapping[str, Sequence[FloatArray]], size: Size | None
) -> None:
    """A style network gives back the picture's size."""
    if network.manifest.role not in STYLES or "image_out" not in rows or size is None:
        return
    found = rows["image_out"][0].shape
    if found != (1, 3, *size):
        raise ExportError(
            f"{network.name}: gives a picture of {list(found)} for one{_at(size)}; if heights and "
            "widths must be multiples of a number, state multiple_of"
        )


def _compared(
    network: OnnxNetwork, port: Port, want: FloatArray, got: FloatArray, size: Size | None
) -> bundle_pb2.Verification:
    batch = len(want)
    where = f"{network.name}: {port.name!r} at batch {batch}{_at(size)}"
    if want.shape != got.shape:
        raise ExportError(f"{where} has shape {got.shape}, items alone give {want.shape}")
    if not np.isfinite(want).all() or not np.isfinite(got).all():
        raise ExportError(f"{where} is not finite")
    error = float(np.abs(got.astype(np.float64) - want).max())
    magnitude = float(np.abs(want).max())
    allowed = TOLERANCE * max(1.0, magnitude)
    if error > allowed:
        raise ExportError(
            f"{where} differs by {error:.3g} from its items alone, more than {allowed:.3g}: the "
            "network mixes the items of a batch, or is not the same at every run"
        )
    return bundle_pb2.Verification(
        reference=REFERENCE + _at(size) if size and size[0] != size[1] else REFERENCE,
        output=port.name,
        batch_size=batch,
        size=max(size) if size else 0,
        max_abs_error=error,
        relative_error=error / magnitude if magnitude else 0.0,
        tolerance=allowed,
    )


def _at(size: Size | None) -> str:
    return f" at {size[0]}×{size[1]}" if size else ""
