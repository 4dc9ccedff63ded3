from velatura.v1 import constraints_pb2 as _constraints_pb2
from velatura.v1 import image_pb2 as _image_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SegmentRequest(_message.Message):
    __slots__ = ("image", "model", "with_overlay", "output")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WITH_OVERLAY_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    image: _image_pb2.Image
    model: str
    with_overlay: bool
    output: _image_pb2.OutputOptions
    def __init__(self, image: _Optional[_Union[_image_pb2.Image, _Mapping]] = ..., model: _Optional[str] = ..., with_overlay: _Optional[bool] = ..., output: _Optional[_Union[_image_pb2.OutputOptions, _Mapping]] = ...) -> None: ...

class RegionArea(_message.Message):
    __slots__ = ("index", "name", "pixels", "share")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    index: int
    name: str
    pixels: int
    share: float
    def __init__(self, index: _Optional[int] = ..., name: _Optional[str] = ..., pixels: _Optional[int] = ..., share: _Optional[float] = ...) -> None: ...

class SegmentResponse(_message.Message):
    __slots__ = ("label_map", "areas", "overlay", "models", "timings")
    LABEL_MAP_FIELD_NUMBER: _ClassVar[int]
    AREAS_FIELD_NUMBER: _ClassVar[int]
    OVERLAY_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    label_map: _image_pb2.Image
    areas: _containers.RepeatedCompositeFieldContainer[RegionArea]
    overlay: _image_pb2.Image
    models: _containers.RepeatedCompositeFieldContainer[_image_pb2.ModelVersion]
    timings: _containers.RepeatedCompositeFieldContainer[_image_pb2.Timing]
    def __init__(self, label_map: _Optional[_Union[_image_pb2.Image, _Mapping]] = ..., areas: _Optional[_Iterable[_Union[RegionArea, _Mapping]]] = ..., overlay: _Optional[_Union[_image_pb2.Image, _Mapping]] = ..., models: _Optional[_Iterable[_Union[_image_pb2.ModelVersion, _Mapping]]] = ..., timings: _Optional[_Iterable[_Union[_image_pb2.Timing, _Mapping]]] = ...) -> None: ...
