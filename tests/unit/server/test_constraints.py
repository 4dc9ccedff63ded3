"""The validator against the real messages of the wire."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from velatura.server.pipelines.errors import InvalidRequest
from velatura.server.rpc.constraints import MAX_REPORTED, check, violations
from velatura.v1 import bundle_pb2, edit_pb2, generate_pb2, image_pb2, region_pb2, stylize_pb2
from velatura.v1.constraints_pb2 import constraint


def fields(message: Any) -> list[str]:
    return [each.field for each in violations(message)]


def test_a_valid_message_passes() -> None:
    check(
        stylize_pb2.StylizeRequest(
            content=image_pb2.Image(encoded=b"x"),
            styles=[stylize_pb2.StyleSource(preset="waves")],
            strength=0.0,
        )
    )


def test_an_optional_number_that_is_absent_is_not_zero() -> None:
    image = image_pb2.Image(encoded=b"x")
    styles = [stylize_pb2.StyleSource(preset="a")]
    assert fields(stylize_pb2.StylizeRequest(content=image, styles=styles)) == []
    assert fields(generate_pb2.GenerateRequest(seeds=[0])) == []


def test_limits_are_inclusive() -> None:
    def strength(value: float) -> list[str]:
        return fields(edit_pb2.DirectionEdit(name="a", strength=value))

    assert strength(10) == strength(-10) == []
    assert strength(10.001) == strength(-10.001) == ["strength"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_floats_are_finite_even_without_a_limit(value: float) -> None:
    spec = bundle_pb2.TensorSpec(name="a", dtype="float32", shape=[1], range_min=value)
    assert fields(spec) == ["range_min"]


def test_a_missing_message_and_an_unset_oneof_are_named() -> None:
    assert fields(stylize_pb2.StylizeRequest()) == ["content", "styles"]
    assert fields(region_pb2.Region(parts=[region_pb2.RegionPart()])) == ["parts[0].shape"]
    assert fields(edit_pb2.Edit(reference=edit_pb2.ReferenceEdit())) == ["reference.source"]


def test_an_empty_member_of_a_oneof_is_named_only_when_it_is_the_chosen_one() -> None:
    part = region_pb2.RegionPart(class_name="")
    assert fields(part) == ["class_name"]
    assert fields(region_pb2.RegionPart(click=region_pb2.Point())) == []


def test_bytes_and_strings_are_counted_in_bytes() -> None:
    assert fields(edit_pb2.DirectionEdit(name="é" * 32)) == []
    assert fields(edit_pb2.DirectionEdit(name="é" * 33)) == ["name"]
    source = edit_pb2.ReferenceEdit(latent_token=b"x" * 65_537)
    assert fields(source) == ["latent_token"]


def test_items_of_a_list_are_named_by_place() -> None:
    edit = edit_pb2.OffsetEdit(layers=edit_pb2.LayerRange(end=1), values=[1, 101, 2, -101])
    assert fields(edit) == ["values[1]", "values[3]"]


def test_a_list_over_its_limit_is_not_looked_into() -> None:
    edit = edit_pb2.OffsetEdit(layers=edit_pb2.LayerRange(end=1), values=[101.0] * 65_537)
    assert fields(edit) == ["values"]


def test_numbers_of_no_enum_are_named() -> None:
    assert fields(image_pb2.OutputOptions(format=9)) == ["format"]  # type: ignore[arg-type]
    assert fields(image_pb2.OutputOptions()) == []


def test_the_advice_of_the_schema_is_passed_on() -> None:
    (found,) = violations(edit_pb2.DirectionEdit(name=""))
    assert "ListDirections gives the names." in found.description


def test_only_the_first_violations_are_listed() -> None:
    edit = edit_pb2.OffsetEdit(layers=edit_pb2.LayerRange(end=1), values=[101.0] * 1000)
    with pytest.raises(InvalidRequest) as raised:
        check(edit)
    assert len(raised.value.violations) == MAX_REPORTED + 1
    assert f"{1000 - MAX_REPORTED} more" in raised.value.violations[-1].description


@pytest.mark.parametrize(
    "module", ["bundle", "catalog", "edit", "generate", "image", "region", "segment", "stylize"]
)
def test_every_declared_limit_can_be_broken(module: str) -> None:
    """Each constrained scalar of the schema, given a value beyond its limits, is named."""
    file = importlib.import_module(f"velatura.v1.{module}_pb2").DESCRIPTOR
    for descriptor in file.message_types_by_name.values():
        for field in descriptor.fields:
            rule = field.GetOptions().Extensions[constraint]
            message = GetMessageClass(descriptor)()
            bad: Any = None
            if rule.HasField("max") and not field.is_repeated:
                bad = rule.max + 1
            elif rule.max_bytes:
                text = "x" * (rule.max_bytes + 1)
                bad = text if field.type == FieldDescriptor.TYPE_STRING else text.encode()
            if bad is None:
                continue
            number = field.cpp_type not in (
                FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE
            )  # fmt: skip
            setattr(message, field.name, int(bad) if number and isinstance(bad, float) else bad)
            assert field.name in fields(message), f"{descriptor.full_name}.{field.name}"
