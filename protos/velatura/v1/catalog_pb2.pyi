from velatura.v1 import bundle_pb2 as _bundle_pb2
from velatura.v1 import constraints_pb2 as _constraints_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelInfo(_message.Message):
    __slots__ = ("entry", "ready", "provider")
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    entry: _bundle_pb2.ModelEntry
    ready: bool
    provider: str
    def __init__(self, entry: _Optional[_Union[_bundle_pb2.ModelEntry, _Mapping]] = ..., ready: _Optional[bool] = ..., provider: _Optional[str] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("bundle_name", "bundle_version", "manifest_sha256", "server_version", "models", "generators")
    BUNDLE_NAME_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_SHA256_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    GENERATORS_FIELD_NUMBER: _ClassVar[int]
    bundle_name: str
    bundle_version: str
    manifest_sha256: str
    server_version: str
    models: _containers.RepeatedCompositeFieldContainer[ModelInfo]
    generators: _containers.RepeatedCompositeFieldContainer[_bundle_pb2.GeneratorEntry]
    def __init__(self, bundle_name: _Optional[str] = ..., bundle_version: _Optional[str] = ..., manifest_sha256: _Optional[str] = ..., server_version: _Optional[str] = ..., models: _Optional[_Iterable[_Union[ModelInfo, _Mapping]]] = ..., generators: _Optional[_Iterable[_Union[_bundle_pb2.GeneratorEntry, _Mapping]]] = ...) -> None: ...

class ListDirectionsRequest(_message.Message):
    __slots__ = ("generator",)
    GENERATOR_FIELD_NUMBER: _ClassVar[int]
    generator: str
    def __init__(self, generator: _Optional[str] = ...) -> None: ...

class ListDirectionsResponse(_message.Message):
    __slots__ = ("generator", "directions")
    GENERATOR_FIELD_NUMBER: _ClassVar[int]
    DIRECTIONS_FIELD_NUMBER: _ClassVar[int]
    generator: str
    directions: _containers.RepeatedCompositeFieldContainer[_bundle_pb2.DirectionEntry]
    def __init__(self, generator: _Optional[str] = ..., directions: _Optional[_Iterable[_Union[_bundle_pb2.DirectionEntry, _Mapping]]] = ...) -> None: ...

class ListStylesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListStylesResponse(_message.Message):
    __slots__ = ("styles",)
    STYLES_FIELD_NUMBER: _ClassVar[int]
    styles: _containers.RepeatedCompositeFieldContainer[_bundle_pb2.StyleEntry]
    def __init__(self, styles: _Optional[_Iterable[_Union[_bundle_pb2.StyleEntry, _Mapping]]] = ...) -> None: ...

class ListRegionClassesRequest(_message.Message):
    __slots__ = ("segmenter",)
    SEGMENTER_FIELD_NUMBER: _ClassVar[int]
    segmenter: str
    def __init__(self, segmenter: _Optional[str] = ...) -> None: ...

class RegionClass(_message.Message):
    __slots__ = ("index", "name")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    index: int
    name: str
    def __init__(self, index: _Optional[int] = ..., name: _Optional[str] = ...) -> None: ...

class ListRegionClassesResponse(_message.Message):
    __slots__ = ("segmenter", "classes")
    SEGMENTER_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    segmenter: str
    classes: _containers.RepeatedCompositeFieldContainer[RegionClass]
    def __init__(self, segmenter: _Optional[str] = ..., classes: _Optional[_Iterable[_Union[RegionClass, _Mapping]]] = ...) -> None: ...
