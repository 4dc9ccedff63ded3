"""Labels as latents: the basis, blended labels, and the mapping's rule from z."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from velatura.export.networks.stylegan2 import MappingNetwork
from velatura.training.avatars.compose import label_vector, sample_avatar
from velatura.training.avatars.parts import LABEL_DIM, OPTIONS, WEIGHTS, label_slices
from velatura.training.directions.catalog import EDITS
from velatura.training.directions.supervised import apply_edit
from velatura.training.generator.labels import LabelMapping, blend_labels, latent_loss
from velatura.training.generator.mapping import (
    MAPPING_FILE,
    MappingSettings,
    fit_mapping,
    labels_of_z,
    mapping_config,
)

ATTRIBUTES = [a for a in label_slices() if a != "background"]


def labels_of(count: int) -> torch.Tensor:
    return torch.stack([torch.from_numpy(label_vector(sample_avatar(s))) for s in range(count)])


def test_labels_come_back_from_their_latents() -> None:
    mapping = LabelMapping(LABEL_DIM, 128)
    labels = labels_of(32)
    torch.testing.assert_close(mapping.labels_of(mapping(labels)), labels, atol=1e-5, rtol=0)


def test_the_basis_is_the_same_in_every_process() -> None:
    torch.manual_seed(1)
    first = LabelMapping(LABEL_DIM, 128).basis
    torch.manual_seed(2)
    assert torch.equal(first, LabelMapping(LABEL_DIM, 128).basis)


def test_fewer_dimensions_than_labels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"w_dim: 64 dimensions cannot hold"):
        LabelMapping(LABEL_DIM, 64)


def test_blended_labels_keep_their_leader_by_a_margin() -> None:
    labels = labels_of(256)
    blended = blend_labels(labels, torch.Generator().manual_seed(0), share=1.0)
    for attribute in ATTRIBUTES:
        place = label_slices()[attribute]
        top = blended[:, place].topk(2, dim=1)
        assert torch.equal(top.indices[:, 0], labels[:, place].argmax(dim=1))
        assert (top.values[:, 0] - top.values[:, 1]).min() >= 0.399
    assert torch.equal(
        blended[:, label_slices()["background"]], labels[:, label_slices()["background"]]
    )
    assert (blended != labels).float().mean() > 0.2


def test_the_right_latents_cost_less_than_any_other() -> None:
    mapping = LabelMapping(LABEL_DIM, 128)
    labels = labels_of(16)
    right = latent_loss(mapping(labels), labels, mapping)
    wrong = latent_loss(mapping(labels.roll(1, dims=0)), labels, mapping)
    assert right < 0.2 * wrong


def test_z_draws_options_as_often_as_the_data_set() -> None:
    labels = labels_of_z(torch.randn(40_000, 128, generator=torch.Generator().manual_seed(0)))
    for attribute in ATTRIBUTES:
        share = labels[:, label_slices()[attribute]].mean(dim=0)
        wanted = WEIGHTS.get(attribute, (1 / len(OPTIONS[attribute]),) * len(OPTIONS[attribute]))
        assert (share - torch.tensor(wanted)).abs().max() < 0.01, attribute
    assert labels[:, label_slices()["background"]].abs().max() <= 1


def test_only_the_direction_of_z_counts() -> None:
    z = torch.randn(64, 128, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(labels_of_z(z * 3), labels_of_z(z))


def test_the_fitted_mapping_shows_one_option_of_each_attribute(tmp_path: Path) -> None:
    assert fit_mapping(MappingSettings(samples=8192), tmp_path) > 0.99
    network = MappingNetwork(mapping_config())
    network.load_state_dict(load_file(tmp_path / MAPPING_FILE))
    z = torch.randn(2000, 128, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        found = LabelMapping(LABEL_DIM, 128).labels_of(network(z, torch.ones(len(z))))
    error = (found - labels_of_z(z))[:, : label_slices()["background"].start]
    assert (error.abs() > 0.3).any(dim=1).float().mean() < 0.15  # on the way between two options


@pytest.mark.parametrize("edit", EDITS, ids=lambda e: e.name)
def test_every_named_edit_names_real_options_and_changes_something(edit) -> None:  # type: ignore[no-untyped-def]
    changed = [apply_edit(edit, sample_avatar(seed)) != sample_avatar(seed) for seed in range(40)]
    assert sum(changed) >= 8


def test_named_edits_have_names_of_their_own() -> None:
    assert len({edit.name for edit in EDITS}) == len(EDITS) >= 16
