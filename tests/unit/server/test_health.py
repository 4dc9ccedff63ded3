"""Which service can serve when which network cannot."""

from __future__ import annotations

import pytest

from velatura.server.health import OVERALL, networks_by_service, service_states
from velatura.v1.bundle_pb2 import BundleManifest, ModelEntry, Role

from .fakes import GENERATOR, FakeEngine

ENTRIES = [
    ModelEntry(name="synthesis", role=Role.ROLE_SYNTHESIS),
    ModelEntry(name="mapping", role=Role.ROLE_MAPPING),
    ModelEntry(name="encoder", role=Role.ROLE_ENCODER),
    ModelEntry(name="segmenter", role=Role.ROLE_SEGMENTER),
    ModelEntry(name="presets", role=Role.ROLE_PRESET_STYLE),
]


class Bundle:
    def __init__(self, *entries: ModelEntry) -> None:
        generators = [GENERATOR] if any(each.name == "synthesis" for each in entries) else []
        self.manifest = BundleManifest(models=entries, generators=generators)

    def models_of(self, role: int) -> list[ModelEntry]:
        return [each for each in self.manifest.models if each.role == role]


def states(*entries: ModelEntry, lost: str = "") -> set[str]:
    """The services that are down, without their package."""
    engine = FakeEngine({})
    engine.bundle = Bundle(*entries)  # type: ignore[assignment]
    engine.not_ready = {lost}
    found = service_states(engine, networks_by_service(engine.bundle))  # type: ignore[arg-type]
    return {name.rpartition(".")[2] for name, serving in found.items() if not serving}


def test_all_ready_is_all_serving() -> None:
    assert states(*ENTRIES) == set()


@pytest.mark.parametrize(
    ("lost", "down"),
    [
        ("synthesis", {"EditService", "GenerateService"}),
        ("encoder", {"EditService"}),
        ("mapping", {"GenerateService"}),
        ("segmenter", {"SegmentService"}),
        ("presets", {"StyleService"}),
    ],
)
def test_a_lost_network_takes_down_what_needs_it_and_the_whole(lost: str, down: set[str]) -> None:
    assert states(*ENTRIES, lost=lost) == down | {"GRPCInferenceService", OVERALL}


def test_services_that_the_bundle_has_no_networks_for_are_down_but_the_whole_is_not() -> None:
    assert states(ENTRIES[4]) == {"EditService", "GenerateService", "SegmentService"}
