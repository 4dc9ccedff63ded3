"""Specification of a class-conditional generator."""

from __future__ import annotations

from velatura.export.generator_networks import Origin
from velatura.export.networks.biggan import ClassGenerator
from velatura.export.specification import NetworkSpec, Port
from velatura.v1 import bundle_pb2


def class_generator_spec(
    name: str, generator: ClassGenerator, origin: Origin, kind: str
) -> NetworkSpec:
    """z and class weights → image; `kind` is what the classes are, in one word."""
    config = generator.config
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
        labels=config.classes,
        tolerance=2e-4,
    )
