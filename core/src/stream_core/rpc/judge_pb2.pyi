from stream_core.rpc import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Level(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEVEL_UNSPECIFIED: _ClassVar[Level]
    LEVEL_LOW: _ClassVar[Level]
    LEVEL_MEDIUM: _ClassVar[Level]
    LEVEL_HIGH: _ClassVar[Level]
LEVEL_UNSPECIFIED: Level
LEVEL_LOW: Level
LEVEL_MEDIUM: Level
LEVEL_HIGH: Level

class ScoreRequest(_message.Message):
    __slots__ = ("request_id", "turns", "tiers", "modalities", "tool_count", "structured_output", "max_output_tokens", "cache_scope", "privacy")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TURNS_FIELD_NUMBER: _ClassVar[int]
    TIERS_FIELD_NUMBER: _ClassVar[int]
    MODALITIES_FIELD_NUMBER: _ClassVar[int]
    TOOL_COUNT_FIELD_NUMBER: _ClassVar[int]
    STRUCTURED_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHE_SCOPE_FIELD_NUMBER: _ClassVar[int]
    PRIVACY_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    turns: _containers.RepeatedCompositeFieldContainer[Turn]
    tiers: _containers.RepeatedScalarFieldContainer[str]
    modalities: _containers.RepeatedScalarFieldContainer[str]
    tool_count: int
    structured_output: bool
    max_output_tokens: int
    cache_scope: str
    privacy: str
    def __init__(self, request_id: _Optional[str] = ..., turns: _Optional[_Iterable[_Union[Turn, _Mapping]]] = ..., tiers: _Optional[_Iterable[str]] = ..., modalities: _Optional[_Iterable[str]] = ..., tool_count: _Optional[int] = ..., structured_output: _Optional[bool] = ..., max_output_tokens: _Optional[int] = ..., cache_scope: _Optional[str] = ..., privacy: _Optional[str] = ...) -> None: ...

class Turn(_message.Message):
    __slots__ = ("role", "text")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    role: str
    text: str
    def __init__(self, role: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class ScoreReply(_message.Message):
    __slots__ = ("scores", "level", "confidence", "expected_output_tokens", "reasons", "backend", "version", "cached", "local_suffices")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    LOCAL_SUFFICES_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedCompositeFieldContainer[_common_pb2.TierScore]
    level: Level
    confidence: float
    expected_output_tokens: int
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    backend: str
    version: str
    cached: bool
    local_suffices: float
    def __init__(self, scores: _Optional[_Iterable[_Union[_common_pb2.TierScore, _Mapping]]] = ..., level: _Optional[_Union[Level, str]] = ..., confidence: _Optional[float] = ..., expected_output_tokens: _Optional[int] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., backend: _Optional[str] = ..., version: _Optional[str] = ..., cached: _Optional[bool] = ..., local_suffices: _Optional[float] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("feature", "effect", "text")
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    feature: str
    effect: float
    text: str
    def __init__(self, feature: _Optional[str] = ..., effect: _Optional[float] = ..., text: _Optional[str] = ...) -> None: ...
