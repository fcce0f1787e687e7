"""The worker's desk: each row of its table, and that a replayed OPEN is never answered."""

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_core.envelope.keys import HPKE_OVERHEAD, WorkerKey, seal_open
from stream_core.envelope.session import Opener, Sealer, to_gateway_key, to_worker_key
from stream_core.wire.frames import Frame, FrameType, header, split
from stream_core.wire.payloads import Credit, Failure, Open, Resume, dump_open, load
from stream_core.wire.sender import SenderState
from stream_worker.desk import ACCEPT_WINDOW_MS, Abort, Desk, Dropped, Send, Start, Wake

LEASE, GATEWAY, OPEN_SECRET = b"l" * 16, b"g" * 16, b"o" * 32
KEY = WorkerKey()
NOW = 1_763_650_000_000


def new_desk(**limits: int) -> Desk:
    def open_with(frame: Frame) -> bytes:
        return KEY.open(frame.body, lease_id=LEASE, header=frame.header, open_secret=OPEN_SECRET)

    return Desk(LEASE, open_with, **{"max_requests": 2, "max_body": 1000, **limits})


class Caller:
    """A gateway's side of one request."""

    def __init__(
        self,
        *,
        opened_at_ms: int = NOW,
        body: bytes = b"{}",
        parts: int = 0,
        window: int = 100,
        open_secret: bytes = OPEN_SECRET,
    ) -> None:
        self.id, secret = secrets.token_bytes(16), secrets.token_bytes(32)
        plaintext = dump_open(
            Open(secret=secret, opened_at_ms=opened_at_ms, window=window, path="/v1/x", body_parts=parts), body
        )
        clear = header(FrameType.OPEN, len(plaintext) + HPKE_OVERHEAD, self.id, GATEWAY, 0)
        sealed = seal_open(plaintext, KEY.public.load(), lease_id=LEASE, header=clear, open_secret=open_secret)
        (self.open,) = split(clear + sealed)
        names = {"lease_id": LEASE, "request_id": self.id}
        self._sealer = Sealer(to_worker_key(secret, **names), request_id=self.id, return_address=GATEWAY)
        self._opener = Opener(to_gateway_key(secret, **names))

    def frame(self, type_: FrameType, plaintext: bytes = b"") -> Frame:
        return split(self._sealer.seal(type_, plaintext))[0]

    def refusal(self, action: Send) -> Failure:
        (frame,) = split(action.frames[-1])
        assert frame.type is FrameType.ERROR
        return load(self._opener.open(frame), Failure)


def test_open_starts_and_is_acknowledged():
    """An OPEN with its body starts the request at once, with a frame that tells the gateway so."""
    desk, caller = new_desk(), Caller(body=b'{"a":1}')
    (start,) = desk.receive(caller.open, NOW)
    assert isinstance(start, Start)
    assert start.request.take_body() == b'{"a":1}'
    assert split(start.frame)[0].type is FrameType.DATA


def test_open_again_sends_again_what_is_kept():
    """A second copy of a running request's OPEN brings the very same bytes and starts nothing."""
    desk, caller = new_desk(), Caller()
    (start,) = desk.receive(caller.open, NOW)
    assert desk.receive(caller.open, NOW) == [Send([start.frame])]


def test_replayed_open_is_dropped_silently():
    """An OPEN of a finished request, or one that is too old, seals nothing: its keys have been used."""
    desk, caller = new_desk(), Caller()
    desk.receive(caller.open, NOW)
    desk.receive(caller.frame(FrameType.CANCEL), NOW)
    for later in (NOW, NOW + ACCEPT_WINDOW_MS - 1, NOW + 10 * ACCEPT_WINDOW_MS, NOW):
        (action,) = desk.receive(caller.open, later)
        assert isinstance(action, Dropped)


@given(st.lists(st.integers(-3 * ACCEPT_WINDOW_MS, 3 * ACCEPT_WINDOW_MS), min_size=1, max_size=12))
def test_no_clock_makes_a_replay_possible(steps):
    """However the worker's clock jumps, an OPEN is answered at most once."""
    desk, caller = new_desk(), Caller()
    answered = 0
    for step in steps:
        for action in desk.receive(caller.open, NOW + step):
            if isinstance(action, Start):
                answered += 1
                desk.receive(caller.frame(FrameType.CANCEL), NOW + step)
        for other in (Caller(opened_at_ms=NOW + step),):
            for action in desk.receive(other.open, NOW + step):
                if isinstance(action, Start):
                    desk.forget(action.request)
    assert answered <= 1


@pytest.mark.parametrize("apart", [-ACCEPT_WINDOW_MS - 1, ACCEPT_WINDOW_MS + 1])
def test_clock_too_far_is_counted(apart):
    """A gateway whose clock is off by more than the window is dropped, with both numbers for the operator."""
    (action,) = new_desk().receive(Caller(opened_at_ms=NOW + apart).open, NOW)
    assert isinstance(action, Dropped)
    assert (action.kind, "at most 300 s" in action.detail) == ("clock", True)


def test_busy_and_not_ready_are_refused_with_a_reason():
    """Past max_requests, or before the engine is ready, a new request hears why and may go elsewhere."""
    desk = new_desk(max_requests=1)
    desk.receive(Caller().open, NOW)
    second, third = Caller(), Caller()
    (action,) = desk.receive(second.open, NOW)
    assert second.refusal(action) == Failure(
        "worker_busy", "1 requests run here, at most 1", retryable=True, status=503
    )
    desk.refuse_new = Failure("worker_draining", "goodbye", retryable=True, status=503)
    (action,) = desk.receive(third.open, NOW)
    assert third.refusal(action).code == "worker_draining"


def test_body_in_parts():
    """A large request starts when its last part is there, whole."""
    desk, caller = new_desk(), Caller(body=b"", parts=3)
    (accepted,) = desk.receive(caller.open, NOW)
    assert isinstance(accepted, Send)
    assert desk.receive(caller.frame(FrameType.BODY, b"one"), NOW) == []
    assert desk.receive(caller.frame(FrameType.BODY, b"two"), NOW) == []
    (start,) = desk.receive(caller.frame(FrameType.BODY, b"three"), NOW)
    assert isinstance(start, Start)
    assert start.request.take_body() == b"onetwothree"


def test_body_with_a_part_lost_or_too_large_is_refused():
    """A lost part is noticed by its number; a body past the limit is refused with both numbers."""
    desk, caller = new_desk(), Caller(body=b"", parts=3)
    desk.receive(caller.open, NOW)
    caller.frame(FrameType.BODY, b"lost")
    (action,) = desk.receive(caller.frame(FrameType.BODY, b"two"), NOW)
    assert caller.refusal(action).code == "body_incomplete"
    desk, caller = new_desk(), Caller(body=b"", parts=2)
    desk.receive(caller.open, NOW)
    (action,) = desk.receive(caller.frame(FrameType.BODY, bytes(1001)), NOW)
    assert caller.refusal(action).message == "request of more than 1,001 bytes, at most 1,000"


def test_credit_wakes_and_the_last_one_forgets():
    """CREDIT moves the window; once END is acknowledged nothing of the request is left."""
    desk, caller = new_desk(), Caller()
    (start,) = desk.receive(caller.open, NOW)
    request = start.request
    assert desk.receive(caller.frame(FrameType.CREDIT, Credit(1, 500).dump()), NOW) == [Wake(request)]
    request.sender.end()
    desk.receive(caller.frame(FrameType.CREDIT, Credit(2, 500).dump()), NOW)
    assert request.sender.state is SenderState.FINISHED
    assert desk.requests == {}


def test_cancel_aborts_and_forgets():
    """CANCEL stops the engine's work and leaves nothing in memory."""
    desk, caller = new_desk(), Caller()
    (start,) = desk.receive(caller.open, NOW)
    assert desk.receive(caller.frame(FrameType.CANCEL), NOW) == [Abort(start.request)]
    assert desk.requests == {}


def test_resume_sends_the_same_bytes():
    """RESUME brings every kept frame from that number on, as the very bytes that were sent before."""
    desk, caller = new_desk(), Caller()
    (start,) = desk.receive(caller.open, NOW)
    more = start.request.sender.alive()
    assert desk.receive(caller.frame(FrameType.RESUME, Resume(1).dump()), NOW) == [Send([more])]
    assert desk.unacknowledged() == [start.frame, more]


def test_control_frames_replayed_changed_or_foreign_are_dropped():
    """A control frame again, with a byte changed, of another request or of an unknown one changes nothing."""
    desk, caller, other = new_desk(), Caller(), Caller()
    desk.receive(caller.open, NOW)
    credit = caller.frame(FrameType.CREDIT, Credit(0, 200).dump())
    desk.receive(credit, NOW)
    cancel = caller.frame(FrameType.CANCEL)
    attempts = [
        credit,
        cancel._replace(body=bytes(len(cancel.body))),
        other.frame(FrameType.CANCEL),
        other.frame(FrameType.CANCEL)._replace(request_id=caller.id),
        caller.frame(FrameType.CREDIT, Credit(99, 0).dump()),
        caller.frame(FrameType.CREDIT, b"short"),
    ]
    kinds = []
    for frame in attempts:
        (action,) = desk.receive(frame, NOW)
        assert isinstance(action, Dropped)
        kinds.append(action.kind)
    assert kinds == ["replay", "seal_broken", "unknown_request", "seal_broken", "malformed_frame", "malformed_frame"]
    assert len(desk.requests) == 1


def test_open_for_another_worker_is_dropped():
    """An OPEN that a relay brings to the wrong worker says nothing to it."""
    caller = Caller()
    other = WorkerKey()

    def open_with(frame: Frame) -> bytes:
        return other.open(frame.body, lease_id=LEASE, header=frame.header, open_secret=OPEN_SECRET)

    (action,) = Desk(LEASE, open_with, max_requests=1, max_body=9).receive(caller.open, NOW)
    assert isinstance(action, Dropped)
    assert action.kind == "seal_broken"


def test_open_of_nobody_of_ours_is_dropped():
    """The worker's public key is no secret: an OPEN sealed by who has only that is dropped without a word."""
    (action,) = new_desk().receive(Caller(open_secret=bytes(32)).open, NOW)
    assert isinstance(action, Dropped)
    assert action.kind == "seal_broken"
