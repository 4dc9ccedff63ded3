from velatura.v1 import constraints_pb2 as _constraints_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_SYNTHESIS: _ClassVar[Role]
    ROLE_MAPPING: _ClassVar[Role]
    ROLE_ENCODER: _ClassVar[Role]
    ROLE_SEGMENTER: _ClassVar[Role]
    ROLE_STYLE_PREDICTOR: _ClassVar[Role]
    ROLE_STYLE_TRANSFORMER: _ClassVar[Role]
    ROLE_PRESET_STYLE: _ClassVar[Role]
    ROLE_CLASS_GENERATOR: _ClassVar[Role]
    ROLE_CLASSIFIER: _ClassVar[Role]
    ROLE_FIXED_STYLE: _ClassVar[Role]
ROLE_UNSPECIFIED: Role
ROLE_SYNTHESIS: Role
ROLE_MAPPING: Role
ROLE_ENCODER: Role
ROLE_SEGMENTER: Role
ROLE_STYLE_PREDICTOR: Role
ROLE_STYLE_TRANSFORMER: Role
ROLE_PRESET_STYLE: Role
ROLE_CLASS_GENERATOR: Role
ROLE_CLASSIFIER: Role
ROLE_FIXED_STYLE: Role

class TensorSpec(_message.Message):
    __slots__ = ("name", "dtype", "shape", "range_min", "range_max", "layout", "multiple_of")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    RANGE_MIN_FIELD_NUMBER: _ClassVar[int]
    RANGE_MAX_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    MULTIPLE_OF_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    range_min: float
    range_max: float
    layout: str
    multiple_of: int
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., range_min: _Optional[float] = ..., range_max: _Optional[float] = ..., layout: _Optional[str] = ..., multiple_of: _Optional[int] = ...) -> None: ...

class Verification(_message.Message):
    __slots__ = ("reference", "output", "batch_size", "size", "max_abs_error", "relative_error", "tolerance")
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_ABS_ERROR_FIELD_NUMBER: _ClassVar[int]
    RELATIVE_ERROR_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    reference: str
    output: str
    batch_size: int
    size: int
    max_abs_error: float
    relative_error: float
    tolerance: float
    def __init__(self, reference: _Optional[str] = ..., output: _Optional[str] = ..., batch_size: _Optional[int] = ..., size: _Optional[int] = ..., max_abs_error: _Optional[float] = ..., relative_error: _Optional[float] = ..., tolerance: _Optional[float] = ...) -> None: ...

class Figure(_message.Message):
    __slots__ = ("name", "value", "unit", "measured_on")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    MEASURED_ON_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    unit: str
    measured_on: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., unit: _Optional[str] = ..., measured_on: _Optional[str] = ...) -> None: ...

class ModelEntry(_message.Message):
    __slots__ = ("name", "version", "role", "file", "sha256", "inputs", "outputs", "labels", "description", "license", "source", "training_data", "card", "verifications", "figures", "parameters", "flops", "max_batch_size", "written_for")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    LICENSE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TRAINING_DATA_FIELD_NUMBER: _ClassVar[int]
    CARD_FIELD_NUMBER: _ClassVar[int]
    VERIFICATIONS_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    FLOPS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_FOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    role: Role
    file: str
    sha256: str
    inputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    outputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    labels: _containers.RepeatedScalarFieldContainer[str]
    description: str
    license: str
    source: str
    training_data: str
    card: str
    verifications: _containers.RepeatedCompositeFieldContainer[Verification]
    figures: _containers.RepeatedCompositeFieldContainer[Figure]
    parameters: int
    flops: int
    max_batch_size: int
    written_for: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., role: _Optional[_Union[Role, str]] = ..., file: _Optional[str] = ..., sha256: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., labels: _Optional[_Iterable[str]] = ..., description: _Optional[str] = ..., license: _Optional[str] = ..., source: _Optional[str] = ..., training_data: _Optional[str] = ..., card: _Optional[str] = ..., verifications: _Optional[_Iterable[_Union[Verification, _Mapping]]] = ..., figures: _Optional[_Iterable[_Union[Figure, _Mapping]]] = ..., parameters: _Optional[int] = ..., flops: _Optional[int] = ..., max_batch_size: _Optional[int] = ..., written_for: _Optional[str] = ...) -> None: ...

class GeneratorEntry(_message.Message):
    __slots__ = ("name", "synthesis", "mapping", "encoder", "num_ws", "w_dim", "z_dim", "resolution", "w_avg", "directions")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SYNTHESIS_FIELD_NUMBER: _ClassVar[int]
    MAPPING_FIELD_NUMBER: _ClassVar[int]
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    NUM_WS_FIELD_NUMBER: _ClassVar[int]
    W_DIM_FIELD_NUMBER: _ClassVar[int]
    Z_DIM_FIELD_NUMBER: _ClassVar[int]
    RESOLUTION_FIELD_NUMBER: _ClassVar[int]
    W_AVG_FIELD_NUMBER: _ClassVar[int]
    DIRECTIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    synthesis: str
    mapping: str
    encoder: str
    num_ws: int
    w_dim: int
    z_dim: int
    resolution: int
    w_avg: _containers.RepeatedScalarFieldContainer[float]
    directions: str
    def __init__(self, name: _Optional[str] = ..., synthesis: _Optional[str] = ..., mapping: _Optional[str] = ..., encoder: _Optional[str] = ..., num_ws: _Optional[int] = ..., w_dim: _Optional[int] = ..., z_dim: _Optional[int] = ..., resolution: _Optional[int] = ..., w_avg: _Optional[_Iterable[float]] = ..., directions: _Optional[str] = ...) -> None: ...

class DirectionEntry(_message.Message):
    __slots__ = ("name", "attribute", "description", "space", "layer_start", "layer_end", "default_strength", "min_strength", "max_strength", "method", "regions", "figures", "generator_sha256", "offsets")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    LAYER_START_FIELD_NUMBER: _ClassVar[int]
    LAYER_END_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_STRENGTH_FIELD_NUMBER: _ClassVar[int]
    MIN_STRENGTH_FIELD_NUMBER: _ClassVar[int]
    MAX_STRENGTH_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    REGIONS_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    GENERATOR_SHA256_FIELD_NUMBER: _ClassVar[int]
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    name: str
    attribute: str
    description: str
    space: str
    layer_start: int
    layer_end: int
    default_strength: float
    min_strength: float
    max_strength: float
    method: str
    regions: _containers.RepeatedScalarFieldContainer[str]
    figures: _containers.RepeatedCompositeFieldContainer[Figure]
    generator_sha256: str
    offsets: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, name: _Optional[str] = ..., attribute: _Optional[str] = ..., description: _Optional[str] = ..., space: _Optional[str] = ..., layer_start: _Optional[int] = ..., layer_end: _Optional[int] = ..., default_strength: _Optional[float] = ..., min_strength: _Optional[float] = ..., max_strength: _Optional[float] = ..., method: _Optional[str] = ..., regions: _Optional[_Iterable[str]] = ..., figures: _Optional[_Iterable[_Union[Figure, _Mapping]]] = ..., generator_sha256: _Optional[str] = ..., offsets: _Optional[_Iterable[float]] = ...) -> None: ...

class DirectionSet(_message.Message):
    __slots__ = ("generator_sha256", "directions")
    GENERATOR_SHA256_FIELD_NUMBER: _ClassVar[int]
    DIRECTIONS_FIELD_NUMBER: _ClassVar[int]
    generator_sha256: str
    directions: _containers.RepeatedCompositeFieldContainer[DirectionEntry]
    def __init__(self, generator_sha256: _Optional[str] = ..., directions: _Optional[_Iterable[_Union[DirectionEntry, _Mapping]]] = ...) -> None: ...

class StyleEntry(_message.Message):
    __slots__ = ("name", "description", "model", "index")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    model: str
    index: int
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., model: _Optional[str] = ..., index: _Optional[int] = ...) -> None: ...

class BundleManifest(_message.Message):
    __slots__ = ("schema_version", "name", "version", "models", "generators", "styles", "default_segmenter", "exporter_version")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    GENERATORS_FIELD_NUMBER: _ClassVar[int]
    STYLES_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_SEGMENTER_FIELD_NUMBER: _ClassVar[int]
    EXPORTER_VERSION_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    name: str
    version: str
    models: _containers.RepeatedCompositeFieldContainer[ModelEntry]
    generators: _containers.RepeatedCompositeFieldContainer[GeneratorEntry]
    styles: _containers.RepeatedCompositeFieldContainer[StyleEntry]
    default_segmenter: str
    exporter_version: str
    def __init__(self, schema_version: _Optional[int] = ..., name: _Optional[str] = ..., version: _Optional[str] = ..., models: _Optional[_Iterable[_Union[ModelEntry, _Mapping]]] = ..., generators: _Optional[_Iterable[_Union[GeneratorEntry, _Mapping]]] = ..., styles: _Optional[_Iterable[_Union[StyleEntry, _Mapping]]] = ..., default_segmenter: _Optional[str] = ..., exporter_version: _Optional[str] = ...) -> None: ...
