"""Components named by what a judge sees them do, on a small generator and a judge of formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from velatura.export.networks.stylegan2 import Generator, GeneratorConfig
from velatura.training.avatars.parts import LABEL_DIM, OPTIONS, label_slices
from velatura.training.directions import unsupervised
from velatura.training.directions.unsupervised import Component, changed, choose, component_names
from velatura.v1 import bundle_pb2

CONFIG = GeneratorConfig(
    resolution=32, z_dim=8, w_dim=8, mapping_layers=2, channels={4: 8, 8: 8, 16: 8, 32: 4}
)
LAYERS = {"coarse": (0, 4), "middle": (4, 8)}  # 32 px have no fine ones


def judge(images: Tensor) -> Tensor:
    """Reads the options off fixed random projections of the picture."""
    rng = torch.Generator().manual_seed(0)
    small = torch.nn.functional.avg_pool2d(images, 4).flatten(1)  # [N, 192]
    return small @ torch.randn(small.shape[1], LABEL_DIM, generator=rng) * 0.2


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    return Generator(CONFIG).eval()


@pytest.fixture(scope="module")
def found(generator: Generator) -> list[bundle_pb2.DirectionEntry]:
    return unsupervised.named_components(generator, judge, per_method=3, ranks=2, faces=8)


def component(band: str, **changes: float) -> Component:
    everything = {**dict.fromkeys([*OPTIONS, "background"], 0.0), **changes}
    return Component(bundle_pb2.DirectionEntry(), band, 1.5, everything)


def test_each_method_gives_as_many_as_asked_under_names_of_their_own(
    found: list[bundle_pb2.DirectionEntry],
) -> None:
    assert [entry.method for entry in found] == ["sefa"] * 3 + ["ganspace"] * 3
    assert len({entry.name for entry in found}) == 6
    for entry in found:
        method, band, attribute = entry.name.split("_", 2)
        assert method == entry.method
        assert (entry.layer_start, entry.layer_end) == LAYERS[band]
        assert attribute.startswith(entry.attribute)
        assert entry.space == "W"
        assert len(entry.offsets) == CONFIG.w_dim
        assert entry.min_strength <= -1 < entry.default_strength == 1 <= entry.max_strength
        assert entry.attribute.replace("_", " ") in entry.description


def test_the_figures_are_what_the_judge_sees_at_strength_one(
    generator: Generator, found: list[bundle_pb2.DirectionEntry]
) -> None:
    faces = unsupervised.sample_faces(generator, judge, 8)
    for entry in found:
        shares = []
        for sign in (1, -1):
            w_plus = faces.w_plus.clone()
            row = torch.tensor(list(entry.offsets))
            w_plus[:, entry.layer_start : entry.layer_end] += sign * row
            with torch.inference_mode():
                scores = judge(generator.synthesis(w_plus).clamp(-1, 1))
            shares.append(changed(faces.scores, scores))
        means = {name: (shares[0][name] + shares[1][name]) / 2 for name in shares[0]}
        figures = {figure.name: figure.value for figure in entry.figures}
        own = means[entry.attribute]  # one reading of 16 may turn: offsets are rounded when kept
        assert figures[f"changed/{entry.attribute}"] == pytest.approx(own, abs=0.07)
        assert own == pytest.approx(max(means.values()), abs=0.07)
        others = [1 - share for name, share in means.items() if name != entry.attribute]
        assert figures["preservation"] == pytest.approx(sum(others) / len(others), abs=0.05)


def test_changes_are_counted_for_each_attribute() -> None:
    before = torch.zeros(4, LABEL_DIM)
    places = label_slices()
    for attribute in OPTIONS:
        before[:, places[attribute].start] = 1
    after = before.clone()
    after[0, places["mouth"].start + 2] = 2  # another option leads on one face of four
    after[:2, places["eyes"].start] = 0.1  # still leading
    after[:3, places["background"]] += 0.3
    after[3, places["background"]] += 0.1  # hardly to be seen
    assert changed(before, after) == {
        **dict.fromkeys(OPTIONS, 0.0), "mouth": 0.25, "background": 0.75,
    }  # fmt: skip


def test_the_purest_of_each_attribute_come_first() -> None:
    pure, mixed = component("fine", hair=0.6), component("fine", hair=0.9, skin=0.9, mouth=0.9)
    weak, skin = component("fine", mouth=0.2), component("coarse", skin=0.5, hair=0.4)
    again = component("middle", hair=0.55)
    assert (pure.purity, mixed.purity) == (pytest.approx(0.6), pytest.approx(0.0))
    assert choose([weak, again, skin, pure], 2) == [pure, skin]
    assert choose([weak, again, skin, pure], 4) == [pure, skin, again, weak]


def test_names_are_numbered_where_they_would_repeat() -> None:
    chosen = [component("coarse", hair=1), component("coarse", hair_color=1)]
    chosen += [component("coarse", hair=0.9), component("fine", hair=0.9)]
    chosen += [component("coarse", hair=0.8)]
    assert component_names("sefa", chosen) == [
        "sefa_coarse_hair", "sefa_coarse_hair_color", "sefa_coarse_hair_2", "sefa_fine_hair",
        "sefa_coarse_hair_3",
    ]  # fmt: skip
