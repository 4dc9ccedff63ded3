"""What is to be exported: a torch module, its tensors, and what people should know about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from velatura.v1 import bundle_pb2

FloatArray = npt.NDArray[np.float32]
Computed = Mapping[str, npt.NDArray[Any]]
"""Outputs by name, in whatever precision they were computed."""
Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Port:
    """One input or output. The first axis is the batch (-1); other free axes are height and width.

    `low < high` states the values' range; without one, values are about standard normal.
    """

    name: str
    shape: tuple[int, ...]
    low: float = 0.0
    high: float = 0.0
    layout: str = ""
    sums_to_one: bool = False
    least: int = 1
    """Smallest free height and width."""
    multiple_of: int = 0
    """What free heights and widths must be multiples of; 0 for any."""
    dtype: str = "float32"
    """By numpy's name: float32, or uint8 for pictures [N, H, W, 3] as they come and go."""

    def resolved(self, batch: int, size: Size | None) -> tuple[int, ...]:
        """Extents with the batch and, where they are free, height and width filled in."""
        spatial = iter(size or ())
        return (batch, *(next(spatial) if extent == -1 else extent for extent in self.shape[1:]))

    def sample(self, rng: np.random.Generator, batch: int, size: Size | None) -> FloatArray:
        """Random values of this port's kind; pictures are smooth plus noise, as photographs are."""
        shape = self.resolved(batch, size)
        if self.sums_to_one:
            return rng.dirichlet(np.full(shape[1], 0.3), size=batch).astype(np.float32)
        if self.dtype == "uint8":
            pixels: FloatArray = self._pixels(rng, shape)  # as the graph takes them
            return pixels
        if self.high <= self.low:
            return rng.standard_normal(shape).astype(np.float32)
        if len(shape) != 4:
            return rng.uniform(self.low, self.high, shape).astype(np.float32)
        coarse = torch.from_numpy(rng.uniform(0.1, 0.9, (*shape[:2], 6, 6)))
        smooth = nn.functional.interpolate(coarse, size=shape[2:], mode="bicubic").numpy()
        noisy = np.clip(smooth + rng.normal(0, 0.05, shape), 0, 1)
        return (self.low + noisy * (self.high - self.low)).astype(np.float32)

    def _pixels(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
        """uint8 [N, H, W, 3] of the same kind of picture."""
        n, height, width, channels = shape
        planes = Port(self.name, (-1, channels, height, width), 0, 255).sample(rng, n, None)
        return planes.transpose(0, 2, 3, 1).round().astype(np.uint8)

    def to_spec(self) -> bundle_pb2.TensorSpec:
        return bundle_pb2.TensorSpec(
            name=self.name,
            dtype=self.dtype,
            shape=self.shape,
            range_min=self.low,
            range_max=self.high,
            layout=self.layout,
            multiple_of=self.multiple_of if -1 in self.shape[1:] else 0,
        )


@dataclass(frozen=True)
class Reference:
    """Another implementation that the written graph must agree with, at the sizes it can do."""

    name: str
    run: Callable[[Mapping[str, FloatArray]], Computed]
    tolerance: float
    sizes: tuple[Size | None, ...] = (None,)
    batch_sizes: tuple[int, ...] = (1,)
    inputs: Callable[[int, Size | None], dict[str, FloatArray]] | None = None
    """Inputs for a batch and size, where random ones of the ports' kinds would not be typical."""


@dataclass(frozen=True)
class Background:
    """What people should know about the weights; it goes into the manifest and the model card."""

    description: str
    license: str
    source: str
    training_data: str
    intended_use: str = ""
    limits: str = ""
    papers: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingRun:
    """One command that was run; `steps` and `minutes` are 0 where they are not known."""

    command: str
    steps: int = 0
    minutes: float = 0.0


@dataclass(frozen=True)
class NetworkSpec:
    """One network, ready to trace: `module` is in eval mode and takes the inputs in order."""

    name: str
    role: bundle_pb2.Role
    module: nn.Module
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    background: Background
    traced: nn.Module | None = None
    """The same function written for speed, to be traced in place of `module`, with which the graph
    is compared all the same."""
    written_for: str = ""
    """The provider that `traced` was written for, where others would rather have another form."""
    tolerance: float = 1e-4
    """Largest absolute error allowed against torch, for outputs of magnitude one."""
    sizes: tuple[Size | None, ...] = (None,)
    """Heights and widths to check; (None,) where the size is fixed."""
    batch_sizes: tuple[int, ...] = (1, 3, 8)
    """Batches to check: at least three, or a traced extent could pass for a free one."""
    counted_at: Size | None = None
    """Height and width for the operation count, where they are free."""
    references: tuple[Reference, ...] = ()
    twins: tuple[NetworkSpec, ...] = ()
    """The same module at other fixed sizes: traced and verified with this one, and not kept."""
    precision: str = "float32"
    """What the module computes in, for the reports: "float32" or "float16"."""
    half_weights: bool = False
    """Store the weights in float16; `tolerance` must leave room for their rounding."""
    labels: tuple[str, ...] = ()
    max_batch_size: int = 0
    version: str = "1"
    figures: tuple[bundle_pb2.Figure, ...] = field(default=())
    training: tuple[TrainingRun, ...] = ()
    """The runs that made the weights, first to last."""
    pictures: Callable[[], Tensor] | None = None
    """What the card shows: images [N, 3, H, W] in [-1, 1], `picture_columns` a row."""
    picture_columns: int = 8

    @property
    def free_size(self) -> bool:
        return any(-1 in port.shape[1:] for port in self.inputs)

    def sample(self, batch: int, size: Size | None, seed: int = 0) -> dict[str, FloatArray]:
        """Inputs by name, the same for the same arguments."""
        rng = np.random.default_rng(seed)
        return {port.name: port.sample(rng, batch, size) for port in self.inputs}

    def run_torch(self, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """The torch module's outputs by name."""
        with torch.inference_mode():
            result = self.module(*(torch.from_numpy(inputs[port.name]) for port in self.inputs))
        tensors: tuple[Tensor, ...] = (result,) if isinstance(result, Tensor) else tuple(result)
        return {p.name: t.numpy() for p, t in zip(self.outputs, tensors, strict=True)}
