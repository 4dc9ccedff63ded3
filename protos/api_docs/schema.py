"""What the .proto files say, as plain values: services, messages and enums with their comments."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, cast

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

from velatura.v1.constraints_pb2 import FieldConstraint, constraint, oneof_required

# Numbers of the fields that lead to a declaration: the paths of SourceCodeInfo are made of them.
_FILE_MESSAGE, _FILE_ENUM, _FILE_SERVICE = 4, 5, 6
_MESSAGE_FIELD, _MESSAGE_NESTED, _MESSAGE_ENUM, _MESSAGE_ONEOF = 2, 3, 4, 8
_SERVICE_METHOD, _ENUM_VALUE = 2, 2

Comments = Mapping[tuple[int, ...], str]


@dataclass(frozen=True)
class Field:
    """A field. `type_name` is a scalar's name, or a message's or enum's without its package;
    `limits` says in words what a valid value keeps to."""

    name: str
    type_name: str
    is_declared: bool  # the type is a message or an enum of these files
    label: str  # "repeated", "optional", "map" or ""
    oneof: str
    limits: tuple[str, ...]
    comment: str


@dataclass(frozen=True)
class Oneof:
    """A choice of fields."""

    name: str
    required: bool
    comment: str


@dataclass(frozen=True)
class Message:
    """A message; nested ones are named "Outer.Inner"."""

    name: str
    comment: str
    fields: tuple[Field, ...]
    oneofs: tuple[Oneof, ...]


@dataclass(frozen=True)
class Value:
    """A value of an enum."""

    name: str
    number: int
    comment: str


@dataclass(frozen=True)
class Enum:
    """An enum."""

    name: str
    comment: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Method:
    """A method; `request` and `response` are names of messages."""

    name: str
    request: str
    response: str
    streams: bool
    comment: str


@dataclass(frozen=True)
class Service:
    """A service; `package` is its first name on the wire."""

    package: str
    name: str
    comment: str
    methods: tuple[Method, ...]


@dataclass(frozen=True)
class File:
    """One .proto file."""

    path: str
    services: tuple[Service, ...]
    messages: tuple[Message, ...]
    enums: tuple[Enum, ...]


def read(root: Path, paths: Sequence[str]) -> list[File]:
    """The files under `root`, in the order of `paths`.

    Raises:
        ValueError: when protoc refuses them; it says why on stderr.
    """
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "descriptors"
        arguments = [
            "protoc", f"-I{root}", f"-I{resources.files('grpc_tools') / '_proto'}",
            "--include_source_info", f"--descriptor_set_out={output}", *paths,
        ]  # fmt: skip
        if protoc.main(arguments) != 0:
            raise ValueError(f"protoc refused {', '.join(paths)}")
        found = FileDescriptorSet.FromString(output.read_bytes())
    by_path = {file.name: file for file in found.file}
    return [_file(by_path[path]) for path in paths]


def _file(file: FileDescriptorProto) -> File:
    comments = {
        tuple(location.path): location.leading_comments
        for location in file.source_code_info.location
    }
    messages: list[Message] = []
    enums = [_enum(e, "", (_FILE_ENUM, i), comments) for i, e in enumerate(file.enum_type)]
    for i, message in enumerate(file.message_type):
        _collect(message, "", (_FILE_MESSAGE, i), comments, messages, enums)
    services = tuple(
        _service(file.package, service, (_FILE_SERVICE, i), comments)
        for i, service in enumerate(file.service)
    )
    return File(file.name, services, tuple(messages), tuple(enums))


def _collect(
    message: DescriptorProto,
    outer: str,
    path: tuple[int, ...],
    comments: Comments,
    messages: list[Message],
    enums: list[Enum],
) -> None:
    """Append a message and what is declared inside it."""
    name = outer + message.name
    maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    fields = tuple(
        _field(field, message, maps, _text(comments, (*path, _MESSAGE_FIELD, i)))
        for i, field in enumerate(message.field)
    )
    synthetic = {f.oneof_index for f in message.field if f.proto3_optional}
    oneofs = tuple(
        Oneof(
            oneof.name,
            bool(oneof.options.Extensions[cast("Any", oneof_required)]),
            _text(comments, (*path, _MESSAGE_ONEOF, i)),
        )
        for i, oneof in enumerate(message.oneof_decl)
        if i not in synthetic
    )
    messages.append(Message(name, _text(comments, path), fields, oneofs))
    for i, nested in enumerate(message.nested_type):
        if nested.name not in maps:
            _collect(nested, f"{name}.", (*path, _MESSAGE_NESTED, i), comments, messages, enums)
    enums += [
        _enum(enum, f"{name}.", (*path, _MESSAGE_ENUM, i), comments)
        for i, enum in enumerate(message.enum_type)
    ]


def _field(
    field: FieldDescriptorProto,
    message: DescriptorProto,
    maps: Mapping[str, DescriptorProto],
    comment: str,
) -> Field:
    label = "repeated" if field.label == FieldDescriptorProto.LABEL_REPEATED else ""
    oneof = ""
    if field.proto3_optional:
        label = "optional"
    elif field.HasField("oneof_index"):
        oneof = message.oneof_decl[field.oneof_index].name
    type_name, is_declared = _type(field)
    entry = maps.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        (key, _), (type_name, is_declared) = _type(entry.field[0]), _type(entry.field[1])
        label = f"map from {key} to"
    rule = field.options.Extensions[cast("Any", constraint)]
    limits = limits_of(rule, field.label == FieldDescriptorProto.LABEL_REPEATED)
    return Field(field.name, type_name, is_declared, label, oneof, limits, comment)


def _type(field: FieldDescriptorProto) -> tuple[str, bool]:
    if field.type_name:
        # ".velatura.v1.Image" and ".inference.ModelInferRequest.InferInputTensor": packages are in
        # small letters, declarations are not.
        parts = field.type_name.strip(".").split(".")
        return ".".join(part for part in parts if part[0].isupper()), True
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower(), False


def limits_of(rule: FieldConstraint, is_list: bool) -> tuple[str, ...]:
    """A constraint in words; on a list, most of it speaks of each item."""
    words = ["required"] if rule.required else []
    words += _range(rule.min_items or None, rule.max_items or None, " items")
    of_values = ["a defined value"] if rule.defined else []
    of_values += _range(
        rule.min if rule.HasField("min") else None, rule.max if rule.HasField("max") else None, ""
    )
    of_values += _range(None, rule.max_bytes or None, " bytes")
    return (*words, *(f"each {text}" if is_list else text for text in of_values))


def _range(least: float | None, greatest: float | None, unit: str) -> list[str]:
    if least is not None and least == greatest:
        return [f"{least:g}{unit}"]
    if least is not None and greatest is not None:
        return [f"{least:g} to {greatest:g}{unit}"]
    if least is not None:
        return [f"at least {least:g}{unit}"]
    return [] if greatest is None else [f"at most {greatest:g}{unit}"]


def _enum(enum: EnumDescriptorProto, outer: str, path: tuple[int, ...], comments: Comments) -> Enum:
    values = tuple(
        Value(value.name, value.number, _text(comments, (*path, _ENUM_VALUE, i)))
        for i, value in enumerate(enum.value)
    )
    return Enum(outer + enum.name, _text(comments, path), values)


def _service(
    package: str, service: ServiceDescriptorProto, path: tuple[int, ...], comments: Comments
) -> Service:
    methods = tuple(
        Method(
            method.name,
            method.input_type.rpartition(".")[2],
            method.output_type.rpartition(".")[2],
            method.server_streaming,
            _text(comments, (*path, _SERVICE_METHOD, i)),
        )
        for i, method in enumerate(service.method)
    )
    return Service(package, service.name, _text(comments, path), methods)


def _text(comments: Comments, path: tuple[int, ...]) -> str:
    """The comment above a declaration as one line."""
    return " ".join(comments.get(path, "").split())
