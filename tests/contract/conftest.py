"""Stubs on the shared server, and the names of its bundle."""

from __future__ import annotations

import grpc
import pytest

from velatura.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    edit_pb2_grpc,
    generate_pb2_grpc,
    segment_pb2_grpc,
    stylize_pb2_grpc,
)


@pytest.fixture(scope="session")
def editing(channel: grpc.Channel) -> edit_pb2_grpc.EditServiceStub:
    return edit_pb2_grpc.EditServiceStub(channel)


@pytest.fixture(scope="session")
def styling(channel: grpc.Channel) -> stylize_pb2_grpc.StyleServiceStub:
    return stylize_pb2_grpc.StyleServiceStub(channel)


@pytest.fixture(scope="session")
def segmenting(channel: grpc.Channel) -> segment_pb2_grpc.SegmentServiceStub:
    return segment_pb2_grpc.SegmentServiceStub(channel)


@pytest.fixture(scope="session")
def generating(channel: grpc.Channel) -> generate_pb2_grpc.GenerateServiceStub:
    return generate_pb2_grpc.GenerateServiceStub(channel)


@pytest.fixture(scope="session")
def catalog(channel: grpc.Channel) -> catalog_pb2_grpc.CatalogServiceStub:
    return catalog_pb2_grpc.CatalogServiceStub(channel)


@pytest.fixture(scope="session")
def models(catalog: catalog_pb2_grpc.CatalogServiceStub) -> catalog_pb2.ListModelsResponse:
    return catalog.ListModels(catalog_pb2.ListModelsRequest())


@pytest.fixture(scope="session")
def direction(catalog: catalog_pb2_grpc.CatalogServiceStub) -> str:
    """Some direction that the bundle has."""
    answer = catalog.ListDirections(catalog_pb2.ListDirectionsRequest())
    names = [each.name for each in answer.directions]
    return "smile" if "smile" in names else names[0]


@pytest.fixture(scope="session")
def styles(catalog: catalog_pb2_grpc.CatalogServiceStub) -> list[str]:
    """The bundle's presets."""
    return [each.name for each in catalog.ListStyles(catalog_pb2.ListStylesRequest()).styles]


@pytest.fixture(scope="session")
def classes(catalog: catalog_pb2_grpc.CatalogServiceStub) -> list[str]:
    """The bundle's region classes."""
    answer = catalog.ListRegionClasses(catalog_pb2.ListRegionClassesRequest())
    return [each.name for each in answer.classes]
