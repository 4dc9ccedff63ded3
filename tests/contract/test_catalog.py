"""CatalogService, health, reflection and channelz on a real server."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from velatura.v1 import catalog_pb2, catalog_pb2_grpc

SERVICES = [
    "velatura.v1.CatalogService",
    "velatura.v1.EditService",
    "velatura.v1.GenerateService",
    "velatura.v1.SegmentService",
    "velatura.v1.StyleService",
]
Stub = catalog_pb2_grpc.CatalogServiceStub


def test_models_are_the_bundles_with_their_true_hashes(
    models: catalog_pb2.ListModelsResponse, bundle_path: Path
) -> None:
    manifest = (bundle_path / "manifest.json").read_bytes()
    assert models.manifest_sha256 == hashlib.sha256(manifest).hexdigest()
    assert models.bundle_name == json.loads(manifest)["name"]
    for model in models.models:
        file = (bundle_path / model.entry.file).read_bytes()
        assert model.entry.sha256 == hashlib.sha256(file).hexdigest()
        assert model.ready
        assert model.provider == "CPUExecutionProvider"
    assert models.generators


def test_directions_are_listed_by_name_without_their_numbers(catalog: Stub) -> None:
    answer = catalog.ListDirections(catalog_pb2.ListDirectionsRequest(generator="avatar"))
    names = [each.name for each in answer.directions]
    assert answer.generator == "avatar"
    assert names == sorted(names)
    assert names
    assert not any(each.offsets for each in answer.directions)
    assert all(each.layer_end > each.layer_start for each in answer.directions)


def test_styles_and_classes_are_listed(styles: list[str], classes: list[str]) -> None:
    assert len(styles) == len(set(styles)) == 26
    assert classes[0] == "background"
    assert {"skin", "hair", "mouth", "eyes"} <= set(classes)


@pytest.mark.parametrize("service", ["", *SERVICES])
def test_health_is_serving(channel: grpc.Channel, service: str) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_health_of_an_unknown_service_is_not_found(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    with pytest.raises(grpc.RpcError) as raised:
        stub.Check(health_pb2.HealthCheckRequest(service="nobody"))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]


def test_reflection_describes_every_service_and_message(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert set(SERVICES) <= set(database.get_services())
    pool = DescriptorPool(database)
    method = pool.FindServiceByName("velatura.v1.EditService").FindMethodByName("EditImage")
    assert method.input_type.full_name == "velatura.v1.EditImageRequest"
    assert "region" in method.input_type.fields_by_name


def test_channelz_counts_the_servers_calls(channel: grpc.Channel) -> None:
    stub = channelz_pb2_grpc.ChannelzStub(channel)
    (server,) = stub.GetServers(channelz_pb2.GetServersRequest()).server
    assert server.data.calls_started > 0


def test_the_callers_request_id_comes_back_and_odd_ones_are_replaced(catalog: Stub) -> None:
    def echoed(given: str) -> str:
        _, call = catalog.ListStyles.with_call(
            catalog_pb2.ListStylesRequest(), metadata=(("x-request-id", given),)
        )
        return dict(call.trailing_metadata())["x-request-id"]

    assert echoed("abc-123") == "abc-123"
    assert echoed("!" + "~" * 127) == "!" + "~" * 127
    for odd in ("x" * 129, "two words"):
        assert len(echoed(odd)) == 32
    assert echoed("") not in ("", echoed(""))
