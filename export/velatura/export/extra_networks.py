"""Networks that need no W+ generator: class generators, styles, features, ready ONNX files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from velatura.export import own_onnx
from velatura.export.class_networks import class_generator_spec, read_class_generator
from velatura.export.errors import ExportError
from velatura.export.feature_networks import features_spec, read_features
from velatura.export.foreign_style_networks import adain_specs, ghiasi_specs
from velatura.export.generator_networks import Origin
from velatura.export.own_bundle import class_names
from velatura.export.own_onnx import OnnxNetwork
from velatura.export.specification import NetworkSpec
from velatura.v1 import bundle_pb2

TRUNCATION = 0.7  # as the server's when a request says nothing


@dataclass(frozen=True)
class ExtraFiles:
    """What to add to a bundle, or to make one of.

    `truncation` chooses the statistics of pytorch-pretrained-BigGAN's batch norms; `networks` are
    manifests of ONNX files.
    """

    class_generator: Path | None = None
    class_names: Path | None = None
    truncation: float = TRUNCATION
    style_encoder: Path | None = None
    style_decoder: Path | None = None
    style_networks: Path | None = None
    features: Path | None = None
    networks: tuple[Path, ...] = ()

    @property
    def first(self) -> Path | None:
        """The file that a bundle of nothing else is named after; None where nothing was given."""
        given = (self.class_generator, self.style_encoder, self.style_networks, self.features)
        return next((path for path in (*given, *self.networks) if path is not None), None)


@dataclass(frozen=True)
class Extras:
    """What `write_bundle` takes."""

    specs: list[NetworkSpec | OnnxNetwork]
    styles: list[bundle_pb2.StyleEntry]
    segmenter: str
    """Name of the first segmenter among them; empty without one."""


def load_extras(files: ExtraFiles, name: str, origin: Origin) -> Extras:
    """Read the files and describe the networks, named NAME-classes and so on, or as their manifest
    says. Raises ExportError naming the option or file that is wrong."""
    _require_pairs(files)
    specs: list[NetworkSpec | OnnxNetwork] = []
    if files.class_generator is not None:
        generator = read_class_generator(files.class_generator, files.truncation)
        classes = generator.config.classes
        named = classes
        if files.class_names is not None:
            named = tuple(class_names(files.class_names, len(classes), "--class-names"))
        specs.append(class_generator_spec(f"{name}-classes", generator, origin, "class", named))
    if files.style_encoder is not None and files.style_decoder is not None:
        specs += adain_specs(name, files.style_encoder, files.style_decoder, origin)
    if files.style_networks is not None:
        specs += ghiasi_specs(name, files.style_networks, origin)
    if files.features is not None:
        specs.append(features_spec(f"{name}-features", read_features(files.features), origin))
    ready = [own_onnx.load_onnx(path) for path in files.networks]
    styles = [entry for network in ready for entry in own_onnx.style_entries(network)]
    segmenters = [n.name for n in ready if n.role == bundle_pb2.ROLE_SEGMENTER]
    return Extras([*specs, *ready], styles, segmenters[0] if segmenters else "")


def require_different_styles(styles: Sequence[bundle_pb2.StyleEntry]) -> None:
    """Raises ExportError when two networks bring a preset of one name."""
    names = [style.name for style in styles]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ExportError(
            f"style presets {', '.join(twice)} occur twice; give the network another name or labels"
        )


def _require_pairs(files: ExtraFiles) -> None:
    """Options that mean nothing without another one."""
    if (files.style_encoder is None) != (files.style_decoder is None):
        raise ExportError("--style-encoder and --style-decoder: AdaIN takes both files, give both")
    if files.style_encoder is not None and files.style_networks is not None:
        raise ExportError(
            "--style-networks: the bundle has a pair for style pictures already, of --style-encoder"
        )
    if files.class_names is not None and files.class_generator is None:
        raise ExportError("--class-names: only with --class-generator FILE")
