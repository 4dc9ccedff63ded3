from velatura.v1 import constraints_pb2 as _constraints_pb2
from velatura.v1 import edit_pb2 as _edit_pb2
from velatura.v1 import image_pb2 as _image_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StyleMixing(_message.Message):
    __slots__ = ("seed", "layers")
    SEED_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    seed: int
    layers: _edit_pb2.LayerRange
    def __init__(self, seed: _Optional[int] = ..., layers: _Optional[_Union[_edit_pb2.LayerRange, _Mapping]] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("seeds", "truncation_psi", "generator", "class_name", "mixing", "edits", "output")
    SEEDS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_PSI_FIELD_NUMBER: _ClassVar[int]
    GENERATOR_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    MIXING_FIELD_NUMBER: _ClassVar[int]
    EDITS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    seeds: _containers.RepeatedScalarFieldContainer[int]
    truncation_psi: float
    generator: str
    class_name: str
    mixing: StyleMixing
    edits: _containers.RepeatedCompositeFieldContainer[_edit_pb2.Edit]
    output: _image_pb2.OutputOptions
    def __init__(self, seeds: _Optional[_Iterable[int]] = ..., truncation_psi: _Optional[float] = ..., generator: _Optional[str] = ..., class_name: _Optional[str] = ..., mixing: _Optional[_Union[StyleMixing, _Mapping]] = ..., edits: _Optional[_Iterable[_Union[_edit_pb2.Edit, _Mapping]]] = ..., output: _Optional[_Union[_image_pb2.OutputOptions, _Mapping]] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("index", "seed", "image", "latent_token", "models")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    LATENT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    index: int
    seed: int
    image: _image_pb2.Image
    latent_token: bytes
    models: _containers.RepeatedCompositeFieldContainer[_image_pb2.ModelVersion]
    def __init__(self, index: _Optional[int] = ..., seed: _Optional[int] = ..., image: _Optional[_Union[_image_pb2.Image, _Mapping]] = ..., latent_token: _Optional[bytes] = ..., models: _Optional[_Iterable[_Union[_image_pb2.ModelVersion, _Mapping]]] = ...) -> None: ...
