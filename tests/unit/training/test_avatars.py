"""The avatar data set: parts laid over each other, labels and masks."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import numpy as np
import pytest
import python_avatars as pa
import resvg_py
import torch
from PIL import Image

from velatura.training.avatars.compose import (
    HELD_OUT_SEED,
    Avatar,
    compose_images,
    compose_masks,
    label_vector,
    sample_avatar,
)
from velatura.training.avatars.dataset import avatar_batches, segmented_avatars
from velatura.training.avatars.layers import VIEW_BOX, LayerSet, render_layers
from velatura.training.avatars.parts import LABEL_DIM, MASK_CLASSES, OPTIONS, label_slices

SIZE = 64


@pytest.fixture(scope="module")
def layers() -> LayerSet:
    return render_layers(SIZE)


def drawn_whole(avatar: Avatar) -> Image.Image:
    """The same face as python-avatars draws it in one go, over grey."""
    part = {a: list(OPTIONS[a].values())[i] for a, i in avatar.choices.items()}
    svg = pa.Avatar(
        style=pa.AvatarStyle.TRANSPARENT,
        top=pa.HairType[part["hair"]],
        eyebrows=pa.EyebrowType[part["brows"]],
        eyes=pa.EyeType[part["eyes"]],
        nose=pa.NoseType.DEFAULT,
        mouth=pa.MouthType[part["mouth"]],
        facial_hair=pa.FacialHairType[part["facial_hair"]],
        skin_color=part["skin"],
        hair_color=part["hair_color"],
        facial_hair_color=part["hair_color"],
        accessory=pa.AccessoryType[part["accessory"]],
        clothing=pa.ClothingType[part["clothing"]],
        clothing_color=part["clothing_color"],
    ).render()
    root = ElementTree.fromstring(svg)  # noqa: S314 - drawn a line above
    for name, value in (("viewBox", VIEW_BOX), ("width", str(SIZE)), ("height", str(SIZE))):
        root.set(name, value)
    png = resvg_py.svg_to_bytes(svg_string=ElementTree.tostring(root, encoding="unicode"))
    whole = Image.new("RGBA", (SIZE, SIZE), (128, 128, 128, 255))
    whole.alpha_composite(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))
    return whole.convert("RGB")


@pytest.mark.parametrize("hair", ["short_flat", "bald", "side_part"])
def test_layers_add_up_to_the_whole_drawing(layers: LayerSet, hair: str) -> None:
    avatar = sample_avatar(3).with_choices(hair=hair, accessory="sunglasses", facial_hair="beard")
    avatar = Avatar(avatar.choices, ((128, 128, 128), (128, 128, 128)))
    ours = compose_images([avatar], layers)[0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(ours - np.asarray(drawn_whole(avatar)).astype(int)).max() <= 6


def test_a_seed_is_one_avatar_and_seeds_differ() -> None:
    assert sample_avatar(17) == sample_avatar(17)
    assert len({str(sample_avatar(seed)) for seed in range(50)}) == 50


def test_labels_are_one_hot_and_the_background_is_in_range() -> None:
    labels = np.stack([label_vector(sample_avatar(seed)) for seed in range(40)])
    assert labels.shape == (40, LABEL_DIM)
    for attribute, place in label_slices().items():
        if attribute == "background":
            assert np.abs(labels[:, place]).max() <= 1
        else:
            assert (labels[:, place].sum(axis=1) == 1).all()


def test_every_option_is_drawn() -> None:
    seen: dict[str, set[str]] = {attribute: set() for attribute in OPTIONS}
    for seed in range(600):
        for attribute, option in sample_avatar(seed).named().items():
            seen[attribute].add(option)
    assert {a: len(options) for a, options in seen.items()} == {
        a: len(o) for a, o in OPTIONS.items()
    }


def test_masks_show_the_parts_where_they_are(layers: LayerSet) -> None:
    avatar = sample_avatar(5).with_choices(
        hair="bald", accessory="none", facial_hair="none", mouth="scream"
    )
    with_glasses = avatar.with_choices(accessory="sunglasses")
    plain, changed = compose_masks([avatar, with_glasses], layers)
    absent = {"hair", "glasses", "facial_hair"}
    assert {MASK_CLASSES[i] for i in plain.unique()} == set(MASK_CLASSES) - absent
    assert (plain[changed != plain] != MASK_CLASSES.index("background")).float().mean() > 0.9
    assert (changed[changed != plain] == MASK_CLASSES.index("glasses")).all()
    rows, _ = (plain == MASK_CLASSES.index("mouth")).nonzero(as_tuple=True)
    assert SIZE * 0.45 < rows.float().mean() < SIZE * 0.75


def test_training_never_draws_held_out_seeds(
    layers: LayerSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []

    def remember(seed: int) -> Avatar:
        drawn.append(seed)
        return sample_avatar(seed)

    monkeypatch.setattr("velatura.training.avatars.dataset.sample_avatar", remember)
    batches = avatar_batches(layers, 64, seed=1)
    for _ in range(8):
        next(batches)
    assert len(drawn) == 512
    assert max(drawn) < HELD_OUT_SEED
    assert max(drawn) > 0.95 * HELD_OUT_SEED  # the whole range is in use


def test_segmented_avatars_pair_images_with_their_masks(layers: LayerSet) -> None:
    data = segmented_avatars(100, 70, layers)
    assert data.images.shape == (70, 3, SIZE, SIZE)
    assert data.labels.shape == (70, SIZE, SIZE)
    one = segmented_avatars(169, 1, layers)
    assert torch.equal(data.images[69], one.images[0])
    assert torch.equal(data.labels[69], one.labels[0])
