"""The gateway's end of one answer: frames in, events out; it notices everything a relay can do to them.

Theory: the only number that matters is the next sequence number.

    a frame with sequence | effect
    ----------------------+----------------------------------------------------------------------
    < next                | duplicate or replay: counted, dropped
    > next                | gap: dropped; `Missing` once, and again when the driver's timer asks
    = next, opens         | delivered, next + 1
    = next, does not open | counted, dropped, `Missing`; past `max_rejected` the request fails

    state    | HEAD        DATA                   END                ERROR
    ---------+-------------------------------------------------------------------
    WAITING  | -> STREAM   no chunks: Alive       fails              -> CLOSED
    STREAM   | fails       Chunks, or Alive       -> CLOSED          -> CLOSED
    CLOSED   | every frame is a duplicate

Frames that open but break the table come from the worker itself: the request fails. An answer is complete only by
an END whose byte count agrees; a stream that merely stops is never a success.
"""

from collections.abc import Callable
from enum import Enum
from typing import Final, NamedTuple

from stream_core.errors import FrameError, SealError
from stream_core.wire.frames import TO_GATEWAY, Flag, Frame, FrameType
from stream_core.wire.payloads import Credit, End, Failure, Head, load, load_chunks
from stream_core.wire.sender import MAX_PAYLOAD

MAX_REJECTED: Final = 16
"""Frames of one request that may fail to open before the request does."""

_FIRST_STATUS: Final = 100
_LAST_STATUS: Final = 599


class Chunks(NamedTuple):
    """Bytes of the engine, in order. `continued`: the last chunk goes on in the next event."""

    chunks: list[bytes]
    continued: bool


class Alive(NamedTuple):
    """The worker knows the request and lives; answered with CREDIT, which also heals a lost one."""


class Missing(NamedTuple):
    """Frames are missing from this sequence number on: answered with RESUME."""

    sequence: int


Event = Head | Chunks | Alive | Missing | End | Failure


class ReceiverState(Enum):
    """See the table above."""

    WAITING = "waiting"
    STREAM = "stream"
    CLOSED = "closed"


class Receiver:
    """Receiving end of one request's answer.

    Args:
        open_: opens a sealed frame; raises `SealError`.
        window: payload bytes that may be in flight or unread, at first.
        max_rejected: frames that may fail to open before the request fails.
    """

    def __init__(self, open_: Callable[[Frame], bytes], window: int, max_rejected: int = MAX_REJECTED) -> None:
        self._open = open_
        self._window = window
        self._max_rejected = max_rejected
        self._received = 0
        self._consumed = 0
        self._granted = window
        self._reported_missing = -1
        self.next_sequence = 0
        self.duplicates = 0
        self.rejected = 0
        self.gaps = 0
        self.state = ReceiverState.WAITING

    def receive(self, frame: Frame) -> Event | None:
        """Take one frame.

        Returns:
            What it means, or None when it means nothing new. `Failure` and `End` close the stream.
        """
        if self.state is ReceiverState.CLOSED or frame.sequence < self.next_sequence:
            self.duplicates += 1
            return None
        if frame.sequence > self.next_sequence:
            self.gaps += 1
            return self._missing()
        try:
            plaintext = self._open(frame)
        except SealError:
            self.rejected += 1
            if self.rejected > self._max_rejected:
                return self._fail(
                    "stream_tampered", f"{self.rejected} frames did not open, at most {self._max_rejected}"
                )
            self._reported_missing = -1
            return self._missing()
        self.next_sequence += 1
        try:
            return self._deliver(frame, plaintext)
        except FrameError as error:
            return self._fail(error.code, error.message)

    def widen(self, window: int) -> None:
        """Let more bytes be in flight or unread from the next CREDIT on; a window never shrinks."""
        self._window = max(self._window, window)

    def missing_again(self) -> Missing:
        """Ask again for what is missing; for the driver's timer, when nothing came for a while."""
        self._reported_missing = self.next_sequence
        return Missing(self.next_sequence)

    def consumed(self, size: int) -> bool:
        """Note that the reader took bytes; true when a CREDIT is due."""
        self._consumed += size
        return self._consumed + self._window - self._granted >= self._window // 4

    def credit(self) -> Credit:
        """The acknowledgement to send now; the last one, after the stream closed, lets the worker forget it."""
        self._granted = self._consumed + self._window
        return Credit(received=self.next_sequence, limit=self._granted)

    def _missing(self) -> Missing | None:
        if self._reported_missing == self.next_sequence:
            return None
        self._reported_missing = self.next_sequence
        return Missing(self.next_sequence)

    def _deliver(self, frame: Frame, plaintext: bytes) -> Event:
        waiting = self.state is ReceiverState.WAITING
        match frame.type:
            case FrameType.DATA:
                if not plaintext:
                    return Alive()
                if waiting:
                    raise FrameError("DATA before HEAD")
                return self._chunks(load_chunks(plaintext), continued=bool(frame.flags & Flag.CONTINUED))
            case FrameType.HEAD:
                if not waiting:
                    raise FrameError("a second HEAD")
                head = load(plaintext, Head)
                # Both go into the HTTP answer as they are.
                if not (_FIRST_STATUS <= head.status <= _LAST_STATUS and head.content_type.isprintable()):
                    raise FrameError(f"HEAD with status {head.status} or a content type that is no header's value")
                self.state = ReceiverState.STREAM
                return head
            case FrameType.END:
                end = load(plaintext, End)
                if waiting or end.bytes != self._received:
                    raise FrameError(f"END after {end.bytes:,} bytes, {self._received:,} arrived")
                self.state = ReceiverState.CLOSED
                return end
            case FrameType.ERROR:
                failure = load(plaintext, Failure)
                self.state = ReceiverState.CLOSED
                return failure
            case _:
                raise FrameError(f"{frame.type.name} does not travel to a gateway, only {sorted(TO_GATEWAY)} do")

    def _chunks(self, chunks: list[bytes], *, continued: bool) -> Chunks:
        self._received += sum(map(len, chunks))
        if self._received > self._granted + MAX_PAYLOAD:
            raise FrameError(f"{self._received:,} bytes sent on a credit of {self._granted:,}")
        return Chunks(chunks, continued)

    def _fail(self, code: str, message: str) -> Failure:
        self.state = ReceiverState.CLOSED
        return Failure(code=code, message=message, retryable=True)
