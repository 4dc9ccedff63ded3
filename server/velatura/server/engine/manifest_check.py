"""Checks of a manifest and of direction sets that need no other file: names, references, shapes,
ranges.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence

from velatura.server.engine.errors import BundleError, listing
from velatura.v1.bundle_pb2 import (
    BundleManifest,
    DirectionEntry,
    DirectionSet,
    GeneratorEntry,
    ModelEntry,
    Role,
    TensorSpec,
)

_FLOATS = ("float16", "float32", "float64")
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
NUMPY_DTYPES = frozenset((*_FLOATS, *_INTEGERS, "bool"))

# What each role calls its tensors: the pipelines address them by these names.
ROLE_TENSORS: dict[int, tuple[frozenset[str], frozenset[str]]] = {
    Role.ROLE_SYNTHESIS: (frozenset({"w_plus"}), frozenset({"image"})),
    Role.ROLE_MAPPING: (frozenset({"z", "truncation_psi"}), frozenset({"w"})),
    Role.ROLE_ENCODER: (frozenset({"image"}), frozenset({"w_plus"})),
    Role.ROLE_SEGMENTER: (frozenset({"image"}), frozenset({"logits"})),
    Role.ROLE_STYLE_PREDICTOR: (frozenset({"image"}), frozenset({"style_code"})),
    Role.ROLE_STYLE_TRANSFORMER: (frozenset({"image", "style_code"}), frozenset({"image_out"})),
    Role.ROLE_PRESET_STYLE: (frozenset({"image", "style_weights"}), frozenset({"image_out"})),
    Role.ROLE_CLASS_GENERATOR: (frozenset({"z", "class_weights"}), frozenset({"image"})),
    Role.ROLE_CLASSIFIER: (frozenset({"image"}), frozenset({"logits"})),
    Role.ROLE_FIXED_STYLE: (frozenset({"image"}), frozenset({"image_out"})),
}

_MODEL_NAME = re.compile(r"[a-z0-9._-]{1,128}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_EXPORT_AGAIN = "Write the bundle again with velatura-export."

Require = Callable[[bool, str, str, object], None]


def field_of(list_name: str, index: int, name: str) -> str:
    """How messages name an entry of a list, such as `models[2] (avatar-encoder)`."""
    return f"{list_name}[{index}] ({name})" if name else f"{list_name}[{index}]"


def check_manifest(manifest: BundleManifest, file: str) -> None:
    """Raise BundleError, naming `file`, where `manifest` contradicts itself."""
    require = _requirement(file)
    require(bool(manifest.name), "name", "a name", "nothing")
    require(bool(manifest.models), "models", "at least one network", "none")
    for index, entry in enumerate(manifest.models):
        _check_model(entry, field_of("models", index, entry.name), require)
    _check_unique("models", [entry.name for entry in manifest.models], require)
    _check_unique("generators", [entry.name for entry in manifest.generators], require)
    _check_unique("styles", [entry.name for entry in manifest.styles], require)
    models = {entry.name: entry for entry in manifest.models}
    for index, generator in enumerate(manifest.generators):
        _check_generator(generator, models, field_of("generators", index, generator.name), require)
    _check_class_generators(manifest, require)
    _check_styles(manifest, models, require)
    if manifest.default_segmenter:
        _check_reference(
            manifest.default_segmenter, models, {Role.ROLE_SEGMENTER}, "default_segmenter", require
        )


def check_directions(
    directions: DirectionSet, generator: GeneratorEntry, synthesis_sha256: str, file: str
) -> None:
    """Raise BundleError, naming `file`, where a direction does not fit its generator."""
    require = _requirement(file)
    _check_same_generator(
        directions.generator_sha256, synthesis_sha256, "generator_sha256", require
    )
    _check_unique("directions", [entry.name for entry in directions.directions], require)
    for index, entry in enumerate(directions.directions):
        at = field_of("directions", index, entry.name)
        require(bool(entry.name), f"{at}.name", "a name", "nothing")
        if entry.generator_sha256:
            _check_same_generator(
                entry.generator_sha256, synthesis_sha256, f"{at}.generator_sha256", require
            )
        _check_direction(entry, generator, at, require)


def _requirement(file: str) -> Require:
    def require(holds: bool, field: str, expected: str, found: object) -> None:
        if not holds:
            raise BundleError(
                file, field, expected=expected, found=str(found), remedy=_EXPORT_AGAIN
            )

    return require


def _check_unique(kind: str, names: Sequence[str], require: Require) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    require(not twice, kind, "every name once", f"{listing(twice)} more than once")


def _check_model(entry: ModelEntry, at: str, require: Require) -> None:
    require(
        bool(_MODEL_NAME.fullmatch(entry.name)),
        f"{at}.name",
        "1 to 128 of lower case letters, digits, '-', '_' and '.'",
        repr(entry.name),
    )
    require(
        bool(_SHA256.fullmatch(entry.sha256)),
        f"{at}.sha256",
        "64 hexadecimal digits",
        repr(entry.sha256),
    )
    require(entry.role in Role.values(), f"{at}.role", "a role of this schema", entry.role)
    for kind, specs in (("inputs", entry.inputs), ("outputs", entry.outputs)):
        require(bool(specs), f"{at}.{kind}", "at least one tensor", "none")
        _check_unique(f"{at}.{kind}", [spec.name for spec in specs], require)
        for index, spec in enumerate(specs):
            _check_tensor(spec, f"{at}.{field_of(kind, index, spec.name)}", require)
    if entry.role in ROLE_TENSORS:
        wanted = dict(zip(("inputs", "outputs"), ROLE_TENSORS[entry.role], strict=True))
        for kind, specs in (("inputs", entry.inputs), ("outputs", entry.outputs)):
            names = {spec.name for spec in specs}
            require(
                wanted[kind] <= names,
                f"{at}.{kind}",
                f"{listing(sorted(wanted[kind]))} (what {Role.Name(entry.role)} needs)",
                listing(sorted(names)),
            )


def _check_tensor(spec: TensorSpec, at: str, require: Require) -> None:
    require(bool(spec.name), f"{at}.name", "a name", "nothing")
    require(spec.dtype in NUMPY_DTYPES, f"{at}.dtype", "a numpy element type", repr(spec.dtype))
    shape = list(spec.shape)
    require(
        bool(shape) and shape[0] == -1,
        f"{at}.shape",
        "a batch axis of -1 and then the extents",
        shape,
    )
    require(
        all(extent == -1 or extent > 0 for extent in shape),
        f"{at}.shape",
        "extents of -1 (free) or more than 0",
        shape,
    )
    require(
        math.isfinite(spec.range_min) and math.isfinite(spec.range_max),
        f"{at}.range_min/range_max",
        "finite numbers",
        f"{spec.range_min}..{spec.range_max}",
    )


def _check_reference(
    name: str, models: dict[str, ModelEntry], roles: Iterable[int], at: str, require: Require
) -> ModelEntry:
    require(name in models, at, f"a network of the bundle ({listing(models)})", repr(name))
    entry = models[name]
    wanted = listing(Role.Name(role) for role in roles)
    require(
        entry.role in set(roles), at, f"a network with {wanted}", f"{name}: {Role.Name(entry.role)}"
    )
    return entry


def _check_generator(
    entry: GeneratorEntry, models: dict[str, ModelEntry], at: str, require: Require
) -> None:
    require(bool(entry.name), f"{at}.name", "a name", "nothing")
    for name in ("num_ws", "w_dim", "resolution"):
        require(getattr(entry, name) > 0, f"{at}.{name}", "more than 0", getattr(entry, name))
    w_plus = [-1, entry.num_ws, entry.w_dim]
    image = [-1, 3, entry.resolution, entry.resolution]
    synthesis = _check_reference(
        entry.synthesis, models, [Role.ROLE_SYNTHESIS], f"{at}.synthesis", require
    )
    _check_shape(synthesis.inputs, "w_plus", w_plus, synthesis.name, require)
    _check_shape(synthesis.outputs, "image", image, synthesis.name, require)
    if entry.mapping:
        mapping = _check_reference(
            entry.mapping, models, [Role.ROLE_MAPPING], f"{at}.mapping", require
        )
        _check_shape(mapping.inputs, "z", [-1, entry.z_dim], mapping.name, require)
        _check_shape(mapping.outputs, "w", [-1, entry.w_dim], mapping.name, require)
    if entry.encoder:
        encoder = _check_reference(
            entry.encoder, models, [Role.ROLE_ENCODER], f"{at}.encoder", require
        )
        _check_shape(encoder.outputs, "w_plus", w_plus, encoder.name, require)
    require(
        len(entry.w_avg) in (0, entry.w_dim),
        f"{at}.w_avg",
        f"{entry.w_dim} numbers (w_dim), or none",
        len(entry.w_avg),
    )
    require(
        all(map(math.isfinite, entry.w_avg)), f"{at}.w_avg", "finite numbers", "NaN or infinity"
    )


def _check_class_generators(manifest: BundleManifest, require: Require) -> None:
    """Networks that make images of a class: one label a class, and no generator's name."""
    generators = {entry.name for entry in manifest.generators}
    for index, entry in enumerate(manifest.models):
        if entry.role != Role.ROLE_CLASS_GENERATOR:
            continue
        at = field_of("models", index, entry.name)
        # Generate finds both kinds by name.
        require(
            entry.name not in generators, f"{at}.name", "a name that no generator has", entry.name
        )
        _check_unique(f"{at}.labels", list(entry.labels), require)
        shapes = {spec.name: list(spec.shape) for spec in (*entry.inputs, *entry.outputs)}
        classes = len(entry.labels)
        require(
            shapes["class_weights"] == [-1, classes],
            f"{at}.labels",
            "one name a class",
            f"{classes} names for class_weights of {shapes['class_weights']}",
        )
        for name, extents, expected in (
            ("z", 2, "[-1, dimensions of z]"),
            ("image", 4, "[-1, 3, height, width]"),
        ):
            shape = shapes[name]
            require(
                len(shape) == extents and -1 not in shape[1:] and (extents == 2 or shape[1] == 3),
                f"{at}.{name}.shape",
                expected,
                shape,
            )


def _check_shape(
    specs: Iterable[TensorSpec], name: str, shape: list[int], model: str, require: Require
) -> None:
    found = next(list(spec.shape) for spec in specs if spec.name == name)
    # An extent that the network leaves free fits any.
    fits = len(found) == len(shape) and all(
        there in (-1, here) for there, here in zip(found, shape, strict=True)
    )
    require(fits, f"models ({model}).{name}.shape", f"{shape}, as the generator says", found)


def _check_styles(
    manifest: BundleManifest, models: dict[str, ModelEntry], require: Require
) -> None:
    roles = [Role.ROLE_PRESET_STYLE, Role.ROLE_FIXED_STYLE]
    for index, style in enumerate(manifest.styles):
        at = field_of("styles", index, style.name)
        require(bool(style.name), f"{at}.name", "a name", "nothing")
        model = _check_reference(style.model, models, roles, f"{at}.model", require)
        presets = next((spec.shape[-1] for spec in model.inputs if spec.name == "style_weights"), 1)
        require(
            presets == -1 or style.index < presets,
            f"{at}.index",
            f"less than {presets}, the presets of {model.name}",
            style.index,
        )


def _check_same_generator(found: str, wanted: str, at: str, require: Require) -> None:
    require(
        found.lower() == wanted.lower(),
        at,
        f"{wanted}, the synthesis network's sha256 (directions of other weights mean nothing here)",
        repr(found),
    )


def _check_direction(
    entry: DirectionEntry, generator: GeneratorEntry, at: str, require: Require
) -> None:
    require(
        entry.layer_start < entry.layer_end <= generator.num_ws,
        f"{at}.layer_start/layer_end",
        f"a range within the {generator.num_ws} layers",
        f"{entry.layer_start}..{entry.layer_end}",
    )
    count = generator.num_ws * generator.w_dim
    one_row = entry.space == "W" and len(entry.offsets) == generator.w_dim
    require(
        one_row or len(entry.offsets) == count,
        f"{at}.offsets",
        f"{count} numbers (num_ws {generator.num_ws} × w_dim {generator.w_dim})"
        + (f", or {generator.w_dim} for every layer" if entry.space == "W" else ""),
        len(entry.offsets),
    )
    require(
        all(map(math.isfinite, entry.offsets)), f"{at}.offsets", "finite numbers", "NaN or infinity"
    )
    strengths = (entry.min_strength, entry.default_strength, entry.max_strength)
    require(
        all(map(math.isfinite, strengths)) and entry.min_strength <= entry.max_strength,
        f"{at}.min_strength/max_strength",
        "finite numbers in order",
        strengths,
    )
