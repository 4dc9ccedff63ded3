"""Specifications of style networks whose weights somebody brings: AdaIN, and Ghiasi's in torch."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from velatura.export.checkpoints.adain import load_adain
from velatura.export.checkpoints.ghiasi_torch import load_ghiasi
from velatura.export.generator_networks import Origin
from velatura.export.specification import NetworkSpec, Port
from velatura.v1 import bundle_pb2

_ADAIN = ("Huang and Belongie 2017, arXiv:1703.06868",)
_GHIASI = ("Ghiasi et al. 2017, arXiv:1705.06830",)
_SIZES = ((64, 64), (97, 131))
_PREDICTED = (256, 256)  # px of the style pictures that the server sends
_TOLERANCE = 2e-4


def adain_specs(name: str, encoder: Path, decoder: Path, origin: Origin) -> list[NetworkSpec]:
    """Predictor and transformer of pytorch-AdaIN's two files. Raises CheckpointError."""
    predictor, transformer = load_adain(encoder, decoder)
    code = 2 * transformer.channels
    return _specs(name, predictor, transformer, code, origin, ("AdaIN", _ADAIN), least=16)


def ghiasi_specs(name: str, path: Path, origin: Origin) -> list[NetworkSpec]:
    """Predictor and transformer of one file. Raises CheckpointError."""
    predictor, transformer = load_ghiasi(path)
    code = predictor.to_code.out_features
    return _specs(name, predictor, transformer, code, origin, ("Ghiasi", _GHIASI), least=32)


def _specs(
    name: str,
    predictor: nn.Module,
    transformer: nn.Module,
    code_dim: int,
    origin: Origin,
    method: tuple[str, tuple[str, ...]],
    least: int,
) -> list[NetworkSpec]:
    kind, papers = method
    code = Port("style_code", (-1, code_dim), layout="N, dimension")
    return [
        NetworkSpec(
            name=f"{name}-style-predictor",
            role=bundle_pb2.ROLE_STYLE_PREDICTOR,
            module=predictor,
            inputs=(_picture("image", least),),
            outputs=(code,),
            background=origin.background(
                f"Style predictor ({kind}): any picture to the code of its style.",
                "Turning a picture into a style; codes of several pictures mix linearly.",
                papers,
            ),
            tolerance=_TOLERANCE,
            sizes=_SIZES,
            counted_at=_PREDICTED,
        ),
        NetworkSpec(
            name=f"{name}-style-transformer",
            role=bundle_pb2.ROLE_STYLE_TRANSFORMER,
            module=transformer,
            inputs=(_picture("image", 16), code),
            outputs=(_picture("image_out", 16),),
            background=origin.background(
                f"Style transformer ({kind}): repaints a picture in the style of a code.",
                "Style transfer from any picture, at any size from 16 px.",
                papers,
            ),
            tolerance=_TOLERANCE,
            sizes=_SIZES,
            counted_at=_PREDICTED,
        ),
    ]


def _picture(name: str, least: int) -> Port:
    return Port(name, (-1, 3, -1, -1), 0, 1, "NCHW", least=least)
