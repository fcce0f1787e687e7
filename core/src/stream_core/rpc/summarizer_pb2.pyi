from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Method(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METHOD_UNSPECIFIED: _ClassVar[Method]
    METHOD_UNCHANGED: _ClassVar[Method]
    METHOD_MODEL: _ClassVar[Method]
    METHOD_EXTRACT: _ClassVar[Method]
METHOD_UNSPECIFIED: Method
METHOD_UNCHANGED: Method
METHOD_MODEL: Method
METHOD_EXTRACT: Method

class Conversation(_message.Message):
    __slots__ = ("messages_json", "tools_json")
    MESSAGES_JSON_FIELD_NUMBER: _ClassVar[int]
    TOOLS_JSON_FIELD_NUMBER: _ClassVar[int]
    messages_json: bytes
    tools_json: bytes
    def __init__(self, messages_json: _Optional[bytes] = ..., tools_json: _Optional[bytes] = ...) -> None: ...

class Target(_message.Message):
    __slots__ = ("tier", "model", "context_window", "reserved_output")
    TIER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_WINDOW_FIELD_NUMBER: _ClassVar[int]
    RESERVED_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    tier: str
    model: str
    context_window: int
    reserved_output: int
    def __init__(self, tier: _Optional[str] = ..., model: _Optional[str] = ..., context_window: _Optional[int] = ..., reserved_output: _Optional[int] = ...) -> None: ...

class CountRequest(_message.Message):
    __slots__ = ("request_id", "conversation", "target")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    conversation: Conversation
    target: Target
    def __init__(self, request_id: _Optional[str] = ..., conversation: _Optional[_Union[Conversation, _Mapping]] = ..., target: _Optional[_Union[Target, _Mapping]] = ...) -> None: ...

class CountReply(_message.Message):
    __slots__ = ("tokens", "exact")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    tokens: int
    exact: bool
    def __init__(self, tokens: _Optional[int] = ..., exact: _Optional[bool] = ...) -> None: ...

class FitRequest(_message.Message):
    __slots__ = ("request_id", "conversation", "target", "cache_scope", "forbid_condensing", "deadline_ms", "privacy")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    CACHE_SCOPE_FIELD_NUMBER: _ClassVar[int]
    FORBID_CONDENSING_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    PRIVACY_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    conversation: Conversation
    target: Target
    cache_scope: str
    forbid_condensing: bool
    deadline_ms: int
    privacy: str
    def __init__(self, request_id: _Optional[str] = ..., conversation: _Optional[_Union[Conversation, _Mapping]] = ..., target: _Optional[_Union[Target, _Mapping]] = ..., cache_scope: _Optional[str] = ..., forbid_condensing: _Optional[bool] = ..., deadline_ms: _Optional[int] = ..., privacy: _Optional[str] = ...) -> None: ...

class FitReply(_message.Message):
    __slots__ = ("fits", "messages_json", "method", "tokens_before", "tokens_after", "exact", "condensed", "note")
    FITS_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_JSON_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    TOKENS_BEFORE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_AFTER_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    CONDENSED_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    fits: bool
    messages_json: bytes
    method: Method
    tokens_before: int
    tokens_after: int
    exact: bool
    condensed: _containers.RepeatedCompositeFieldContainer[TurnRange]
    note: str
    def __init__(self, fits: _Optional[bool] = ..., messages_json: _Optional[bytes] = ..., method: _Optional[_Union[Method, str]] = ..., tokens_before: _Optional[int] = ..., tokens_after: _Optional[int] = ..., exact: _Optional[bool] = ..., condensed: _Optional[_Iterable[_Union[TurnRange, _Mapping]]] = ..., note: _Optional[str] = ...) -> None: ...

class TurnRange(_message.Message):
    __slots__ = ("first", "last")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    first: int
    last: int
    def __init__(self, first: _Optional[int] = ..., last: _Optional[int] = ...) -> None: ...
