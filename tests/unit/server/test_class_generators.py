"""Which network a Generate request means, where W+ and class-conditional generators are served."""

from __future__ import annotations

from pathlib import Path

import pytest

from velatura.server.engine.bundle import Bundle
from velatura.server.pipelines.errors import UnknownThing, Unsupported
from velatura.server.pipelines.generate import SampleOrder, generate
from velatura.server.pipelines.workers import Workers
from velatura.server.rpc.generate import class_generator
from velatura.v1.bundle_pb2 import BundleManifest, GeneratorEntry, ModelEntry, Role

from .fakes import GENERATOR, FakeEngine, entry, job_on

SHAPES = ModelEntry(name="shapes", role=Role.ROLE_CLASS_GENERATOR, labels=["circle", "star"])


def bundle(*generators: str) -> Bundle:
    entries = [GeneratorEntry(name=name) for name in generators]
    return Bundle(Path(), BundleManifest(models=[SHAPES], generators=entries), "", {})


def test_a_name_finds_either_kind() -> None:
    served = bundle("faces")
    assert class_generator(served, "shapes") == SHAPES
    assert class_generator(served, "faces") is None


def test_no_name_is_the_default_generator_or_the_only_network() -> None:
    assert class_generator(bundle("faces"), "") is None
    assert class_generator(bundle(), "") == SHAPES


def test_an_unknown_name_is_told_both_kinds() -> None:
    with pytest.raises(UnknownThing) as caught:
        class_generator(bundle("faces"), "shape")
    assert caught.value.field == "generator"
    assert caught.value.known == ("shapes", "faces")


async def test_a_class_for_a_generator_without_any_names_those_that_have(
    workers: Workers,
) -> None:
    engine = FakeEngine({}, entry("shapes", Role.ROLE_CLASS_GENERATOR))
    order = SampleOrder([1], 1.0, GENERATOR, [], {}, class_name="star")
    with pytest.raises(Unsupported, match="generator: shapes"):
        await anext(generate(job_on(engine, workers), order))
