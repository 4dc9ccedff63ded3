"""Torch module → ONNX file with named tensors and a free batch axis, by torch's dynamo exporter."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch.export import Dim

from velatura.export.errors import ExportError
from velatura.export.specification import NetworkSpec, Port

OPSET = 18
# A traced extent of one or of an equal pair would be taken for a constant, so none of these repeat.
_TRACED_BATCH = 3
_TRACED_SIZE = (72, 88)


def trace(spec: NetworkSpec, path: Path) -> None:
    """Write `spec.traced`, or else `spec.module`, to `path` as one file with its weights inside.

    Raises ExportError when the exporter fails or fixes an axis that should be free.
    """
    size = _TRACED_SIZE if spec.free_size else None
    inputs = spec.sample(_TRACED_BATCH, size)
    arguments = tuple(torch.from_numpy(inputs[port.name]) for port in spec.inputs)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                spec.traced or spec.module,
                arguments,
                input_names=[port.name for port in spec.inputs],
                output_names=[port.name for port in spec.outputs],
                dynamic_shapes=tuple(_dynamic_axes(port) for port in spec.inputs),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter raises many kinds, all of them about the network
        raise ExportError(f"{spec.name}: torch could not export it: {error}") from error
    if program is None:
        raise ExportError(f"{spec.name}: torch returned no program")
    program.save(str(path), include_initializers=True)
    _require_ports(spec, onnx.load(path))


def _dynamic_axes(port: Port) -> dict[int, Any]:
    names = iter(("height", "width"))
    axes: dict[int, Any] = {0: Dim("batch", min=1)}
    for axis, extent in enumerate(port.shape[1:], start=1):
        if extent == -1:
            axes[axis] = Dim(next(names), min=port.least)
    return axes


def _require_ports(spec: NetworkSpec, model: onnx.ModelProto) -> None:
    """The graph's tensors must have the names, order and extents that were promised."""
    for kind, ports, values in (
        ("input", spec.inputs, model.graph.input),
        ("output", spec.outputs, model.graph.output),
    ):
        names = [value.name for value in values]
        if names != [port.name for port in ports]:
            raise ExportError(
                f"{spec.name}: {kind}s are {names}, expected {[port.name for port in ports]}"
            )
        for port, value in zip(ports, values, strict=True):
            dims = value.type.tensor_type.shape.dim
            extents = [d.dim_value if d.HasField("dim_value") else -1 for d in dims]
            if len(extents) != len(port.shape) or any(
                want != got and (want == -1 or got != -1)
                for want, got in zip(port.shape, extents, strict=True)
            ):
                raise ExportError(
                    f"{spec.name}: {kind} {port.name!r} was traced as {extents}, expected "
                    f"{list(port.shape)} (-1 is free); write the network so that no traced extent "
                    "becomes a constant"
                )
