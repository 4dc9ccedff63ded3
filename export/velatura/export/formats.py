"""Names on the command line, apart from their code so that `--help` need not import torch."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """Formats of generator checkpoints."""

    STYLEGAN2_ADA = "stylegan2-ada"
    ROSINALITY = "rosinality"
    INVERSION = "psp"  # pSp, e4e and ReStyle: the decoder of the file


class Precision(StrEnum):
    """What a synthesis network computes in."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


class Provider(StrEnum):
    """What is to run the graphs: onnxruntime's CPU kernels want convolutions written otherwise."""

    CPU = "cpu"
    OPENVINO = "openvino"
    CUDA = "cuda"
    TENSORRT = "tensorrt"


class Fusion(StrEnum):
    """What a single graph holds beside the synthesis network."""

    NONE = "none"
    MAPPING = "mapping+generator"
    ENCODER = "encoder+generator"


class Noise(StrEnum):
    """Where a single graph's noise comes from."""

    CONSTANT = "constant"
    INPUT = "input"


class Layout(StrEnum):
    """Whose folder a bundle is written as."""

    BUNDLE = "bundle"
    TRITON = "triton"


class Quantisation(StrEnum):
    """How int8 gets its ranges."""

    STATIC = "static"
    DYNAMIC = "dynamic"
