from velatura.v1 import constraints_pb2 as _constraints_pb2
from velatura.v1 import image_pb2 as _image_pb2
from velatura.v1 import region_pb2 as _region_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StyleSource(_message.Message):
    __slots__ = ("preset", "image", "weight")
    PRESET_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    preset: str
    image: _image_pb2.Image
    weight: float
    def __init__(self, preset: _Optional[str] = ..., image: _Optional[_Union[_image_pb2.Image, _Mapping]] = ..., weight: _Optional[float] = ...) -> None: ...

class StylizeRequest(_message.Message):
    __slots__ = ("content", "styles", "strength", "preserve_color", "region", "model", "segmenter", "output")
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    STYLES_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    PRESERVE_COLOR_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SEGMENTER_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    content: _image_pb2.Image
    styles: _containers.RepeatedCompositeFieldContainer[StyleSource]
    strength: float
    preserve_color: bool
    region: _region_pb2.Region
    model: str
    segmenter: str
    output: _image_pb2.OutputOptions
    def __init__(self, content: _Optional[_Union[_image_pb2.Image, _Mapping]] = ..., styles: _Optional[_Iterable[_Union[StyleSource, _Mapping]]] = ..., strength: _Optional[float] = ..., preserve_color: _Optional[bool] = ..., region: _Optional[_Union[_region_pb2.Region, _Mapping]] = ..., model: _Optional[str] = ..., segmenter: _Optional[str] = ..., output: _Optional[_Union[_image_pb2.OutputOptions, _Mapping]] = ...) -> None: ...

class StylizeResponse(_message.Message):
    __slots__ = ("image", "change", "models", "timings", "tiles")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    TILES_FIELD_NUMBER: _ClassVar[int]
    image: _image_pb2.Image
    change: _image_pb2.ChangeReport
    models: _containers.RepeatedCompositeFieldContainer[_image_pb2.ModelVersion]
    timings: _containers.RepeatedCompositeFieldContainer[_image_pb2.Timing]
    tiles: int
    def __init__(self, image: _Optional[_Union[_image_pb2.Image, _Mapping]] = ..., change: _Optional[_Union[_image_pb2.ChangeReport, _Mapping]] = ..., models: _Optional[_Iterable[_Union[_image_pb2.ModelVersion, _Mapping]]] = ..., timings: _Optional[_Iterable[_Union[_image_pb2.Timing, _Mapping]]] = ..., tiles: _Optional[int] = ...) -> None: ...
