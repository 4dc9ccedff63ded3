"""Generated samples against held-out renders: FID, KID, precision, recall and IS.

All through torch-fidelity. The distance between two disjoint sets of renders of the same size is
the floor: what a perfect generator would get.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch_fidelity
from rich.progress import track
from torch import Tensor
from torch.utils.data import Dataset

from velatura.export.networks.stylegan2 import Generator
from velatura.training.avatars.compose import compose_images, sample_avatar
from velatura.training.avatars.layers import LayerSet
from velatura.training.evaluation.extractor import Extractor
from velatura.training.evaluation.figures import Measured, held_out_seeds

PSIS = (0.7, 1.0)
RENDERS = "renders"
_BATCH = 64
_SEED = 20
# Beyond these seeds the renders of the other measurements are not touched.
_SKIP = 10_000


@dataclass(frozen=True)
class Likeness:
    """One set of pictures against the held-out renders."""

    fid: float
    kid: float
    precision: float
    recall: float
    inception_score: float


class _Pictures(Dataset[Tensor]):
    """Pictures uint8 [N, 3, R, R], as torch-fidelity takes them."""

    def __init__(self, pictures: Tensor) -> None:
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Tensor:
        return self._pictures[index]


@torch.inference_mode()
def draw_samples(generator: Generator, count: int, psi: float, seed: int = _SEED) -> Tensor:
    """Samples uint8 [N, 3, R, R] at truncation `psi`."""
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(count, generator.config.z_dim, generator=rng)
    parts = []
    for part in track(torch.split(z, _BATCH), description=f"samples at psi {psi:g}"):
        made = generator(part, torch.full((len(part),), psi)).clamp(-1, 1)
        parts.append(((made + 1) * 127.5).round().to(torch.uint8))
    return torch.cat(parts)


def held_out_renders(layers: LayerSet, count: int, skip: int) -> Tensor:
    """Renders uint8 [N, 3, R, R] of held-out seeds."""
    seeds = torch.tensor(held_out_seeds(count, skip))
    parts = [
        compose_images([sample_avatar(s) for s in part.tolist()], layers)
        for part in torch.split(seeds, _BATCH)
    ]
    return torch.cat(parts)


def compare(
    pictures: Tensor, reference: Tensor, extractor: Extractor, cache: str | None = None
) -> Likeness:
    """torch-fidelity's metrics of uint8 [N, 3, R, R] against others, at least 8 of each.

    `cache` is a folder that keeps the reference's features between calls.
    """
    count = min(len(pictures), len(reference))
    found = torch_fidelity.calculate_metrics(
        input1=_Pictures(pictures),
        input2=_Pictures(reference),
        input2_cache_name=None if cache is None else f"reference-{len(reference)}",
        cache=cache is not None,
        cache_root=cache,
        cuda=False,
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        batch_size=_BATCH,
        feature_extractor=extractor.name,
        feature_extractor_weights_path=str(extractor.weights),
        kid_subset_size=min(1000, count // 2),
        isc_splits=max(1, min(10, count // 200)),
        save_cpu_ram=True,  # loads in this process: workers would copy the pictures
        verbose=False,
    )
    return Likeness(
        found[torch_fidelity.KEY_METRIC_FID],
        found[torch_fidelity.KEY_METRIC_KID_MEAN],
        found[torch_fidelity.KEY_METRIC_PRECISION],
        found[torch_fidelity.KEY_METRIC_RECALL],
        found[torch_fidelity.KEY_METRIC_ISC_MEAN],
    )


def measure_samples(
    generator: Generator,
    layers: LayerSet,
    extractor: Extractor,
    count: int,
    psis: Sequence[float] = PSIS,
) -> dict[str, Likeness]:
    """`renders` (the floor) and `psi_…` → likeness to the same held-out renders.

    `count` pictures of each kind, at least 8.
    """
    reference = held_out_renders(layers, count, _SKIP)
    with tempfile.TemporaryDirectory(prefix="velatura-features-") as cache:
        others = held_out_renders(layers, count, _SKIP + count)
        found = {RENDERS: compare(others, reference, extractor, cache)}
        for psi in psis:
            drawn = draw_samples(generator, count, psi)
            found[f"psi_{psi:g}"] = compare(drawn, reference, extractor, cache)
    return found


def sample_figures(found: dict[str, Likeness], count: int, extractor: Extractor) -> list[Measured]:
    """Every figure with the extractor beside it; `FID/ratio_…` is in units of the floor."""
    place = f"{count} pictures against {count} held-out renders, {extractor.note}"
    floor = found[RENDERS].fid
    figures = []
    for name, likeness in found.items():
        figures += [
            Measured(f"FID/{name}", likeness.fid, "", place),
            Measured(f"KID/{name}", likeness.kid, "", place),
            Measured(f"precision/{name}", likeness.precision, "", place),
            Measured(f"recall/{name}", likeness.recall, "", place),
            Measured(f"IS/{name}", likeness.inception_score, "", f"{place}, {extractor.classes}"),
        ]
        if name != RENDERS:
            figures.append(Measured(f"FID/ratio_{name}", likeness.fid / floor, "×", place))
    return figures
