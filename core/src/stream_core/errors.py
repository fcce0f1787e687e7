"""One error tree for all programs.

    StreamError
    ├── LocalError                 the caller asked for something it should not have
    │   ├── InvalidRequest         400 invalid_request_error
    │   │   ├── ContextLengthExceeded  400 context_length_exceeded
    │   │   ├── Unsupported        400 unsupported_parameter
    │   │   ├── RequestTooLarge    413 request_too_large
    │   │   └── ModelNotFound      404 model_not_found
    │   ├── Unauthenticated        401 invalid_api_key
    │   ├── NotAllowed             403 not_allowed
    │   ├── LimitExceeded          429 rate_limit_exceeded
    │   └── ConfigError            a setting is wrong: the program prints one line and exits with 1
    └── RemoteError                the other side failed, or broke the protocol
        ├── FrameError             a frame that the wire protocol does not allow
        ├── SealError              a tag or a signature that does not verify
        ├── UpstreamRejected       the engine answered with an error of its own; passed on as it is
        ├── UpstreamUnavailable    503: nobody there, busy, or lost before the first token
        │   ├── WorkerRefused      503 worker_busy: a worker has no place, or is leaving; another one may have
        │   └── WorkerNotReady     503 worker_not_ready: none is ready yet, one may become so
        ├── UpstreamTimeout        504: no sign of life within the limit
        └── StreamBroken           the answer began and could not be finished

Each class carries the OpenAI error `code` and `type` and the HTTP status that the edge should use. They are
translated to HTTP or gRPC once, at the edge; nobody matches on message text.
"""

from typing import ClassVar


class StreamError(Exception):
    """Root of the tree: `message` is for people, `param` names the field it is about."""

    code: ClassVar[str] = "internal_error"
    type: ClassVar[str] = "server_error"
    status_hint: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class LocalError(StreamError):
    """The caller asked for something it should not have."""

    type = "invalid_request_error"
    status_hint = 400


class InvalidRequest(LocalError):
    """The request is malformed; `param` names the field."""

    code = "invalid_request_error"


class ContextLengthExceeded(InvalidRequest):
    """The conversation fits no model that may see it."""

    code = "context_length_exceeded"


class Unsupported(InvalidRequest):
    """A field that no model which may answer can honour; `param` names it."""

    code = "unsupported_parameter"


class RequestTooLarge(InvalidRequest):
    """The body is larger than the limit; the message prints both numbers."""

    code = "request_too_large"
    status_hint = 413


class ModelNotFound(InvalidRequest):
    """No tier offers a model of this name to this caller."""

    code = "model_not_found"
    status_hint = 404


class Unauthenticated(LocalError):
    """No key, or one that is not valid."""

    code = "invalid_api_key"
    status_hint = 401


class NotAllowed(LocalError):
    """The key is valid, but not for this."""

    code = "not_allowed"
    type = "permission_error"
    status_hint = 403


class LimitExceeded(LocalError):
    """A rate or concurrency limit bit; the message prints both numbers."""

    code = "rate_limit_exceeded"
    type = "rate_limit_error"
    status_hint = 429
    retryable = True


class ConfigError(LocalError):
    """A setting is wrong or missing; the message names it and says what to do."""

    code = "config_error"


class RemoteError(StreamError):
    """The other side failed, or broke the protocol."""

    code = "upstream_error"
    status_hint = 502
    retryable = True


class FrameError(RemoteError):
    """A frame that the wire protocol does not allow."""

    code = "malformed_frame"


class SealError(RemoteError):
    """A tag, an announcement or a ticket that does not verify."""

    code = "seal_broken"


class UpstreamRejected(RemoteError):
    """The engine answered with an error of its own: `status` and `body` are passed on as they are."""

    code = "upstream_rejected"
    retryable = False

    def __init__(self, message: str, *, status: int, body: bytes, content_type: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = body
        self.content_type = content_type


class UpstreamUnavailable(RemoteError):
    """Nobody there, busy, or lost before the first token: another candidate may be tried."""

    code = "upstream_unavailable"
    status_hint = 503


class WorkerRefused(UpstreamUnavailable):
    """A worker of a cluster takes no request now: it has all that it may run, or it is leaving."""

    code = "worker_busy"


class WorkerNotReady(UpstreamUnavailable):
    """No worker of a model is ready yet; `retry_after_s` is the estimate of when one will be, None if not known."""

    code = "worker_not_ready"

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message, param=param)
        self.retry_after_s = retry_after_s


class UpstreamTimeout(RemoteError):
    """No sign of life within the limit; the message prints it."""

    code = "upstream_timeout"
    status_hint = 504


class StreamBroken(RemoteError):
    """The answer began and could not be finished: an error event, never a success."""

    code = "stream_broken"
