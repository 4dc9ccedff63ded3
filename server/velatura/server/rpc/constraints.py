"""Enforces on any message the limits that its .proto file declares beside the fields.

The rules are the options of velatura/v1/constraints.proto. Every violation is found, each with the
full path of its field (`edits[0].direction.strength`), so that a caller can mend a request in one
go.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor, OneofDescriptor
from google.protobuf.message import Message

from velatura.server.pipelines.errors import InvalidRequest, Violation
from velatura.v1.constraints_pb2 import FieldConstraint, constraint, oneof_required

# gRPC clients take about 8 KiB of metadata, and the details travel there.
MAX_REPORTED = 10

_FLOATS = frozenset({FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE})
_INTEGERS = frozenset(
    {
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
    }
)
_NUMBERS = _FLOATS | _INTEGERS


def check(message: Message) -> None:
    """Raise `InvalidRequest` with the message's violations, the first `MAX_REPORTED` of them; else
    return."""
    found = violations(message)
    first = [each for _, each in zip(range(MAX_REPORTED), found, strict=False)]
    if not first:
        return
    more = sum(1 for _ in found)
    if more:
        first.append(Violation(first[-1].field, f"… and {more} more violations, not listed."))
    raise InvalidRequest(first)


def violations(message: Message, path: str = "") -> Iterator[Violation]:
    """Every violation in a message and in the messages inside it, in the order of the fields."""
    fields, oneofs = _rules(message.DESCRIPTOR)
    for oneof in oneofs:
        if message.WhichOneof(oneof.name) is None:
            members = ", ".join(field.name for field in oneof.fields)
            yield Violation(f"{path}{oneof.name}", f"nothing is set. Set one of {members}.")
    for field, rule in fields:
        value = getattr(message, field.name)
        where = f"{path}{field.name}"
        if field.is_repeated:
            yield from _list_violations(field, rule, value, where)
        elif field.has_presence and not message.HasField(field.name):
            if rule.required and field.containing_oneof is None:
                yield _violation(where, "it is missing.", rule)
        elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            yield from violations(value, f"{where}.")
        else:
            yield from _value_violations(field, rule, value, where)


@functools.cache
def _rules(
    descriptor: Descriptor,
) -> tuple[tuple[tuple[FieldDescriptor, FieldConstraint], ...], tuple[OneofDescriptor, ...]]:
    # The stubs of our own options call the extension a plain field descriptor.
    rule_of, required_of = cast("Any", constraint), cast("Any", oneof_required)
    fields = tuple(
        (field, field.GetOptions().Extensions[rule_of])
        for field in descriptor.fields
        if not _is_map(field)
    )
    oneofs = tuple(
        oneof for oneof in descriptor.oneofs if oneof.GetOptions().Extensions[required_of]
    )
    return fields, oneofs


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _list_violations(
    field: FieldDescriptor, rule: FieldConstraint, values: Any, where: str
) -> Iterator[Violation]:
    if len(values) < max(rule.min_items, int(rule.required)):
        least = max(rule.min_items, int(rule.required))
        yield _violation(where, f"{len(values)} items are too few; the least is {least}.", rule)
    if rule.max_items and len(values) > rule.max_items:
        problem = f"{len(values):,} items are too many; the limit is {rule.max_items:,}."
        yield _violation(where, problem, rule)
        return  # the limit also bounds the work of looking at each
    if field.cpp_type in _NUMBERS:
        for index in _suspects(rule, values):
            yield from _value_violations(field, rule, values[index], f"{where}[{index}]")
        return
    for index, value in enumerate(values):
        place = f"{where}[{index}]"
        if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            yield from violations(value, f"{place}.")
        else:
            yield from _value_violations(field, rule, value, place)


def _suspects(rule: FieldConstraint, values: Any) -> list[int]:
    """Places of numbers that break the rule; vectorised, since offsets come by the thousand."""
    numbers = np.asarray(values, np.float64)
    bad = ~np.isfinite(numbers)
    if rule.HasField("min"):
        bad |= numbers < rule.min
    if rule.HasField("max"):
        bad |= numbers > rule.max
    return [int(index) for index in np.flatnonzero(bad)]


def _value_violations(
    field: FieldDescriptor, rule: FieldConstraint, value: Any, where: str
) -> Iterator[Violation]:
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        yield from _enum_violations(field, rule, value, where)
    elif field.cpp_type in _NUMBERS:
        yield from _number_violations(rule, value, where)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        size = len(value.encode()) if isinstance(value, str) else len(value)
        if rule.required and size == 0:
            yield _violation(where, "it is empty.", rule)
        if rule.max_bytes and size > rule.max_bytes:
            problem = f"{size:,} bytes are over the limit of {rule.max_bytes:,}."
            yield _violation(where, problem, rule)


def _enum_violations(
    field: FieldDescriptor, rule: FieldConstraint, value: int, where: str
) -> Iterator[Violation]:
    assert field.enum_type is not None  # noqa: S101 - what an enum field is
    known = field.enum_type.values_by_number
    if value not in known or (rule.defined and value == 0):
        names = ", ".join(each.name for number, each in sorted(known.items()) if number)
        yield _violation(where, f"{value} is not one of {names}.", rule)


def _number_violations(rule: FieldConstraint, value: float, where: str) -> Iterator[Violation]:
    if not math.isfinite(value):
        yield _violation(where, f"{value} is not a finite number{_range(rule)}.", rule)
    elif rule.HasField("min") and value < rule.min:
        yield _violation(where, f"{value:g} is less than {rule.min:g}{_range(rule)}.", rule)
    elif rule.HasField("max") and value > rule.max:
        yield _violation(where, f"{value:g} is more than {rule.max:g}{_range(rule)}.", rule)


def _range(rule: FieldConstraint) -> str:
    if rule.HasField("min") and rule.HasField("max"):
        return f" (allowed: {rule.min:g} to {rule.max:g})"
    return ""


def _violation(where: str, problem: str, rule: FieldConstraint) -> Violation:
    return Violation(where, f"{problem} {rule.advice}".strip())
