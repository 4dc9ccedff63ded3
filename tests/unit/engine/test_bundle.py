"""A bundle loads when everything in it fits, and says which file and field does not otherwise."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from velatura.server.engine.bundle import Bundle
from velatura.server.engine.errors import BundleError, ModelNotFound, UnknownName
from velatura.v1.bundle_pb2 import Role


def test_good_bundle_answers_by_name(bundle_root: Path) -> None:
    bundle = Bundle.load(bundle_root)
    raw = (bundle_root / "manifest.json").read_bytes()
    assert bundle.manifest_sha256 == hashlib.sha256(raw).hexdigest()
    assert bundle.model("tiny-mapping").max_batch_size == 4
    assert bundle.model_file("tiny-mapping").read_bytes()
    assert [entry.name for entry in bundle.models_of(Role.ROLE_SEGMENTER)] == ["tiny-segmenter"]
    assert bundle.models_of(Role.ROLE_CLASSIFIER) == []
    assert bundle.generator() == bundle.generator("tiny")
    assert list(bundle.directions("")["smile"].offsets) == [0.5] * 8
    assert bundle.styles()["mosaic"].index == 1
    assert bundle.default_segmenter == "tiny-segmenter"


def test_unknown_names_list_the_known(bundle_root: Path) -> None:
    bundle = Bundle.load(bundle_root, check_graphs=False)
    with pytest.raises(ModelNotFound, match=r"'nope' is not in the bundle.*tiny-segmenter"):
        bundle.model("nope")
    with pytest.raises(UnknownName, match=r"unknown generator 'nope'. Use one of: tiny") as caught:
        bundle.generator("nope")
    assert (caught.value.kind, caught.value.name, caught.value.known) == (
        "generator",
        "nope",
        ("tiny",),
    )
    with pytest.raises(UnknownName):
        bundle.directions("nope")


def set_in(*path: Any) -> Any:
    """A function that puts the last of `path` where the others lead."""
    *steps, key, value = path

    def edit(document: Any) -> None:
        for step in steps:
            document = document[step]
        document[key] = value

    return edit


MANIFEST_FAULTS = {
    "schema of tomorrow": (set_in("schema_version", 2), "schema_version", "expected 1, found 2"),
    "schema missing": (lambda d: d.pop("schema_version"), "schema_version", "found 0"),
    "unknown field": (set_in("colour", 1), "file", "colour"),
    "no name": (set_in("name", ""), "name", "found nothing"),
    "no models": (set_in("models", []), "models", "at least one network"),
    "model name": (set_in("models", 0, "name", "A B"), "models[0] (A B).name", "lower case"),
    "name twice": (
        set_in("models", 1, "name", "tiny-synthesis"),
        "models",
        "tiny-synthesis more than once",
    ),
    "hash form": (
        set_in("models", 0, "sha256", "12"),
        "models[0] (tiny-synthesis).sha256",
        "64 hex",
    ),
    "hash": (
        set_in("models", 0, "sha256", "0" * 64),
        "models[0] (tiny-synthesis).sha256",
        "damaged",
    ),
    "file missing": (
        set_in("models", 0, "file", "x.onnx"),
        "models[0] (tiny-synthesis).file",
        "x.onnx",
    ),
    "file outside": (
        set_in("models", 0, "file", "../x"),
        "models[0] (tiny-synthesis).file",
        "'..'",
    ),
    "file absolute": (
        set_in("models", 0, "file", "/etc/passwd"),
        "models[0] (tiny-synthesis).file",
        "relative",
    ),
    "card missing": (
        set_in("models", 0, "card", "x.md"),
        "models[0] (tiny-synthesis).card",
        "x.md",
    ),
    "role's tensors": (
        set_in("models", 2, "inputs", 0, "name", "picture"),
        "models[2] (tiny-segmenter).inputs",
        "expected image",
    ),
    "dtype": (
        set_in("models", 2, "inputs", 0, "dtype", "float"),
        "models[2] (tiny-segmenter).inputs[0] (image).dtype",
        "'float'",
    ),
    "fixed batch": (
        set_in("models", 2, "inputs", 0, "shape", [1, 3, 8, 8]),
        "models[2] (tiny-segmenter).inputs[0] (image).shape",
        "batch axis of -1",
    ),
    "graph's dtype": (
        set_in("models", 3, "inputs", 0, "dtype", "uint8"),
        "inputs 'image' dtype",
        "tensor(float)",
    ),
    "graph's shape": (
        set_in("models", 2, "outputs", 0, "shape", [-1, 4, 8, 8]),
        "outputs 'logits' shape",
        "[-1, 4, 8, 8] (the manifest)",
    ),
    "graph's rank": (
        set_in("models", 3, "inputs", 1, "shape", [-1, 1, 2]),
        "inputs 'style_weights' shape",
        "[-1, 1, 2]",
    ),
    "graph's names": (
        lambda d: d["models"][2]["outputs"].append(
            {"name": "extra", "dtype": "float32", "shape": [-1]}
        ),
        "outputs",
        "logits, extra (the manifest)",
    ),
    "synthesis unknown": (
        set_in("generators", 0, "synthesis", "x"),
        "generators[0] (tiny).synthesis",
        "'x'",
    ),
    "synthesis role": (
        set_in("generators", 0, "synthesis", "tiny-mapping"),
        "generators[0] (tiny).synthesis",
        "ROLE_MAPPING",
    ),
    "encoder unknown": (
        set_in("generators", 0, "encoder", "x"),
        "generators[0] (tiny).encoder",
        "'x'",
    ),
    "num_ws": (
        set_in("generators", 0, "num_ws", 3),
        "models (tiny-synthesis).w_plus.shape",
        "[-1, 3, 4]",
    ),
    "resolution": (
        set_in("generators", 0, "resolution", 16),
        "models (tiny-synthesis).image.shape",
        "16",
    ),
    "w_avg length": (
        set_in("generators", 0, "w_avg", [0.0]),
        "generators[0] (tiny).w_avg",
        "4 numbers",
    ),
    "w_avg NaN": (
        set_in("generators", 0, "w_avg", ["NaN"] * 4),
        "generators[0] (tiny).w_avg",
        "finite",
    ),
    "style's model": (
        set_in("styles", 0, "model", "tiny-mapping"),
        "styles[0] (waves).model",
        "ROLE_PRESET_STYLE",
    ),
    "style's index": (set_in("styles", 0, "index", 2), "styles[0] (waves).index", "less than 2"),
    "segmenter": (
        set_in("default_segmenter", "tiny-mapping"),
        "default_segmenter",
        "ROLE_SEGMENTER",
    ),
    "directions missing": (
        set_in("generators", 0, "directions", "d.json"),
        "generators[0] (tiny).directions",
        "d.json",
    ),
}


@pytest.mark.parametrize(("edit", "field", "words"), MANIFEST_FAULTS.values(), ids=MANIFEST_FAULTS)
def test_manifest_fault_names_field(spoil: Any, edit: Any, field: str, words: str) -> None:
    with pytest.raises(BundleError) as caught:
        Bundle.load(spoil(edit))
    assert caught.value.field == field
    assert words in str(caught.value)
    assert caught.value.remedy.endswith(".")


def test_a_direction_of_w_may_hold_one_row_for_its_layers(spoil: Any) -> None:
    row = [1.0, 2.0, 3.0, 4.0]

    def shorten(document: Any) -> Any:
        document["directions"][0] |= {"space": "W", "offsets": row, "layer_start": 1}
        return document

    entry = Bundle.load(spoil(shorten, "directions.json")).directions()["smile"]
    assert list(entry.offsets) == [0.0] * 4 + row
    assert (entry.layer_start, entry.layer_end, entry.space) == (1, 2, "W")


def test_only_a_direction_of_w_may_hold_one_row(spoil: Any) -> None:
    with pytest.raises(BundleError, match=r"8 numbers \(num_ws 2 × w_dim 4\), found 4"):
        Bundle.load(spoil(set_in("directions", 0, "offsets", [1.0] * 4), "directions.json"))


DIRECTION_FAULTS = {
    "other generator": (set_in("generator_sha256", "0" * 64), "generator_sha256", "synthesis"),
    "own generator": (
        set_in("directions", 0, "generator_sha256", "0" * 64),
        "directions[0] (smile).generator_sha256",
        "other weights",
    ),
    "short": (
        set_in("directions", 0, "offsets", [1.0]),
        "directions[0] (smile).offsets",
        "8 numbers",
    ),
    "infinite": (
        set_in("directions", 0, "offsets", ["Infinity"] * 8),
        "directions[0] (smile).offsets",
        "finite",
    ),
    "layers": (
        set_in("directions", 0, "layer_end", 3),
        "directions[0] (smile).layer_start/layer_end",
        "0..3",
    ),
    "strengths": (
        set_in("directions", 0, "min_strength", 5.0),
        "directions[0] (smile).min_strength/max_strength",
        "in order",
    ),
    "no name": (set_in("directions", 0, "name", ""), "directions[0].name", "a name"),
}


@pytest.mark.parametrize(
    ("edit", "field", "words"), DIRECTION_FAULTS.values(), ids=DIRECTION_FAULTS
)
def test_direction_fault_names_file_and_field(
    spoil: Any, edit: Any, field: str, words: str
) -> None:
    with pytest.raises(BundleError) as caught:
        Bundle.load(spoil(edit, "directions.json"))
    assert caught.value.file.endswith("directions.json")
    assert caught.value.field == field
    assert words in str(caught.value)


def test_one_changed_byte_is_found(bundle_root: Path) -> None:
    file = bundle_root / "tiny-segmenter.onnx"
    raw = bytearray(file.read_bytes())
    raw[-20] ^= 1
    file.write_bytes(raw)
    with pytest.raises(BundleError, match="SHA-256"):
        Bundle.load(bundle_root)


def test_not_a_graph_is_a_bundle_error(spoil: Any, bundle_root: Path) -> None:
    (bundle_root / "tiny-segmenter.onnx").write_bytes(b"nonsense")
    digest = hashlib.sha256(b"nonsense").hexdigest()
    with pytest.raises(BundleError, match="graph: expected an ONNX graph"):
        Bundle.load(spoil(set_in("models", 2, "sha256", digest)))


def test_link_out_of_the_bundle_is_refused(bundle_root: Path, tmp_path: Path) -> None:
    shutil.move(bundle_root / "tiny-segmenter.onnx", tmp_path / "elsewhere.onnx")
    (bundle_root / "tiny-segmenter.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(BundleError, match="found a link to"):
        Bundle.load(bundle_root)


def test_bundle_may_itself_be_a_link(bundle_root: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(bundle_root)
    assert Bundle.load(tmp_path / "current").manifest.name == "tiny"


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]", b"1"])
def test_not_a_manifest(bundle_root: Path, content: bytes) -> None:
    (bundle_root / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.load(bundle_root)


def test_missing_directory_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="VELATURA_BUNDLE"):
        Bundle.load(tmp_path / "nothing")
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.load(tmp_path)


def test_camel_case_manifest_is_accepted(bundle_root: Path) -> None:
    """Protobuf's JSON form has two spellings of every name."""
    document = json.loads((bundle_root / "manifest.json").read_text())
    document["schemaVersion"] = document.pop("schema_version")
    (bundle_root / "manifest.json").write_text(json.dumps(document))
    assert Bundle.load(bundle_root).manifest.schema_version == 1
