"""The last steps of every foreign generator: resampling filters, strict loading, average latent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from velatura.export.errors import CheckpointError
from velatura.export.latents import average_w
from velatura.export.networks.stylegan2 import Generator, GeneratorConfig

RESOLUTIONS = (8, 16, 32, 64, 128, 256, 512, 1024)
_CHANNELS = 4096
_LONGEST_FILTER = 8


def assemble(config: GeneratorConfig, state: Mapping[str, Tensor]) -> Generator:
    """A generator in eval mode and float32 from all of its weights but, perhaps, `mapping.w_avg`.

    Raises CheckpointError that names the tensors which are missing, left over or of another shape.
    """
    with torch.device("meta"):  # nothing is drawn at random only to be overwritten
        generator = Generator(config)
    complete = {name: tensor.float() for name, tensor in state.items()}
    averaged = "mapping.w_avg" in complete
    if not averaged:
        complete["mapping.w_avg"] = torch.zeros(config.w_dim)
    try:
        generator.load_state_dict(complete, strict=True, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"the tensors are not those of StyleGAN2: {error}") from error
    for name, tensor in complete.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{name} holds numbers that are not finite")
    if not averaged:
        generator.mapping.w_avg.copy_(average_w(generator.mapping))
    return generator.eval().requires_grad_(False)


def filter_taps(kernels: Mapping[str, Tensor], gain: float) -> tuple[int, ...]:
    """The one separable filter behind all `kernels` [t, t], each of sum `gain`, as whole numbers.

    Raises CheckpointError for filters that differ, are not separable or not symmetric.
    """
    name, first = next(iter(kernels.items()))
    for other, kernel in kernels.items():
        if kernel.shape != first.shape or not torch.allclose(kernel, first, atol=1e-6):
            raise CheckpointError(f"{other} differs from {name}; one filter for all is supported")
    size = first.shape[0] if first.ndim else 0
    if first.shape != (size, size) or not 2 <= size <= _LONGEST_FILTER or size % 2:
        raise CheckpointError(
            f"{name} has shape {list(first.shape)}; square filters of 2 to {_LONGEST_FILTER} even "
            "taps are supported"
        )
    sums = first.double().sum(dim=0)
    smallest = sums.abs().min()
    if not torch.isfinite(first).all() or smallest == 0:
        raise CheckpointError(f"{name} has a tap of zero or one that is not finite")
    taps = (sums / smallest).round()
    rebuilt = torch.outer(taps, taps) * (gain / taps.sum() ** 2)
    if not torch.allclose(rebuilt, first.double(), atol=1e-5) or not taps.equal(taps.flip(0)):
        raise CheckpointError(
            f"{name} is not the outer product of one symmetric filter of whole numbers, such as "
            "1 3 3 1"
        )
    return tuple(int(tap) for tap in taps)


def channels_of(shapes: Mapping[int, Sequence[int]]) -> dict[int, int]:
    """Feature maps by resolution, from the shapes [out, in, 3, 3] of the second convolutions.

    Raises CheckpointError when the resolutions do not double from 4 up to one that is supported.
    """
    largest = max(shapes, default=0)
    if largest not in RESOLUTIONS:
        raise CheckpointError(
            f"the resolution is {largest}; supported are {', '.join(map(str, RESOLUTIONS))}"
        )
    wanted = [2**i for i in range(2, int(math.log2(largest)) + 1)]
    if sorted(shapes) != wanted:
        raise CheckpointError(f"there are blocks for {sorted(shapes)} px, expected {wanted}")
    channels = {}
    for resolution in wanted:
        shape = shapes[resolution]
        if len(shape) != 4 or not 0 < shape[0] <= _CHANNELS:
            raise CheckpointError(
                f"the {resolution} px block has a convolution of shape {list(shape)}, expected "
                f"[out, in, 3, 3] with at most {_CHANNELS} channels"
            )
        channels[resolution] = shape[0]
    return channels
