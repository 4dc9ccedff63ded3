"""What `velatura-train gan` leaves behind is what `velatura-export bundle --generator` takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from velatura.export.own_bundle import OwnFiles, load_own, origin_of
from velatura.training.gan.images import ImageSet
from velatura.training.gan.settings import GanSettings, RunLength
from velatura.training.gan.train import CLASSES_FILE, train_gan

TINY = GanSettings(resolution=32, batch=4, width=0.0625)


@pytest.mark.parametrize("classes", [(), ("cats", "dogs")], ids=["plain", "labelled"])
def test_a_run_can_be_bundled(tmp_path: Path, discs: ImageSet, classes: tuple[str, ...]) -> None:
    labels = torch.arange(len(discs.images)) % 2 if classes else None
    source = replace(discs, classes=classes, labels=labels)
    state = train_gan(TINY, RunLength(1, save_every=1, log_every=1), source, tmp_path)
    names = tmp_path / CLASSES_FILE
    assert names.exists() == bool(classes)
    files = OwnFiles(tmp_path / "generator.safetensors", classes=names if classes else None)
    own = load_own(files, "mine", origin_of("", ""))
    synthesis, mapping = own.specs
    assert mapping.labels == classes
    assert own.generator.resolution == 32
    inputs = mapping.sample(2, None)
    w = torch.from_numpy(mapping.run_torch(inputs)["w"])
    w_plus = w[:, None].repeat(1, own.generator.num_ws, 1)
    image = synthesis.run_torch({"w_plus": w_plus.numpy()})["image"]
    with torch.inference_mode():
        wanted = state.average(*(torch.from_numpy(inputs[port.name]) for port in mapping.inputs))
    torch.testing.assert_close(torch.from_numpy(image), wanted, atol=1e-5, rtol=1e-5)
