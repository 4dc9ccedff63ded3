"""From vectors of a latent space to DirectionEntry messages that fit one generator."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from velatura.export.errors import CheckpointError
from velatura.export.networks.stylegan2 import GeneratorConfig
from velatura.v1 import bundle_pb2

FloatArray = npt.NDArray[np.float64]
Layers = tuple[int, int]  # first, and one past the last
_STRENGTH = 3.0


def entry(
    name: str,
    vector: FloatArray,
    config: GeneratorConfig,
    *,
    layers: Layers | None,
    method: str,
    description: str = "",
    max_strength: float = _STRENGTH,
) -> bundle_pb2.DirectionEntry:
    """One direction that moves `layers` (None: all) and no other.

    A vector [w_dim] or [1, w_dim] belongs to W: it moves each of the layers alike and is kept as
    one row. [num_ws, w_dim] or [1, num_ws, w_dim] belongs to W+ and is kept with rows of zeros
    outside of the layers. Raises CheckpointError for another size, for numbers that are
    not finite or are all zero, and for layers that the generator does not have.
    """
    rows, space = _rows(name, vector, config)
    start, end = require_layers(f"direction {name!r}", layers, config)
    offsets = np.zeros((config.num_ws, config.w_dim))
    offsets[start:end] = rows[start:end]
    if space == "W":
        offsets = rows[:1]
    if not np.isfinite(offsets).all() or not offsets.any():
        raise CheckpointError(
            f"direction {name!r} has numbers that are not finite, or moves nothing in layers "
            f"{start}:{end}"
        )
    return bundle_pb2.DirectionEntry(
        name=name,
        description=description,
        space=space,
        layer_start=start,
        layer_end=end,
        default_strength=1,
        min_strength=-max_strength,
        max_strength=max_strength,
        method=method,
        offsets=offsets.ravel().tolist(),
    )


def require_layers(subject: str, layers: Layers | None, config: GeneratorConfig) -> Layers:
    """`layers`, or all for None. Raises CheckpointError when the generator lacks one of them."""
    start, end = layers or (0, config.num_ws)
    if not 0 <= start < end <= config.num_ws:
        raise CheckpointError(
            f"{subject}: layers {start}:{end} must lie in 0:{config.num_ws} and not be empty"
        )
    return start, end


def _rows(name: str, vector: FloatArray, config: GeneratorConfig) -> tuple[FloatArray, str]:
    shape = vector.shape
    if shape in ((config.w_dim,), (1, config.w_dim)):
        return np.broadcast_to(vector.reshape(1, -1), (config.num_ws, config.w_dim)), "W"
    if shape in ((config.num_ws, config.w_dim), (1, config.num_ws, config.w_dim)):
        return vector.reshape(config.num_ws, config.w_dim), "W+"
    raise CheckpointError(
        f"direction {name!r} has shape {list(shape)}; the generator takes W of [{config.w_dim}] or "
        f"W+ of [{config.num_ws}, {config.w_dim}]. It belongs to another generator"
    )
