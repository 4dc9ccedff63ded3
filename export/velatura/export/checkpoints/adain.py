"""naoto0804's pytorch-AdaIN (`vgg_normalised.pth`, `decoder.pth`) → predictor and transformer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from velatura.export.checkpoints.plain_tensors import fill, read_tensors
from velatura.export.errors import CheckpointError
from velatura.export.networks.adain import (
    AdaInPredictor,
    AdaInTransformer,
    build_decoder,
    build_encoder,
    decoder_positions,
    encoder_positions,
)


def load_adain(encoder: Path, decoder: Path) -> tuple[AdaInPredictor, AdaInTransformer]:
    """Both networks in eval mode, sharing the encoder's tensors.

    Raises CheckpointError naming the file and the tensor that is missing, left over or does not
    fit.
    """
    seen = _load_encoder(encoder)
    try:
        state = read_tensors(decoder)
        widths = _widths(state, decoder_positions())
        if widths[-1] != 3:
            raise CheckpointError(f"the last convolution has {widths[-1]} outputs, expected 3")
        with torch.device("meta"):
            made = build_decoder(_outputs(seen), widths)
        fill(made, state, "pytorch-AdaIN's decoder for this encoder")
    except CheckpointError as error:
        raise type(error)(f"--style-decoder {decoder}: {error}") from error
    return AdaInPredictor(seen).eval(), AdaInTransformer(seen, made).eval()


def _load_encoder(path: Path) -> nn.Sequential:
    try:
        state = read_tensors(path)
        positions = encoder_positions()
        widths = _widths(state, positions)
        # The published file goes on to relu5_4, of which AdaIN uses nothing.
        used = {
            name: tensor
            for name, tensor in state.items()
            if not name.partition(".")[0].isdecimal()
            or int(name.partition(".")[0]) <= positions[-1]
        }
        with torch.device("meta"):
            network = build_encoder(widths[1:])
        fill(network, used, "pytorch-AdaIN's VGG up to relu4_1")
    except CheckpointError as error:
        raise type(error)(f"--style-encoder {path}: {error}") from error
    return network


def _widths(state: dict[str, Tensor], positions: Sequence[int]) -> list[int]:
    """Outputs of the convolutions at these numbers."""
    widths = []
    for position in positions:
        weight = state.get(f"{position}.weight")
        if weight is None or weight.ndim != 4:
            raise CheckpointError(
                f"has no convolution {position}.weight; expected are {positions[0]}.weight, "
                f"{positions[1]}.weight, … {positions[-1]}.weight"
            )
        widths.append(weight.shape[0])
    return widths


def _outputs(encoder: nn.Sequential) -> int:
    convolutions = [layer for layer in encoder if isinstance(layer, nn.Conv2d)]
    return convolutions[-1].out_channels
