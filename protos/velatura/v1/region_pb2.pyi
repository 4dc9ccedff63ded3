from velatura.v1 import constraints_pb2 as _constraints_pb2
from velatura.v1 import image_pb2 as _image_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Box(_message.Message):
    __slots__ = ("x", "y", "width", "height")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    x: int
    y: int
    width: int
    height: int
    def __init__(self, x: _Optional[int] = ..., y: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class Point(_message.Message):
    __slots__ = ("x", "y")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    x: int
    y: int
    def __init__(self, x: _Optional[int] = ..., y: _Optional[int] = ...) -> None: ...

class RegionPart(_message.Message):
    __slots__ = ("class_name", "mask", "box", "click", "subtract")
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    CLICK_FIELD_NUMBER: _ClassVar[int]
    SUBTRACT_FIELD_NUMBER: _ClassVar[int]
    class_name: str
    mask: _image_pb2.Image
    box: Box
    click: Point
    subtract: bool
    def __init__(self, class_name: _Optional[str] = ..., mask: _Optional[_Union[_image_pb2.Image, _Mapping]] = ..., box: _Optional[_Union[Box, _Mapping]] = ..., click: _Optional[_Union[Point, _Mapping]] = ..., subtract: _Optional[bool] = ...) -> None: ...

class Region(_message.Message):
    __slots__ = ("parts", "grow_px", "feather_px", "invert")
    PARTS_FIELD_NUMBER: _ClassVar[int]
    GROW_PX_FIELD_NUMBER: _ClassVar[int]
    FEATHER_PX_FIELD_NUMBER: _ClassVar[int]
    INVERT_FIELD_NUMBER: _ClassVar[int]
    parts: _containers.RepeatedCompositeFieldContainer[RegionPart]
    grow_px: int
    feather_px: int
    invert: bool
    def __init__(self, parts: _Optional[_Iterable[_Union[RegionPart, _Mapping]]] = ..., grow_px: _Optional[int] = ..., feather_px: _Optional[int] = ..., invert: _Optional[bool] = ...) -> None: ...
