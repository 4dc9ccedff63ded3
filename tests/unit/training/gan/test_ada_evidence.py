"""p rises when the discriminator overfits and falls when it does not.

The fakes are drawn from the very distribution that the real images come from, as a perfect
generator's would be. Then only learning the real images by heart tells them apart.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from velatura.training.gan import phases
from velatura.training.gan.ada_plot import plot_runs
from velatura.training.gan.images import ImageSet
from velatura.training.gan.settings import GanSettings
from velatura.training.gan.state import GanState

_START = 0.2


def discs(count: int, rng: torch.Generator) -> Tensor:
    """Discs of random colour and place, float32 [count, 3, 32, 32] in [-1, 1]."""
    axis = torch.arange(32.0)
    x, y = torch.rand(2, count, 1, 1, generator=rng) * 20 + 6
    inside = (axis - x) ** 2 + (axis[:, None] - y) ** 2 < 36  # [count, 32, 32]
    color, ground = torch.rand(2, count, 3, 1, 1, generator=rng) * 2 - 1
    return torch.where(inside[:, None], color, ground)


def p_after(steps: int, real_count: int, out: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """p of a discriminator that sees `real_count` images over and over, after `steps`."""
    settings = GanSettings(
        resolution=32,
        batch=8,
        width=0.0625,
        learning_rate=1e-2,
        ada_kimg=0.8,
        augment="blit",
        augment_p=_START,
    )
    state = GanState(settings, 0, out)
    fresh = torch.Generator().manual_seed(99)
    monkeypatch.setattr(phases, "sample", lambda *_: discs(settings.batch, fresh))
    images = (discs(real_count, torch.Generator().manual_seed(1)) + 1) * 127.5
    source = ImageSet(images.round().to(torch.uint8))
    for state.step in range(steps):
        rng = phases.step_generator(1, state.step)
        real, _ = source.draw(settings.batch, rng)
        phases.discriminator_step(state, real, None, rng)
    return state.ada.p


def test_p_rises_with_few_images_and_falls_with_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = p_after(64, 4, tmp_path, monkeypatch)
    many = p_after(32, 2000, tmp_path, monkeypatch)
    assert few > _START + 0.1
    assert many == pytest.approx(0.0, abs=0.05)


def test_the_plot_takes_a_runs_log(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    log = tmp_path / "run" / "log.csv"
    log.write_text("step,r_t,p\n10,0.5,0.0\n20,0.9,0.1\n")
    plot_runs(tmp_path / "ada.png", [tmp_path / "run", tmp_path / "run"])
    with Image.open(tmp_path / "ada.png") as picture:
        assert picture.size == (1000, 320)
    log.write_text("step,r_t,p\n10,0.5,0.0\n")
    with pytest.raises(ValueError, match="1 rows; nothing to draw yet"):
        plot_runs(tmp_path / "ada.png", [tmp_path / "run"])
