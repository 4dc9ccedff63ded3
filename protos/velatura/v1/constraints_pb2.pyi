from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor
CONSTRAINT_FIELD_NUMBER: _ClassVar[int]
constraint: _descriptor.FieldDescriptor
ONEOF_REQUIRED_FIELD_NUMBER: _ClassVar[int]
oneof_required: _descriptor.FieldDescriptor

class FieldConstraint(_message.Message):
    __slots__ = ("required", "min", "max", "min_items", "max_items", "max_bytes", "defined", "advice")
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    MIN_ITEMS_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEMS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEFINED_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    required: bool
    min: float
    max: float
    min_items: int
    max_items: int
    max_bytes: int
    defined: bool
    advice: str
    def __init__(self, required: _Optional[bool] = ..., min: _Optional[float] = ..., max: _Optional[float] = ..., min_items: _Optional[int] = ..., max_items: _Optional[int] = ..., max_bytes: _Optional[int] = ..., defined: _Optional[bool] = ..., advice: _Optional[str] = ...) -> None: ...
