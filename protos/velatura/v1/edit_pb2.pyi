from velatura.v1 import constraints_pb2 as _constraints_pb2
from velatura.v1 import image_pb2 as _image_pb2
from velatura.v1 import region_pb2 as _region_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LayerRange(_message.Message):
    __slots__ = ("start", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class DirectionEdit(_message.Message):
    __slots__ = ("name", "strength", "layers")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    strength: float
    layers: LayerRange
    def __init__(self, name: _Optional[str] = ..., strength: _Optional[float] = ..., layers: _Optional[_Union[LayerRange, _Mapping]] = ...) -> None: ...

class OffsetEdit(_message.Message):
    __slots__ = ("layers", "values")
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    layers: LayerRange
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, layers: _Optional[_Union[LayerRange, _Mapping]] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class ReferenceEdit(_message.Message):
    __slots__ = ("image", "latent_token", "layers", "strength")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    LATENT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    image: _image_pb2.Image
    latent_token: bytes
    layers: LayerRange
    strength: float
    def __init__(self, image: _Optional[_Union[_image_pb2.Image, _Mapping]] = ..., latent_token: _Optional[bytes] = ..., layers: _Optional[_Union[LayerRange, _Mapping]] = ..., strength: _Optional[float] = ...) -> None: ...

class Edit(_message.Message):
    __slots__ = ("direction", "offset", "reference")
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    direction: DirectionEdit
    offset: OffsetEdit
    reference: ReferenceEdit
    def __init__(self, direction: _Optional[_Union[DirectionEdit, _Mapping]] = ..., offset: _Optional[_Union[OffsetEdit, _Mapping]] = ..., reference: _Optional[_Union[ReferenceEdit, _Mapping]] = ...) -> None: ...

class EditImageRequest(_message.Message):
    __slots__ = ("image", "latent_token", "edits", "region", "generator", "segmenter", "output", "frame")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    LATENT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    EDITS_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    GENERATOR_FIELD_NUMBER: _ClassVar[int]
    SEGMENTER_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    image: _image_pb2.Image
    latent_token: bytes
    edits: _containers.RepeatedCompositeFieldContainer[Edit]
    region: _region_pb2.Region
    generator: str
    segmenter: str
    output: _image_pb2.OutputOptions
    frame: _region_pb2.Box
    def __init__(self, image: _Optional[_Union[_image_pb2.Image, _Mapping]] = ..., latent_token: _Optional[bytes] = ..., edits: _Optional[_Iterable[_Union[Edit, _Mapping]]] = ..., region: _Optional[_Union[_region_pb2.Region, _Mapping]] = ..., generator: _Optional[str] = ..., segmenter: _Optional[str] = ..., output: _Optional[_Union[_image_pb2.OutputOptions, _Mapping]] = ..., frame: _Optional[_Union[_region_pb2.Box, _Mapping]] = ...) -> None: ...

class EditImageResponse(_message.Message):
    __slots__ = ("image", "change", "latent_token", "models", "timings")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    LATENT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    image: _image_pb2.Image
    change: _image_pb2.ChangeReport
    latent_token: bytes
    models: _containers.RepeatedCompositeFieldContainer[_image_pb2.ModelVersion]
    timings: _containers.RepeatedCompositeFieldContainer[_image_pb2.Timing]
    def __init__(self, image: _Optional[_Union[_image_pb2.Image, _Mapping]] = ..., change: _Optional[_Union[_image_pb2.ChangeReport, _Mapping]] = ..., latent_token: _Optional[bytes] = ..., models: _Optional[_Iterable[_Union[_image_pb2.ModelVersion, _Mapping]]] = ..., timings: _Optional[_Iterable[_Union[_image_pb2.Timing, _Mapping]]] = ...) -> None: ...

class EncodeRequest(_message.Message):
    __slots__ = ("image", "generator", "with_reconstruction", "output", "frame")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    GENERATOR_FIELD_NUMBER: _ClassVar[int]
    WITH_RECONSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    image: _image_pb2.Image
    generator: str
    with_reconstruction: bool
    output: _image_pb2.OutputOptions
    frame: _region_pb2.Box
    def __init__(self, image: _Optional[_Union[_image_pb2.Image, _Mapping]] = ..., generator: _Optional[str] = ..., with_reconstruction: _Optional[bool] = ..., output: _Optional[_Union[_image_pb2.OutputOptions, _Mapping]] = ..., frame: _Optional[_Union[_region_pb2.Box, _Mapping]] = ...) -> None: ...

class EncodeResponse(_message.Message):
    __slots__ = ("latent_token", "reconstruction", "reconstruction_psnr_db", "models", "timings")
    LATENT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RECONSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    RECONSTRUCTION_PSNR_DB_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    latent_token: bytes
    reconstruction: _image_pb2.Image
    reconstruction_psnr_db: float
    models: _containers.RepeatedCompositeFieldContainer[_image_pb2.ModelVersion]
    timings: _containers.RepeatedCompositeFieldContainer[_image_pb2.Timing]
    def __init__(self, latent_token: _Optional[bytes] = ..., reconstruction: _Optional[_Union[_image_pb2.Image, _Mapping]] = ..., reconstruction_psnr_db: _Optional[float] = ..., models: _Optional[_Iterable[_Union[_image_pb2.ModelVersion, _Mapping]]] = ..., timings: _Optional[_Iterable[_Union[_image_pb2.Timing, _Mapping]]] = ...) -> None: ...
