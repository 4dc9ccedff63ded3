"""Proves that a synthesis network in float16 neither overflows nor shows it, and makes its spec."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from velatura.export.errors import ExportError
from velatura.export.formats import Precision
from velatura.export.half import in_half
from velatura.export.latents import sample_w
from velatura.export.networks.stylegan2 import MappingNetwork, SynthesisNetwork
from velatura.export.specification import Computed, FloatArray, NetworkSpec, Reference
from velatura.v1 import bundle_pb2

LATENTS = 1000
LEAST_PSNR = 40.0  # dB against float32, of images in [-1, 1]
_LARGEST = float(torch.finfo(torch.float16).max)
_PSNR_IMAGES = 32  # computed in float32 as well
_BATCH = 4
_TOLERANCE = 0.05  # largest difference of a sample; the PSNR is what decides
Spec = TypeVar("Spec")

Advance = Callable[[int], None]
"""Called with how many latents are done."""


@dataclass(frozen=True)
class HalfFigures:
    """What was seen over random latents at psi 1."""

    latents: int
    largest: float
    """Largest magnitude of any float16 tensor, sums before demodulation included."""
    psnr: float
    """dB against float32."""

    def to_figures(self) -> tuple[bundle_pb2.Figure, ...]:
        largest, psnr = round(self.largest, 1), round(self.psnr, 1)
        seen = f"{self.latents:,} random latents at psi 1, float16 computed by torch on a CPU"
        few = f"{min(self.latents, _PSNR_IMAGES)} of them, against float32"
        return (
            bundle_pb2.Figure(name="float16/largest", value=largest, measured_on=seen),
            bundle_pb2.Figure(name="float16/PSNR", value=psnr, unit="dB", measured_on=few),
        )


class _Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Largest magnitude of every float16 tensor that torch computes; infinity for NaN."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest = 0.0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dtype == torch.float16 and result.numel():
            peak = float(result.abs().amax())
            self.largest = max(self.largest, peak if np.isfinite(peak) else np.inf)
        return result


def measure_half(
    exact: SynthesisNetwork,
    half: SynthesisNetwork,
    mapping: MappingNetwork,
    count: int = LATENTS,
    advance: Advance = lambda _done: None,
) -> HalfFigures:
    """Run `count` random latents; stops at the first that overflows, with `largest` infinite."""
    w = sample_w(mapping, count)  # [count, w_dim]
    peak, squares, samples = _Peak(), 0.0, 0
    with torch.no_grad():
        for start in range(0, count, _BATCH):
            rows = w[start : start + _BATCH, None].expand(-1, exact.config.num_ws, -1)
            with peak:
                image = half(rows)  # [n, 3, R, R]
            if not np.isfinite(peak.largest) or not image.isfinite().all():
                return HalfFigures(start + len(rows), float("inf"), 0.0)
            if start < _PSNR_IMAGES:
                squares += float((image - exact(rows)).double().square().sum())
                samples += image.numel()
            advance(len(rows))
    # The range [-1, 1] is 2 wide.
    psnr = 10 * np.log10(4 * samples / squares) if squares else np.inf
    return HalfFigures(count, peak.largest, min(float(psnr), 200.0))


def half_synthesis(
    spec: NetworkSpec,
    mapping: MappingNetwork,
    count: int = LATENTS,
    advance: Advance = lambda _done: None,
) -> NetworkSpec:
    """The spec of the same synthesis network in float16, with its figures.

    Raises ExportError when a latent overflows or the images are further than 40 dB from float32.
    """
    exact = spec.module
    if not isinstance(exact, SynthesisNetwork):
        raise ExportError(f"{spec.name}: float16 is for StyleGAN2 synthesis networks")
    half = in_half(exact)
    figures = measure_half(exact, half, mapping, count, advance)
    if figures.largest > _LARGEST:
        raise ExportError(
            f"{spec.name}: float16 overflows within {figures.latents} latents; leave out "
            "--precision float16"
        )
    if figures.psnr < LEAST_PSNR:
        raise ExportError(
            f"{spec.name}: float16 is {figures.psnr:.1f} dB from float32, at least "
            f"{LEAST_PSNR:.0f} are wanted; leave out --precision float16"
        )

    def in_float32(values: Mapping[str, FloatArray]) -> Computed:
        return spec.run_torch(values)

    kept = (replace(reference, tolerance=_TOLERANCE) for reference in spec.references)
    return replace(
        spec,
        module=half,
        traced=None,
        written_for="",
        precision=Precision.FLOAT16.value,
        tolerance=_TOLERANCE,
        references=(Reference("torch float32", in_float32, _TOLERANCE, batch_sizes=(2,)), *kept),
        figures=(*spec.figures, *figures.to_figures()),
    )


def synthesis_in_float16(
    specs: Sequence[Spec],
    generators: Iterable[bundle_pb2.GeneratorEntry],
    count: int = LATENTS,
    advance: Advance = lambda _done: None,
) -> list[Spec | NetworkSpec]:
    """The networks of a bundle with each generator's synthesis in float16.

    Mapping networks, encoders and all others stay in float32. Raises ExportError as above, and when
    there is no generator.
    """
    by_name = {getattr(spec, "name", ""): spec for spec in specs}
    replaced: dict[str, NetworkSpec] = {}
    for entry in generators:
        synthesis, mapping = by_name[entry.synthesis], by_name[entry.mapping]
        if not isinstance(synthesis, NetworkSpec) or not isinstance(mapping, NetworkSpec):
            raise ExportError(f"{entry.name}: float16 is for generators that are traced")
        if not isinstance(mapping.module, MappingNetwork):
            raise ExportError(f"{entry.name}: float16 is for StyleGAN2 generators")
        replaced[entry.synthesis] = half_synthesis(synthesis, mapping.module, count, advance)
    if not replaced:
        raise ExportError("--precision float16: there is no generator to compute in it")
    return [replaced.get(getattr(spec, "name", ""), spec) for spec in specs]
