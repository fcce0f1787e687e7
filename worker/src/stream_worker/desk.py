"""The worker's requests as a pure state machine: frames from gateways in, actions out. No I/O, no clock.

    frame          | request unknown              | request known
    ---------------+------------------------------+------------------------------------------------------
    OPEN           | Start; Send a refusal; or    | Send: all that is not acknowledged, once more
                   | dropped: not for this key,   | a few times, then dropped: a copy costs a relay
                   | too old, seen before         | nothing, and us a window
    BODY           | dropped                      | the next part: kept, or Start when it was the last;
                   |                              | another: Send a refusal, then Abort
    CREDIT         | dropped                      | Wake, or forgotten when all is acknowledged
    RESUME         | dropped                      | Send from there on
    CANCEL         | dropped                      | Abort
    any, bad seal, | dropped                      | dropped
    or replayed    |                              |

Why a replayed OPEN is dropped without a word: its answer would be sealed with the same key and the same sequence
numbers as the first one's, and AES-GCM breaks when two texts share both. So ids are remembered until they are too old
to be accepted. The horizon of "too old" only ever moves forward, so a clock that is set back opens no gap.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from stream_core.envelope.session import Opener, Sealer, to_gateway_key, to_worker_key
from stream_core.errors import FrameError, SealError
from stream_core.ids import to_hex
from stream_core.wire.frames import Frame, FrameType
from stream_core.wire.payloads import Credit, Failure, Open, Resume, load_open
from stream_core.wire.sender import Sender, SenderState

ACCEPT_WINDOW_MS: Final = 300_000
"""How far a gateway's clock and the frame's travel may lie apart from this worker's clock."""
MAX_REMEMBERED: Final = 1_000_000
MAX_BODY_PARTS: Final = 4096
MAX_WINDOW: Final = 16 * 1024 * 1024
"""Payload bytes of one answer that a gateway may leave unacknowledged, unless set otherwise; the worker keeps them."""
MAX_COPIES: Final = 8
"""Copies of one OPEN that are answered; an honest gateway sends two."""
_PENDING_BODIES: Final = 4
"""Incomplete requests may hold this many times `max_body`, all together."""
_KNOWN_PER_RUNNING: Final = 4
"""Requests known at once for each that may run: a refusal, or an END, is kept until it is acknowledged."""

OpenWith = Callable[[Frame], bytes]
"""Opens the body of an OPEN frame; raises `SealError`."""


@dataclass(slots=True, eq=False)
class Request:
    """One request at this worker."""

    id: bytes
    open: Open
    opener: Opener
    sender: Sender
    parts: list[bytes]
    """The OpenAI request so far; emptied when the engine has it."""
    heard_ms: int
    """When a frame of its gateway last opened."""
    next_control: int = 0
    complete: bool = False
    copies: int = 0
    """Of its OPEN, that came and were answered."""
    size: int = 0
    """Bytes of the request so far."""

    @property
    def name(self) -> str:
        """Its id as people see it."""
        return to_hex(self.id)

    def take_body(self) -> bytes:
        """Hand over the OpenAI request; it is kept here no longer."""
        parts, self.parts = self.parts, []
        return b"".join(parts)


class Start(NamedTuple):
    """The request is complete: give it to the engine; `frame` tells the gateway that it was accepted."""

    request: Request
    frame: bytes


class Send(NamedTuple):
    """Frames to send."""

    frames: list[bytes]


class Wake(NamedTuple):
    """The window moved: a request that waits for it may go on."""

    request: Request


class Abort(NamedTuple):
    """Stop the engine's work for this request now; it is forgotten already."""

    request: Request


class Dropped(NamedTuple):
    """A frame that means nothing: to be counted. `kind` is from a closed set."""

    kind: str
    detail: str


Action = Start | Send | Wake | Abort | Dropped


class Desk:
    """All requests of one worker.

    Args:
        lease_id: 16 bytes.
        open_with: opens OPEN frames with the worker's key.
        max_requests: that may run at once; more are refused as busy.
        max_body: bytes of one OpenAI request.
        max_window: payload bytes of one answer that are kept unacknowledged; credit beyond that buys nothing.
    """

    def __init__(
        self, lease_id: bytes, open_with: OpenWith, *, max_requests: int, max_body: int, max_window: int = MAX_WINDOW
    ) -> None:
        self._lease_id = lease_id
        self._open_with = open_with
        self._max_requests = max_requests
        self._max_body = max_body
        self._max_window = max_window
        self._seen: OrderedDict[bytes, int] = OrderedDict()
        self._horizon_ms = 0
        self.requests: dict[bytes, Request] = {}
        self.refuse_new: Failure | None = None
        """When set, new requests are refused with it: not ready yet, or draining."""

    @property
    def running(self) -> int:
        """Requests whose answer is not closed."""
        return sum(request.sender.state is SenderState.OPEN for request in self.requests.values())

    def receive(self, frame: Frame, now_ms: int) -> list[Action]:
        """Take one frame.

        Args:
            frame: of any type; only those a gateway sends mean something.
            now_ms: unix milliseconds.
        """
        request = self.requests.get(frame.request_id)
        if frame.type is FrameType.OPEN:
            return self._open(frame, now_ms) if request is None else self._open_again(request)
        if request is None:
            return [Dropped("unknown_request", f"{frame.type.name} for no request of this worker")]
        if frame.sequence < request.next_control:
            return [Dropped("replay", f"{frame.type.name} {frame.sequence} again")]
        try:
            plaintext = request.opener.open(frame)
        except SealError as error:
            return [Dropped(error.code, error.message)]
        expected, request.next_control = request.next_control, frame.sequence + 1
        request.heard_ms = now_ms
        try:
            return self._control(request, frame, plaintext, expected)
        except FrameError as error:
            return [Dropped(error.code, error.message)]

    def forget(self, request: Request) -> None:
        """Drop a request and all it keeps; its id stays remembered."""
        self.requests.pop(request.id, None)

    def unacknowledged(self) -> list[bytes]:
        """Every frame that no gateway has acknowledged, for a new connection."""
        frames: list[bytes] = []
        for request in self.requests.values():
            frames += request.sender.resume(Resume(request.sender.first_kept))
        return frames

    def _open_again(self, request: Request) -> list[Action]:
        if request.copies >= MAX_COPIES:
            return [Dropped("replay", f"OPEN of a running request, more than {MAX_COPIES} times")]
        request.copies += 1
        return [Send(request.sender.resume(Resume(request.sender.first_kept)))]

    def _open(self, frame: Frame, now_ms: int) -> list[Action]:
        if frame.request_id in self._seen:
            return [Dropped("replay", "OPEN of a request that was here before")]
        if len(self.requests) >= (most := _KNOWN_PER_RUNNING * self._max_requests + _KNOWN_PER_RUNNING):
            return [Dropped("flood", f"{len(self.requests):,} requests not yet acknowledged, at most {most:,}")]
        try:
            opened, body = load_open(self._open_with(frame))
        except (SealError, FrameError) as error:
            return [Dropped(error.code, error.message)]
        self._move_horizon(now_ms)
        if not self._horizon_ms <= opened.opened_at_ms <= now_ms + ACCEPT_WINDOW_MS:
            apart = (now_ms - opened.opened_at_ms) / 1000
            return [Dropped("clock", f"OPEN is {apart:,.0f} s from this clock, at most {ACCEPT_WINDOW_MS // 1000} s")]
        if len(self._seen) >= MAX_REMEMBERED:
            return [Dropped("flood", f"{len(self._seen):,} requests within the window, at most {MAX_REMEMBERED:,}")]
        if not 0 < opened.window <= self._max_window:
            return [Dropped("malformed_frame", f"OPEN: window of {opened.window:,} bytes, 1 to {self._max_window:,}")]
        if opened.body_parts and body:
            return [Dropped("malformed_frame", f"OPEN: {len(body):,} bytes of body besides {opened.body_parts} parts")]
        self._seen[frame.request_id] = opened.opened_at_ms
        request = self._admit(frame, opened, body, now_ms)
        if refusal := self._refusal(opened, len(body)):
            request.parts.clear()
            return [Send([request.sender.fail(refusal)])]
        accepted = request.sender.alive()
        if opened.body_parts:
            return [Send([accepted])]
        request.complete = True
        return [Start(request, accepted)]

    def _admit(self, frame: Frame, opened: Open, body: bytes, now_ms: int) -> Request:
        names = {"lease_id": self._lease_id, "request_id": frame.request_id}
        sealer = Sealer(
            to_gateway_key(opened.secret, **names), request_id=frame.request_id, return_address=frame.return_address
        )
        request = Request(
            id=frame.request_id,
            open=opened,
            opener=Opener(to_worker_key(opened.secret, **names)),
            sender=Sender(sealer.seal, opened.window, self._max_window),
            parts=[body] if body else [],
            heard_ms=now_ms,
        )
        self.requests[frame.request_id] = request
        return request

    def _refusal(self, opened: Open, size: int) -> Failure | None:
        if self.refuse_new is not None:
            return self.refuse_new
        if self.running > self._max_requests:
            message = f"{self.running - 1} requests run here, at most {self._max_requests}"
            return Failure(code="worker_busy", message=message, retryable=True, status=503)
        if opened.body_parts > MAX_BODY_PARTS:
            message = f"request in {opened.body_parts:,} parts, at most {MAX_BODY_PARTS:,}"
            return Failure(code="request_too_large", message=message, status=413)
        if size > self._max_body:
            message = f"request of {size:,} bytes, at most {self._max_body:,}"
            return Failure(code="request_too_large", message=message, status=413)
        return None

    def _control(self, request: Request, frame: Frame, plaintext: bytes, expected: int) -> list[Action]:
        match frame.type:
            case FrameType.BODY:
                return self._body(request, frame, plaintext, expected)
            case FrameType.CREDIT:
                request.sender.credit(Credit.load(plaintext))
                if request.sender.state is SenderState.FINISHED:
                    self.forget(request)
                return [Wake(request)]
            case FrameType.RESUME:
                return [Send(request.sender.resume(Resume.load(plaintext)))]
            case FrameType.CANCEL:
                self.forget(request)
                return [Abort(request)]
            case _:
                raise FrameError(f"{frame.type.name} does not travel to a worker")

    def _body(self, request: Request, frame: Frame, plaintext: bytes, expected: int) -> list[Action]:
        if request.complete or request.sender.state is not SenderState.OPEN:
            raise FrameError("BODY of a request that is complete")
        request.parts.append(plaintext)
        request.size += len(plaintext)
        pending = sum(other.size for other in self.requests.values() if not other.complete)
        if frame.sequence != expected:
            failure = Failure(code="body_incomplete", message="part of the request was lost", retryable=True)
        elif request.size > self._max_body:
            message = f"request of more than {request.size:,} bytes, at most {self._max_body:,}"
            failure = Failure(code="request_too_large", message=message, status=413)
        elif pending > (most := _PENDING_BODIES * self._max_body):
            message = f"incomplete requests of {pending:,} bytes wait here, at most {most:,}"
            failure = Failure(code="worker_busy", message=message, retryable=True, status=503)
        elif len(request.parts) < request.open.body_parts:
            return []
        else:
            request.complete = True
            return [Start(request, request.sender.alive())]
        request.parts.clear()
        request.size = 0
        return [Send([request.sender.fail(failure)])]

    def _move_horizon(self, now_ms: int) -> None:
        self._horizon_ms = max(self._horizon_ms, now_ms - ACCEPT_WINDOW_MS)
        # Arrival order is nearly the order of opening; what lingers behind a younger id is dropped a little later.
        while self._seen and next(iter(self._seen.values())) < self._horizon_ms:
            self._seen.popitem(last=False)
