"""Small ONNX files as other tools write them, and manifests for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Value = onnx.ValueInfoProto
WEIGHTS = np.random.default_rng(0).normal(0, 0.15, (3, 3, 3, 3)).astype(np.float32)
NHWC_MANIFEST = """\
name = "mosaic"
role = "fixed_style"
file = "mosaic.onnx"
license = "MIT"
[inputs.image]
tensor = "input_1:0"
layout = "NHWC"
range = [0, 255]
[outputs.image_out]
tensor = "Identity:0"
layout = "NHWC"
range = [0, 255]
"""


def value(name: str, *shape: int | str | None, kind: int = TensorProto.FLOAT) -> Value:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[Value],
    outputs: list[Value],
    constants: dict[str, np.ndarray] | None = None,  # type: ignore[type-arg]
    opset: int = 13,
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(v, n) for n, v in (constants or {}).items()]
    graph = helper.make_graph(nodes, "tf2onnx", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, producer_name="tf2onnx", opset_imports=opsets, ir_version=7)


def nhwc_style(
    batch: int | str = "unk__10", height: int | str = "unk__11", width: int | str = "unk__12"
) -> onnx.ModelProto:
    """What tf2onnx makes of a Keras model that takes and gives samples 0..255, NHWC: a convolution
    between two transpositions, then 127.5 · tanh + 127.5."""
    nodes = [
        helper.make_node("Transpose", ["input_1:0"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["nchw", "half"], ["centred"]),
        helper.make_node("Div", ["centred", "half"], ["signed"]),
        helper.make_node("Conv", ["signed", "kernel"], ["mixed"], pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["mixed"], ["bounded"]),
        helper.make_node("Mul", ["bounded", "half"], ["scaled"]),
        helper.make_node("Add", ["scaled", "half"], ["shifted"]),
        helper.make_node("Transpose", ["shifted"], ["Identity:0"], perm=[0, 2, 3, 1]),
    ]
    shape = (batch, height, width, 3)
    constants = {"half": np.array(127.5, np.float32), "kernel": WEIGHTS}
    return model(nodes, [value("input_1:0", *shape)], [value("Identity:0", *shape)], constants)


def styled(image: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """What that network makes of pictures [N, 3, H, W] in [0, 1]: the same in [0, 1], float64."""
    signed = image.astype(np.float64) * 2 - 1
    padded = np.pad(signed, ((0, 0), (0, 0), (1, 1), (1, 1)))
    views = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    mixed = np.einsum("nchwij,ocij->nohw", views, WEIGHTS.astype(np.float64))
    return (np.tanh(mixed) + 1) / 2


def tint_predictor() -> onnx.ModelProto:
    """Picture → its mean colour, [N, 3]."""
    mean = helper.make_node("ReduceMean", ["image"], ["style_code"], axes=[2, 3], keepdims=0)
    return model([mean], [value("image", "n", 3, "h", "w")], [value("style_code", "n", 3)])


def tint_transformer() -> onnx.ModelProto:
    """Picture times colour."""
    nodes = [
        helper.make_node("Unsqueeze", ["style_code", "places"], ["colour"]),
        helper.make_node("Mul", ["image", "colour"], ["image_out"]),
    ]
    shape = ("n", 3, "h", "w")
    inputs = [value("image", *shape), value("style_code", "n", 3)]
    return model(nodes, inputs, [value("image_out", *shape)], {"places": np.array([2, 3])})


def write(
    folder: Path, network: onnx.ModelProto, manifest: str = NHWC_MANIFEST, name: str = "mosaic"
) -> Path:
    """NAME.onnx with NAME.toml; the manifest's path."""
    onnx.save(network, folder / f"{name}.onnx")
    path = folder / f"{name}.toml"
    path.write_text(manifest)
    return path
