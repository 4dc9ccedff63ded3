"""Figures against their formulas, on networks so simple that the answer is known."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from velatura.training.avatars.compose import label_vector, sample_avatar
from velatura.training.avatars.parts import LABEL_DIM, OPTIONS, label_slices
from velatura.training.classifier.reading import read_options
from velatura.training.directions.catalog import EDITS, NamedEdit
from velatura.training.evaluation.consistency import consistency_figures, measure_return
from velatura.training.evaluation.directions import SUPERVISED, find_ranges
from velatura.training.evaluation.edits import Faces, measure_edit
from velatura.training.evaluation.extractor import joint_logits
from velatura.training.evaluation.inversion import agreement
from velatura.training.evaluation.path_length import lerp, path_length, slerp
from velatura.v1 import bundle_pb2

WS = 3
SMILE = next(edit for edit in EDITS if edit.name == "smile")
BLUE = next(edit for edit in EDITS if edit.name == "background_blue")


class _Pictures(nn.Module):
    """A generator whose pictures are its latents: [N, WS, L] → [N, 1, WS, L]."""

    def synthesis(self, w_plus: Tensor) -> Tensor:
        return w_plus[:, None]


GENERATOR: Any = _Pictures()


class _Reader(nn.Module):
    """A judge and encoder that know it: scores are the first layer."""

    def forward(self, image: Tensor) -> Tensor:
        return image[:, 0, 0]


def faces_of(count: int) -> Faces:
    """Faces with beards, so that every attribute shows; labels shrunk to leave room for edits."""
    avatars = [
        sample_avatar(s).with_choices(mouth="sad", facial_hair="beard") for s in range(count)
    ]
    labels = torch.stack([torch.from_numpy(label_vector(a)) for a in avatars])
    scores = 0.5 * labels
    background = label_slices()["background"]
    scores[:, background] = labels[:, background]
    return Faces(scores[:, None].expand(-1, WS, -1), scores, labels)


def offsets(**moves: tuple[str, float]) -> Tensor:
    """Zero but for `attribute=(option, amount)`, in every layer."""
    found = torch.zeros(WS, LABEL_DIM)
    for attribute, (option, amount) in moves.items():
        found[:, label_slices()[attribute].start + list(OPTIONS[attribute]).index(option)] = amount
    return found


def measure(edit: NamedEdit, moved: Tensor, strength: float = 1.0) -> Any:
    return measure_edit(edit, moved, faces_of(8), GENERATOR, _Reader(), strength)


def test_an_edit_that_says_what_it_does_succeeds_and_preserves() -> None:
    effect = measure(SMILE, offsets(mouth=("smile", 0.9)))
    assert (effect.success, effect.preservation) == (1.0, 1.0)


def test_too_little_strength_does_not_succeed() -> None:
    assert measure(SMILE, offsets(mouth=("smile", 0.9)), strength=0.5).success == 0.0


def test_a_side_effect_costs_its_share_of_the_other_attributes() -> None:
    moved = offsets(mouth=("smile", 0.9), hair=("fro", 0.9))
    was = read_options(faces_of(8).labels)["hair"] == list(OPTIONS["hair"]).index("fro")
    changed = float((~was).float().mean())
    effect = measure(SMILE, moved)
    assert effect.success == 1.0
    assert effect.preservation == pytest.approx(1 - changed / (len(OPTIONS) - 1))


def test_half_the_way_to_a_background_is_an_approach_of_a_half() -> None:
    assert BLUE.background is not None
    faces = faces_of(1)
    place = label_slices()["background"]
    goal = torch.tensor(BLUE.background).flatten() / 127.5 - 1
    moved = torch.zeros(WS, LABEL_DIM)
    moved[:, place] = (goal - faces.scores[0, place]) / 2
    effect = measure_edit(BLUE, moved, faces, GENERATOR, _Reader())
    assert effect.success is None
    assert effect.approach == pytest.approx(0.5, abs=1e-5)
    assert effect.preservation == 1.0


@pytest.mark.parametrize(("side_effect", "greatest"), [(0.0, 3.0), (0.4, 1.0)])
def test_useful_strengths_end_where_other_attributes_change(
    side_effect: float, greatest: float
) -> None:
    config = SimpleNamespace(num_ws=WS, w_dim=LABEL_DIM)
    generator = SimpleNamespace(synthesis=GENERATOR.synthesis, config=config)
    subjects: Any = SimpleNamespace(generator=generator, judge=_Reader())
    moved = offsets(mouth=("smile", 0.9), hair=("fro", side_effect), brows=("flat", side_effect))
    entry = bundle_pb2.DirectionEntry(
        name="smile", method=SUPERVISED, offsets=moved.flatten().tolist()
    )
    found = bundle_pb2.DirectionSet(directions=[entry])
    find_ranges(subjects, found, faces_of(8))
    assert found.directions[0].max_strength == greatest
    assert found.directions[0].min_strength == -2.0


class _Encoder(nn.Module):
    """Reads the latents back, all but what `lost` says."""

    def __init__(self, lost: Tensor) -> None:
        super().__init__()
        self.lost = lost

    def forward(self, image: Tensor) -> Tensor:
        return image[:, 0] * (1 - self.lost)


def go_and_return(lost: Tensor) -> Any:
    subjects: Any = SimpleNamespace(generator=GENERATOR, encoder=_Encoder(lost), judge=_Reader())
    return measure_return(SMILE, offsets(mouth=("smile", 0.5)), faces_of(8), subjects)


def test_a_perfect_encoder_takes_every_edit_back() -> None:
    found = go_and_return(torch.zeros(LABEL_DIM))
    assert found.psnr > 90
    assert (found.others, found.edited) == (1.0, 1.0)


def test_an_encoder_that_forgets_an_attribute_is_found_out() -> None:
    lost = torch.zeros(LABEL_DIM)
    lost[label_slices()["clothing"]] = 1
    found = go_and_return(lost)
    kept = read_options(faces_of(8).labels)["clothing"] == 0  # what nothing reads as
    assert found.others == pytest.approx(1 - float((~kept).float().mean()) / (len(OPTIONS) - 1))
    assert found.edited == 1.0
    assert found.psnr < 60
    figures = {f.name: f.value for f in consistency_figures({"smile": found}, 8)}
    assert figures["consistency/others"] == found.others


def test_agreement_counts_only_the_faces_that_count() -> None:
    zeros = {a: torch.zeros(4, dtype=torch.int64) for a in OPTIONS}
    changed = zeros | {"mouth": torch.tensor([0, 1, 1, 0])}
    counted = {a: torch.tensor([True, True, False, False]) for a in OPTIONS}
    found = agreement(zeros, changed, counted)
    assert found["mouth"] == 0.5
    assert found["eyes"] == 1.0


def test_joint_logits_are_the_product_of_both_softmaxes() -> None:
    scores = torch.randn(5, LABEL_DIM, dtype=torch.float64)
    mouth, hair = (scores[:, label_slices()[a]].softmax(dim=1) for a in ("mouth", "hair"))
    expected = torch.einsum("nm,nh->nmh", mouth, hair).flatten(1)
    torch.testing.assert_close(joint_logits(scores).softmax(dim=1), expected)


def test_slerp_runs_evenly_along_the_great_circle() -> None:
    a, b = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[0.0, 5.0, 0.0]])
    for t in (0.0, 0.25, 1.0):
        angle = t * math.pi / 2
        expected = torch.tensor([[math.cos(angle), math.sin(angle), 0.0]])
        torch.testing.assert_close(slerp(a, b, torch.tensor([[t]])), expected)
    torch.testing.assert_close(lerp(a, b, torch.tensor([[0.25]])), torch.tensor([[1.5, 1.25, 0.0]]))


class _Sphere(nn.Module):
    """A generator and a judge whose features are z itself: [N, D] all the way."""

    config = SimpleNamespace(z_dim=6, num_ws=2)

    def mapping(self, z: Tensor, truncation_psi: Tensor) -> Tensor:
        assert truncation_psi.eq(1).all()
        return z

    def synthesis(self, w_plus: Tensor) -> Tensor:
        return w_plus[:, 0] / 10  # inside of the clamp

    def features(self, image: Tensor) -> Tensor:
        return image


def test_path_length_on_the_sphere_is_the_squared_angle() -> None:
    network = cast("Any", _Sphere())
    count = 200
    ends = torch.randn(2, count, 6, generator=torch.Generator().manual_seed(30)).double().numpy()
    unit = ends / np.linalg.norm(ends, axis=2, keepdims=True)
    squares = np.arccos((unit[0] * unit[1]).sum(axis=1)) ** 2
    low = np.percentile(squares, 1, method="lower")
    high = np.percentile(squares, 99, method="higher")
    expected = squares[(squares >= low) & (squares <= high)].mean()
    assert path_length(network, network, count, "z") == pytest.approx(expected, rel=2e-3)


def test_an_unknown_space_is_refused() -> None:
    network = cast("Any", _Sphere())
    with pytest.raises(ValueError, match="space: 's' is none of"):
        path_length(network, network, 8, "s")
