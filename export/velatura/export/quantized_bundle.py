"""A bundle's networks that int8 is for, pictures to try them on, and a bundle with one in int8."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from google.protobuf import json_format
from PIL import Image

from velatura.export.bundle import MANIFEST, read_manifest, sha256_of
from velatura.export.errors import ExportError
from velatura.export.specification import FloatArray
from velatura.export.verify import open_graph, run_graph
from velatura.v1 import bundle_pb2

_ROLES = (bundle_pb2.ROLE_ENCODER, bundle_pb2.ROLE_SEGMENTER)
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_PSI = 0.7


class BundleNetworks:
    """A bundle that lies on disk."""

    def __init__(self, folder: Path) -> None:
        """Raises ExportError when there is no readable manifest."""
        self.folder = folder
        self.manifest = read_manifest(folder)
        self._entries = {entry.name: entry for entry in self.manifest.models}

    def path(self, entry: bundle_pb2.ModelEntry) -> Path:
        return self.folder / entry.file

    def picture_network(self, name: str) -> bundle_pb2.ModelEntry:
        """An encoder or segmenter. Raises ExportError for another, or one that is not there."""
        entry = self._entries.get(name)
        if entry is None or entry.role not in _ROLES:
            fit = [e.name for e in self.manifest.models if e.role in _ROLES]
            raise ExportError(
                f"--network {name}: give an encoder or segmenter of the bundle: {fit}"
            )
        return entry

    def synthesis_of(self, encoder: str) -> bundle_pb2.ModelEntry:
        """The network that draws this encoder's latents."""
        for generator in self.manifest.generators:
            if generator.encoder == encoder:
                return self._entries[generator.synthesis]
        raise ExportError(f"{encoder}: no generator of the bundle reads its latents")

    def draw(self, synthesis: bundle_pb2.ModelEntry, w_plus: FloatArray) -> FloatArray:
        """Images [N, 3, R, R], cut to [-1, 1]."""
        drawn = run_graph(open_graph(self.path(synthesis)), {synthesis.inputs[0].name: w_plus})
        return drawn[synthesis.outputs[0].name].clip(-1, 1)

    def generated(self, name: str, count: int) -> FloatArray:
        """Pictures for a network, [count, 3, S, S], drawn by the bundle's first generator.

        Raises ExportError when there is none, or it is class-conditional.
        """
        entry = self.picture_network(name)
        generators = [g for g in self.manifest.generators if g.mapping]
        if not generators or len(self._entries[generators[0].mapping].inputs) != 2:
            raise ExportError("no generator in the bundle can draw pictures; give --images FOLDER")
        generator = generators[0]
        mapping = open_graph(self.path(self._entries[generator.mapping]))
        z = np.random.default_rng(0).standard_normal((count, generator.z_dim)).astype(np.float32)
        psi = np.full(count, _PSI, np.float32)
        w = run_graph(mapping, {"z": z, "truncation_psi": psi})["w"]  # [count, w_dim]
        w_plus = np.repeat(w[:, None], generator.num_ws, axis=1)
        synthesis = self._entries[generator.synthesis]
        parts = [self.draw(synthesis, w_plus[i : i + 8]) for i in range(0, count, 8)]
        images = (np.concatenate(parts).transpose(0, 2, 3, 1) + 1) * 127.5
        return _prepare(entry, [Image.fromarray(i.round().astype(np.uint8)) for i in images])

    def pictures(self, name: str, folder: Path, count: int) -> FloatArray:
        """The first `count` pictures of a folder, by name. Raises ExportError when one is none."""
        files = sorted(p for p in folder.glob("*") if p.suffix.lower() in _SUFFIXES)[:count]
        if not files:
            raise ExportError(
                f"--images {folder}: no pictures there ({', '.join(sorted(_SUFFIXES))})"
            )
        opened = []
        for file in files:
            try:
                with Image.open(file) as image:
                    opened.append(image.convert("RGB"))
            except (OSError, Image.DecompressionBombError) as error:
                raise ExportError(f"{file}: cannot be read as a picture: {error}") from error
        return _prepare(self.picture_network(name), opened)

    def write_with(
        self, name: str, graph: Path, figures: Sequence[bundle_pb2.Figure], out: Path
    ) -> None:
        """Write a copy of the bundle whose network `name` is `graph`.

        Its comparisons with torch no longer hold and go; the figures say how close it is instead.
        Raises ExportError when `out` exists.
        """
        if out.exists():
            raise ExportError(f"--out {out}: exists; give a new folder")
        changed = bundle_pb2.BundleManifest()
        changed.CopyFrom(self.manifest)
        entry = next(model for model in changed.models if model.name == name)
        before, entry.sha256 = entry.sha256, sha256_of(graph)
        del entry.verifications[:]
        entry.figures.extend(figures)
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
            folder = Path(scratch) / "bundle"
            shutil.copytree(self.folder, folder)
            shutil.copyfile(graph, folder / entry.file)
            card = folder / entry.card
            said = "\n".join(
                f"- {figure.name}: {figure.value:g} {figure.unit} ({figure.measured_on})"
                for figure in figures
            )
            text = card.read_text().replace(before, entry.sha256)
            text = text.partition("## Checked against its source")[0]
            card.write_text(f"{text}## int8, in place of comparisons with torch\n\n{said}\n")
            message = json_format.MessageToJson(changed, preserving_proto_field_name=True)
            (folder / MANIFEST).write_text(message + "\n")
            folder.rename(out)


def _prepare(entry: bundle_pb2.ModelEntry, images: Sequence[Image.Image]) -> FloatArray:
    """The middle square of each, in the network's size and range: [N, 3, S, S]."""
    spec = entry.inputs[0]
    size = spec.shape[-1] if spec.shape[-1] > 0 else 256
    rows = []
    for image in images:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side)).resize((size, size))
        rows.append(np.asarray(square, np.float32).transpose(2, 0, 1) / 255)
    values = np.stack(rows) * (spec.range_max - spec.range_min) + spec.range_min
    return values.astype(np.float32)
