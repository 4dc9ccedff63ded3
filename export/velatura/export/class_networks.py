"""Class-conditional generators: which format a file is of, and the specification to export."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from velatura.export.checkpoints import biggan_deep, biggan_pytorch
from velatura.export.checkpoints.class_generator import load_class_generator
from velatura.export.checkpoints.plain_tensors import read_tensors
from velatura.export.errors import CheckpointError
from velatura.export.generator_networks import Origin
from velatura.export.networks.biggan import ClassGenerator
from velatura.export.networks.biggan_deep import BigGanDeep
from velatura.export.networks.biggan_pytorch import BigGan
from velatura.export.specification import NetworkSpec, Port
from velatura.v1 import bundle_pb2

AnyClassGenerator = ClassGenerator | BigGan | BigGanDeep
_LARGE = 256  # px; beyond, a batch of 8 takes gigabytes


class ClassShape(Protocol):
    """What every such generator's configuration tells."""

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def z_dim(self) -> int: ...
    @property
    def resolution(self) -> int: ...


def read_class_generator(path: Path, truncation: float) -> AnyClassGenerator:
    """Our own NAME.safetensors with NAME.json, BigGAN-PyTorch's or pytorch-pretrained-BigGAN's.

    `truncation` chooses the statistics of the latter's batch norms. Raises CheckpointError naming
    the file and what is missing, left over or does not fit.
    """
    if path.suffix == ".safetensors" and path.with_suffix(".json").exists():
        return load_class_generator(path)
    state = read_tensors(path)
    try:
        if biggan_pytorch.is_biggan_pytorch(state):
            return biggan_pytorch.biggan_of(state)
        if biggan_deep.is_biggan_deep(state):
            settings = biggan_deep.read_settings(path)
            return biggan_deep.biggan_deep_of(state, truncation, settings)
        raise CheckpointError(
            "is no class-conditional generator that is known: neither NAME.safetensors with its "
            "NAME.json, nor of BigGAN-PyTorch, nor of pytorch-pretrained-BigGAN"
        )
    except CheckpointError as error:
        raise type(error)(f"{path}: {error}") from error


def class_generator_spec(
    name: str,
    generator: AnyClassGenerator,
    origin: Origin,
    kind: str,
    labels: tuple[str, ...] = (),
) -> NetworkSpec:
    """z and class weights → image; `kind` is what the classes are, in one word. `labels` name the
    classes otherwise than the generator does."""
    config: ClassShape = generator.config
    size = config.resolution
    return NetworkSpec(
        name=name,
        role=bundle_pb2.ROLE_CLASS_GENERATOR,
        module=generator,
        inputs=(
            Port("z", (-1, config.z_dim), layout="N, dimension"),
            Port("class_weights", (-1, len(config.classes)), 0, 1, "N, class", sums_to_one=True),
        ),
        outputs=(Port("image", (-1, 3, size, size), -1, 1, "NCHW"),),
        background=origin.background(
            f"BigGAN generator: z and a class ({kind}) to an {origin.subject} of "
            f"{size} × {size} px.",
            f"Sampling {origin.subject}s by {kind}. Truncation multiplies z by psi.",
            ("Brock et al. 2018, arXiv:1809.11096", "Zhang et al. 2018, arXiv:1805.08318"),
        ),
        labels=labels or config.classes,
        tolerance=2e-4,
        batch_sizes=(1, 3, 8) if size <= _LARGE else (1, 2, 3),
    )
