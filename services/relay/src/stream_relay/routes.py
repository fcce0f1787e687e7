"""One worker's socket as a pure state machine: messages in, actions out. No keys, no clock of its own.

    state       | HELLO      DATA HEAD END ERROR    ANNOUNCE STATUS     GOAWAY   anything else
    ------------+----------------------------------------------------------------------------------
    EXPECT_HELLO| Admit      close                  close               close    close
    SERVING     | close      Publish to a gateway   Publish to the      ignored  close
                |                                   lease's .out
    CLOSED      | nothing    nothing                nothing             nothing  nothing

The relay can't read frames and need not: it looks at type and return address of the clear header, and at the lease
of ANNOUNCE and STATUS, which must be the socket's own. Frames of one message that go to the same place stay together.
"""

from collections.abc import Callable
from enum import Enum
from typing import Final, NamedTuple

from stream_core.errors import FrameError, SealError
from stream_core.ids import from_hex
from stream_core.wire import payloads, subjects
from stream_core.wire.frames import NOBODY, TO_DISPATCH, TO_GATEWAY, Frame, FrameType, encode, split


class Admit(NamedTuple):
    """The ticket holds: serve this lease; an older socket of the same lease is replaced."""

    lease_id: bytes
    software: str


class Publish(NamedTuple):
    """Whole frames for one subject."""

    subject: str
    payload: bytes


class Close(NamedTuple):
    """Close the socket. `kind` is from a closed set, for counters; `reason` is told to the worker."""

    kind: str
    reason: str


Action = Admit | Publish | Close

VerifyTicket = Callable[[str, float], bytes]
"""(ticket, now in unix seconds) -> lease id; raises `SealError`."""


class Phase(Enum):
    """See the table above."""

    EXPECT_HELLO = "expect hello"
    SERVING = "serving"
    CLOSED = "closed"


class WorkerRoute:
    """What one socket may do, and where its frames go.

    Args:
        verify_ticket: checks a HELLO's ticket.
        max_frame: bytes of one frame, header included.
        max_frames_per_s: frames a worker may send in a second, and at once.
    """

    def __init__(self, verify_ticket: VerifyTicket, *, max_frame: int, max_frames_per_s: int) -> None:
        self._verify_ticket = verify_ticket
        self._max_frame = max_frame
        self._rate: Final = max_frames_per_s
        self._tokens = float(max_frames_per_s)
        self._filled_at: float | None = None
        self.phase = Phase.EXPECT_HELLO
        self.lease_id = NOBODY
        self._out_subject = ""

    def receive(self, message: bytes, *, now: float) -> list[Action]:
        """Take one WebSocket binary message.

        Args:
            message: one or more whole frames.
            now: unix seconds.

        Returns:
            What to do, in order; after a `Close` nothing else follows, and nothing of that message is published.
        """
        if self.phase is Phase.CLOSED:
            return []
        try:
            frames = split(message, self._max_frame)
            if self.phase is Phase.EXPECT_HELLO:
                return [self._admit(frames, now)]
            self._take_tokens(len(frames), now)
            return self._publish(message, frames)
        except FrameError as error:
            return [self.close("malformed", error.message)]
        except SealError as error:
            return [self.close("ticket", error.message)]

    def close(self, kind: str, reason: str) -> Close:
        """End the route; the driver closes the socket."""
        self.phase = Phase.CLOSED
        return Close(kind, reason)

    def _admit(self, frames: list[Frame], now: float) -> Admit:
        first = frames[0]
        if first.type is not FrameType.HELLO or len(frames) != 1:
            raise FrameError(f"the first message must be one HELLO, not {len(frames)} frames from {first.type.name}")
        hello = payloads.load(first.body, payloads.Hello)
        lease_id = self._verify_ticket(hello.ticket, now)
        try:
            claimed = from_hex(hello.lease)
        except ValueError as error:
            raise FrameError(f"HELLO lease: {error}") from error
        if claimed != lease_id:
            raise SealError("the ticket is for another lease")
        self.phase = Phase.SERVING
        self.lease_id = lease_id
        self._out_subject = subjects.lease_out(lease_id)
        return Admit(lease_id, hello.software[:200])

    def _publish(self, message: bytes, frames: list[Frame]) -> list[Action]:
        # One return address for all frames is the common case: the message goes on as it is, without a copy.
        first = self._subject(frames[0])
        places = [first] if len(frames) == 1 else [self._subject(frame) for frame in frames]
        if all(place == first for place in places):
            return [Publish(first, message)] if first else []
        by_place: dict[str, list[bytes]] = {}
        for place, frame in zip(places, frames, strict=True):
            by_place.setdefault(place, []).append(frame.wire)
        return [Publish(place, b"".join(parts)) for place, parts in by_place.items() if place]

    def _subject(self, frame: Frame) -> str:
        if frame.type in TO_GATEWAY:
            if frame.return_address == NOBODY:
                raise FrameError(f"{frame.type.name} without a return address")
            return subjects.gateway_in(frame.return_address)
        if frame.type in TO_DISPATCH:
            if frame.request_id != self.lease_id:
                raise FrameError(f"{frame.type.name} of another lease")
            return self._out_subject
        if frame.type is FrameType.GOAWAY:
            return ""
        raise FrameError(f"{frame.type.name} does not come from a worker")

    def _take_tokens(self, count: int, now: float) -> None:
        if self._filled_at is not None:
            self._tokens = min(float(self._rate), self._tokens + max(0.0, now - self._filled_at) * self._rate)
        self._filled_at = now
        self._tokens -= count
        if self._tokens < 0:
            raise FrameError(f"more than {self._rate:,} frames a second")


def welcome(relay: str, *, max_frame: int, max_message: int, trace: str = "") -> bytes:
    """Build the WELCOME that answers a HELLO; `trace` is the session's own "traceparent"."""
    body = payloads.dump(payloads.Welcome(relay=relay, max_frame=max_frame, max_message=max_message, trace=trace))
    return encode(FrameType.WELCOME, body)


def goaway(reason: str) -> bytes:
    """Build the GOAWAY of a relay that drains."""
    return encode(FrameType.GOAWAY, payloads.dump(payloads.Goaway(reason=reason)))
