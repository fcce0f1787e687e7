"""What stands inside the frames: the contract between gateway, worker, relay and hpc_dispatch on one screen.

JSON bodies are msgspec structs; unknown keys are ignored, so that a newer peer may say more. A body that does not
decode is a `FrameError`. DATA carries chunks: each a 32-bit length and then the engine's bytes, verbatim.
"""

import struct
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from stream_core.errors import FrameError

_LENGTH: Final = struct.Struct(">I")
_CREDIT: Final = struct.Struct(">QQ")
_RESUME: Final = struct.Struct(">Q")


class Open(msgspec.Struct, frozen=True, omit_defaults=True):
    """OPEN, gateway to worker, sealed with HPKE to the worker's key."""

    secret: bytes  # 32 bytes, from which both directions' keys are derived
    opened_at_ms: int  # unix milliseconds at the gateway; the worker refuses what is too old
    window: int  # payload bytes the worker may send before the first CREDIT
    path: str  # of the engine's API, e.g. "/v1/chat/completions"
    body_parts: int = 0  # BODY frames that bring the OpenAI request; 0: it follows in this very frame
    headers: dict[str, str] = {}  # trace context ("traceparent", "tracestate") and "x-request-id"


class Head(msgspec.Struct, frozen=True):
    """HEAD, worker to gateway: the engine answered. Comes before any DATA that has chunks."""

    status: int
    content_type: str


class End(msgspec.Struct, frozen=True):
    """END, worker to gateway: the answer is complete. `bytes` counts all DATA payload chunks sent."""

    bytes: int


class Failure(msgspec.Struct, frozen=True):
    """ERROR, worker to gateway: the answer is not complete and will not be."""

    code: str
    message: str
    retryable: bool = False
    status: int = 502


class Hello(msgspec.Struct, frozen=True):
    """HELLO, worker to relay: the first frame on a socket."""

    lease: str  # hex
    ticket: str  # a JWT, `stream_core.tickets`
    software: str = ""


class Welcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """WELCOME, relay to worker: accepted, with the relay's limits."""

    relay: str
    max_frame: int
    max_message: int
    trace: str = ""  # "traceparent" of the relay's own span of this session, for spans to link to; random ids alone


class Goaway(msgspec.Struct, frozen=True):
    """GOAWAY. From a relay: reconnect elsewhere. From a worker: no new requests."""

    reason: str


class ModelOffer(msgspec.Struct, frozen=True):
    """A model that a worker serves."""

    id: str  # the name users see
    engine_model: str  # the name the engine wants
    context_window: int
    modalities: list[str] = msgspec.field(default_factory=lambda: ["text"])
    capabilities: list[str] = []
    demo: bool = False


class Announcement(msgspec.Struct, frozen=True):
    """ANNOUNCE, worker to hpc_dispatch: who I am; authenticated with the lease's bootstrap secret."""

    mlkem768: bytes  # 1,184 bytes, raw
    x25519: bytes  # 32 bytes, raw
    models: list[ModelOffer]
    max_requests: int
    software: str = ""


class Status(msgspec.Struct, frozen=True):
    """STATUS, worker to hpc_dispatch, sealed under the lease: a heartbeat."""

    running: int  # requests that this worker has taken and not answered completely
    draining: bool = False
    expires_in_s: float | None = None
    engine_ready: bool = True
    note: str = ""  # what the engine is doing while it is not ready, in words
    failed: str = ""  # why this worker is about to end before its time, with the last lines of the engine's log
    waiting: int = 0  # requests that the engine itself has queued
    cache_use: float | None = None  # share of the engine's key-value cache in use, 0..1; None: it does not tell
    first_token_ms: float | None = None  # the engine's own, median of the last answers; None: none yet
    served: int = 0  # requests begun since the worker started


_T = TypeVar("_T")
_ENCODER: Final = msgspec.json.Encoder()


def dump(payload: msgspec.Struct) -> bytes:
    """Write a JSON body."""
    return _ENCODER.encode(payload)


def load(body: bytes, type_: type[_T]) -> _T:
    """Read a JSON body.

    Raises:
        FrameError: not JSON, nested too deeply, or not of that type; the message names the field.
    """
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"{type_.__name__.upper()} body: {error}") from error


def dump_open(opened: Open, body: bytes) -> bytes:
    """Write an OPEN payload: a 32-bit length, the JSON, and the OpenAI request as it is."""
    head = dump(opened)
    return _LENGTH.pack(len(head)) + head + body


def load_open(payload: bytes) -> tuple[Open, bytes]:
    """Read an OPEN payload: (what is asked, the OpenAI request or nothing when BODY frames bring it).

    Raises:
        FrameError: cut short, or not of that shape.
    """
    start = _LENGTH.size
    if len(payload) < start:
        raise FrameError(f"OPEN payload of {len(payload)} bytes, at least {start}")
    end = start + _LENGTH.unpack_from(payload)[0]
    if end > len(payload):
        raise FrameError(f"OPEN payload: head of {end - start:,} bytes, {len(payload) - start:,} are there")
    return load(payload[start:end], Open), payload[end:]


def dump_chunks(chunks: Sequence[bytes | memoryview]) -> bytes:
    """Write a DATA payload: each chunk with its length before it."""
    pack = _LENGTH.pack
    parts: list[bytes | memoryview] = []
    for chunk in chunks:
        parts += (pack(len(chunk)), chunk)
    return b"".join(parts)


def load_chunks(payload: bytes) -> list[bytes]:
    """Read a DATA payload; an empty one says only "alive".

    Raises:
        FrameError: the lengths do not add up, or a chunk is empty: it would cost memory and no credit.
    """
    chunks = []
    offset, size = 0, len(payload)
    while offset < size:
        start = offset + _LENGTH.size
        if start > size:
            raise FrameError(f"DATA payload: {size - offset} bytes left, a chunk length has {_LENGTH.size}")
        (length,) = _LENGTH.unpack_from(payload, offset)
        if not length:
            raise FrameError("DATA payload: chunk of 0 bytes, at least 1")
        offset = start + length
        if offset > size:
            raise FrameError(f"DATA payload: chunk of {length:,} bytes, {size - start:,} left")
        chunks.append(payload[start:offset])
    return chunks


class Credit(msgspec.Struct, frozen=True):
    """CREDIT, gateway to worker; both numbers count from the stream's start, so that the last one says it all."""

    received: int  # every worker frame with a lower sequence number has arrived
    limit: int  # payload bytes the worker may have sent in all

    def dump(self) -> bytes:
        """Write it: 16 bytes."""
        return _CREDIT.pack(self.received, self.limit)

    @classmethod
    def load(cls, body: bytes) -> "Credit":
        """Read it; `FrameError` when it is not 16 bytes."""
        if len(body) != _CREDIT.size:
            raise FrameError(f"CREDIT body of {len(body)} bytes, exactly {_CREDIT.size}")
        return cls(*_CREDIT.unpack(body))


class Resume(msgspec.Struct, frozen=True):
    """RESUME, gateway to worker: send again from this sequence number."""

    sequence: int

    def dump(self) -> bytes:
        """Write it: 8 bytes."""
        return _RESUME.pack(self.sequence)

    @classmethod
    def load(cls, body: bytes) -> "Resume":
        """Read it; `FrameError` when it is not 8 bytes."""
        if len(body) != _RESUME.size:
            raise FrameError(f"RESUME body of {len(body)} bytes, exactly {_RESUME.size}")
        return cls(*_RESUME.unpack(body))
