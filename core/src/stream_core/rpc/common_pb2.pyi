from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class TierScore(_message.Message):
    __slots__ = ("tier", "probability")
    TIER_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    tier: str
    probability: float
    def __init__(self, tier: _Optional[str] = ..., probability: _Optional[float] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("id", "context_window", "modalities", "capabilities", "demo", "engine_model")
    ID_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_WINDOW_FIELD_NUMBER: _ClassVar[int]
    MODALITIES_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    DEMO_FIELD_NUMBER: _ClassVar[int]
    ENGINE_MODEL_FIELD_NUMBER: _ClassVar[int]
    id: str
    context_window: int
    modalities: _containers.RepeatedScalarFieldContainer[str]
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    demo: bool
    engine_model: str
    def __init__(self, id: _Optional[str] = ..., context_window: _Optional[int] = ..., modalities: _Optional[_Iterable[str]] = ..., capabilities: _Optional[_Iterable[str]] = ..., demo: _Optional[bool] = ..., engine_model: _Optional[str] = ...) -> None: ...
