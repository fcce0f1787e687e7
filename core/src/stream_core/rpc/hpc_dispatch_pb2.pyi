from stream_core.rpc import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WorkerState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORKER_STATE_UNSPECIFIED: _ClassVar[WorkerState]
    WORKER_STATE_STARTING: _ClassVar[WorkerState]
    WORKER_STATE_READY: _ClassVar[WorkerState]
    WORKER_STATE_DRAINING: _ClassVar[WorkerState]
    WORKER_STATE_LOST: _ClassVar[WorkerState]
WORKER_STATE_UNSPECIFIED: WorkerState
WORKER_STATE_STARTING: WorkerState
WORKER_STATE_READY: WorkerState
WORKER_STATE_DRAINING: WorkerState
WORKER_STATE_LOST: WorkerState

class WatchPoolRequest(_message.Message):
    __slots__ = ("gateway_id", "changes")
    GATEWAY_ID_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    gateway_id: str
    changes: bool
    def __init__(self, gateway_id: _Optional[str] = ..., changes: _Optional[bool] = ...) -> None: ...

class Pool(_message.Message):
    __slots__ = ("revision", "workers", "models", "clusters", "change", "gone", "states_told")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    STATES_TOLD_FIELD_NUMBER: _ClassVar[int]
    revision: int
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    models: _containers.RepeatedCompositeFieldContainer[ModelState]
    clusters: _containers.RepeatedCompositeFieldContainer[ClusterState]
    change: bool
    gone: _containers.RepeatedScalarFieldContainer[bytes]
    states_told: bool
    def __init__(self, revision: _Optional[int] = ..., workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ..., models: _Optional[_Iterable[_Union[ModelState, _Mapping]]] = ..., clusters: _Optional[_Iterable[_Union[ClusterState, _Mapping]]] = ..., change: _Optional[bool] = ..., gone: _Optional[_Iterable[bytes]] = ..., states_told: _Optional[bool] = ...) -> None: ...

class ClusterState(_message.Message):
    __slots__ = ("name", "online", "reason", "priority", "failure_rate")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ONLINE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    FAILURE_RATE_FIELD_NUMBER: _ClassVar[int]
    name: str
    online: bool
    reason: str
    priority: int
    failure_rate: float
    def __init__(self, name: _Optional[str] = ..., online: _Optional[bool] = ..., reason: _Optional[str] = ..., priority: _Optional[int] = ..., failure_rate: _Optional[float] = ...) -> None: ...

class Worker(_message.Message):
    __slots__ = ("lease_id", "cluster", "state", "models", "mlkem768_public", "x25519_public", "max_requests", "running", "expires_unix_ms", "waiting", "first_token_ms", "told", "open_secret")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    MLKEM768_PUBLIC_FIELD_NUMBER: _ClassVar[int]
    X25519_PUBLIC_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    FIRST_TOKEN_MS_FIELD_NUMBER: _ClassVar[int]
    TOLD_FIELD_NUMBER: _ClassVar[int]
    OPEN_SECRET_FIELD_NUMBER: _ClassVar[int]
    lease_id: bytes
    cluster: str
    state: WorkerState
    models: _containers.RepeatedCompositeFieldContainer[_common_pb2.Model]
    mlkem768_public: bytes
    x25519_public: bytes
    max_requests: int
    running: int
    expires_unix_ms: int
    waiting: int
    first_token_ms: float
    told: bool
    open_secret: bytes
    def __init__(self, lease_id: _Optional[bytes] = ..., cluster: _Optional[str] = ..., state: _Optional[_Union[WorkerState, str]] = ..., models: _Optional[_Iterable[_Union[_common_pb2.Model, _Mapping]]] = ..., mlkem768_public: _Optional[bytes] = ..., x25519_public: _Optional[bytes] = ..., max_requests: _Optional[int] = ..., running: _Optional[int] = ..., expires_unix_ms: _Optional[int] = ..., waiting: _Optional[int] = ..., first_token_ms: _Optional[float] = ..., told: _Optional[bool] = ..., open_secret: _Optional[bytes] = ...) -> None: ...

class ModelState(_message.Message):
    __slots__ = ("id", "cluster", "state", "reason", "queue_position", "ready_unix_ms", "ready", "starting")
    ID_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    READY_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    STARTING_FIELD_NUMBER: _ClassVar[int]
    id: str
    cluster: str
    state: str
    reason: str
    queue_position: int
    ready_unix_ms: int
    ready: int
    starting: int
    def __init__(self, id: _Optional[str] = ..., cluster: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., queue_position: _Optional[int] = ..., ready_unix_ms: _Optional[int] = ..., ready: _Optional[int] = ..., starting: _Optional[int] = ...) -> None: ...

class RequestWorkerRequest(_message.Message):
    __slots__ = ("model", "cluster", "waiting", "gateway_id")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_ID_FIELD_NUMBER: _ClassVar[int]
    model: str
    cluster: str
    waiting: int
    gateway_id: str
    def __init__(self, model: _Optional[str] = ..., cluster: _Optional[str] = ..., waiting: _Optional[int] = ..., gateway_id: _Optional[str] = ...) -> None: ...

class RequestWorkerReply(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: ModelState
    def __init__(self, model: _Optional[_Union[ModelState, _Mapping]] = ...) -> None: ...
