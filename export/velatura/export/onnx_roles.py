"""What each role promises of a network's tensors, matched with those of a foreign ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import TensorProto

from velatura.export.errors import ExportError
from velatura.export.onnx_manifest import OnnxManifest, TensorNote, role_name
from velatura.export.onnx_source import GraphTensor
from velatura.export.onnx_wrapping import Adapter
from velatura.export.specification import Port
from velatura.v1 import bundle_pb2

LEAST = 16  # px; the server pads smaller pictures for style networks
_UNIT, _SIGNED = (0.0, 1.0), (-1.0, 1.0)

INPUTS: Mapping[int, tuple[str, ...]] = {
    bundle_pb2.ROLE_FIXED_STYLE: ("image",),
    bundle_pb2.ROLE_PRESET_STYLE: ("image", "style_weights"),
    bundle_pb2.ROLE_STYLE_PREDICTOR: ("image",),
    bundle_pb2.ROLE_STYLE_TRANSFORMER: ("image", "style_code"),
    bundle_pb2.ROLE_SEGMENTER: ("image",),
    bundle_pb2.ROLE_CLASSIFIER: ("image",),
    bundle_pb2.ROLE_CLASS_GENERATOR: ("z", "class_weights"),
}
OUTPUTS: Mapping[int, str] = {
    bundle_pb2.ROLE_FIXED_STYLE: "image_out",
    bundle_pb2.ROLE_PRESET_STYLE: "image_out",
    bundle_pb2.ROLE_STYLE_PREDICTOR: "style_code",
    bundle_pb2.ROLE_STYLE_TRANSFORMER: "image_out",
    bundle_pb2.ROLE_SEGMENTER: "logits",
    bundle_pb2.ROLE_CLASSIFIER: "logits",
    bundle_pb2.ROLE_CLASS_GENERATOR: "image",
}
# Networks that repaint a picture of any size; the others' pictures have one.
STYLES = frozenset(
    {
        bundle_pb2.ROLE_FIXED_STYLE,
        bundle_pb2.ROLE_PRESET_STYLE,
        bundle_pb2.ROLE_STYLE_PREDICTOR,
        bundle_pb2.ROLE_STYLE_TRANSFORMER,
    }
)
_SHARES = ("style_weights", "class_weights")  # sum to one
_INTEGERS = (TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32, TensorProto.INT64)


def match_inputs(manifest: OnnxManifest, found: Sequence[GraphTensor]) -> list[Adapter]:
    """An adapter for each of the file's inputs. Raises ExportError where they do not fit."""
    pairs = _pairs("input", manifest.inputs, INPUTS.get(manifest.role), found)
    left = [t.described for t in found if t not in [tensor for _, tensor, _ in pairs]]
    if left:
        raise ExportError(f"inputs that nothing is given to: {', '.join(left)}")
    return [
        Adapter(_input_port(manifest, name, tensor, note), tensor.name, tensor.dtype, note)
        for name, tensor, note in pairs
    ]


def match_outputs(manifest: OnnxManifest, found: Sequence[GraphTensor]) -> list[Adapter]:
    """Adapters for the outputs that the role has, or for all; shapes but of pictures are still the
    file's. Raises ExportError as above."""
    only = OUTPUTS.get(manifest.role)
    pairs = _pairs("output", manifest.outputs, (only,) if only else None, found)
    return [
        Adapter(_output_port(manifest, name, tensor, note), tensor.name, tensor.dtype, note)
        for name, tensor, note in pairs
    ]


def _pairs(
    kind: str,
    notes: Mapping[str, TensorNote],
    wanted: Sequence[str] | None,
    found: Sequence[GraphTensor],
) -> list[tuple[str, GraphTensor, TensorNote]]:
    """The role's names with the file's tensors; `wanted` None takes every tensor as it is named."""
    by_name = {tensor.name: tensor for tensor in found}
    names = list(wanted or notes)
    strangers = sorted(set(notes) - set(names))
    if strangers:
        raise ExportError(
            f"{kind}s.{strangers[0]}: the role has the {kind}s {', '.join(names)} and no other"
        )
    pairs = []
    for name in names:
        note = notes.get(name, TensorNote())
        theirs = note.tensor or (name if name in by_name else "")
        if not theirs and len(found) == len(names) == 1:
            theirs = found[0].name
        if theirs not in by_name:
            listed = ", ".join(tensor.described for tensor in found)
            raise ExportError(
                f"{kind}s.{name}.tensor: the file has no {kind} {theirs or name!r}; it has {listed}"
            )
        pairs.append((name, by_name[theirs], note))
    if wanted is None:
        taken = {tensor.name for _, tensor, _ in pairs}
        pairs += [(t.name, t, TensorNote()) for t in found if t.name not in taken]
    return pairs


def _input_port(manifest: OnnxManifest, name: str, tensor: GraphTensor, note: TensorNote) -> Port:
    at = f"inputs.{name}"
    if name == "image" and manifest.role in INPUTS:
        return _picture_port(manifest, at, tensor, note)
    shape = _channels_first(at, tensor, note)[1:]
    if manifest.role in INPUTS:
        if len(shape) != 1 or shape[0] == -1:
            raise ExportError(f"{at}: {tensor.described}; expected [any, a fixed number]")
        if name in _SHARES:
            return Port(name, (-1, *shape), 0, 1, "N, share", sums_to_one=True)
        return Port(name, (-1, *shape), layout="N, dimension")
    if sum(extent == -1 for extent in shape) > 2:
        raise ExportError(f"{at}: {tensor.described}; besides the batch two axes may be free")
    if tensor.dtype in _INTEGERS and note.low >= note.high:
        raise ExportError(f"{at}.range: give the range of its whole numbers")
    return Port(
        name,
        (-1, *shape),
        note.low,
        note.high,
        least=LEAST,
        multiple_of=manifest.multiple_of if manifest.multiple_of > 1 else 0,
    )


def _output_port(manifest: OnnxManifest, name: str, tensor: GraphTensor, note: TensorNote) -> Port:
    at = f"outputs.{name}"
    if name == "image_out":
        return _picture_port(manifest, at, tensor, note)
    shape = _channels_first(at, tensor, note)
    if name == "image" and manifest.role == bundle_pb2.ROLE_CLASS_GENERATOR:
        return Port(name, (-1, *shape[1:]), *_SIGNED, "NCHW")
    return Port(name, (-1, *shape[1:]))


def _picture_port(manifest: OnnxManifest, at: str, tensor: GraphTensor, note: TensorNote) -> Port:
    """Of pictures [N, 3, H, W], H and W free for styles and one number for the others."""
    shape = _channels_first(at, tensor, note)
    turned = len(tensor.shape) == 4 and tensor.shape[3 if note.layout == "NCHW" else 1] == 3
    if len(shape) != 4 or shape[1] not in (3, -1) or (shape[1] == -1 and turned):
        other = "NHWC" if note.layout == "NCHW" else "NCHW"
        advice = f'; set layout = "{other}"' if turned else ""
        raise ExportError(
            f"{at}: {tensor.described} is no picture of 3 channels as {note.layout}{advice}"
        )
    name = at.partition(".")[2]
    if manifest.role in STYLES:
        if shape[2:] != (-1, -1):
            raise ExportError(
                f"{at}: {tensor.described} has a fixed size; {role_name(manifest.role)} gets "
                "pictures of any, so export the network with free height and width"
            )
        step = manifest.multiple_of
        return Port(
            name, (-1, 3, -1, -1), *_UNIT, "NCHW", least=LEAST, multiple_of=step if step > 1 else 0
        )
    size = manifest.size or shape[2]
    if size == -1:
        raise ExportError(f"size: missing; {role_name(manifest.role)} works at one size, give it")
    if any(extent not in (-1, size) for extent in shape[2:]):
        raise ExportError(f"{at}: {tensor.described} is not {size} × {size} px")
    return Port(name, (-1, 3, size, size), *_SIGNED, "NCHW")


def _channels_first(at: str, tensor: GraphTensor, note: TensorNote) -> tuple[int, ...]:
    if note.layout == "NCHW":
        return tensor.shape
    if len(tensor.shape) != 4:
        raise ExportError(f"{at}.layout: {tensor.described} has no four axes to be NHWC")
    n, height, width, channels = tensor.shape
    return (n, channels, height, width)
