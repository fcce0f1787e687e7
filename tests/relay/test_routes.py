"""One worker's socket at the relay: what is admitted, where frames go, what closes it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_core.errors import SealError
from stream_core.wire import subjects
from stream_core.wire.frames import FrameType, encode, split
from stream_core.wire.payloads import Hello, dump
from stream_relay.routes import Admit, Close, Phase, Publish, WorkerRoute

LEASE, GATEWAY, OTHER_GATEWAY = b"l" * 16, b"g" * 16, b"h" * 16


def verify(ticket: str, _now: float) -> bytes:
    if ticket != "good":
        raise SealError("ticket refused: forged")
    return LEASE


def hello(ticket: str = "good", lease: bytes = LEASE) -> bytes:
    return encode(FrameType.HELLO, dump(Hello(lease=lease.hex(), ticket=ticket, software="test")))


def data(gateway: bytes, text: bytes = b"sealed") -> bytes:
    return encode(FrameType.DATA, text, request_id=b"r" * 16, return_address=gateway)


def route(**limits: int) -> WorkerRoute:
    return WorkerRoute(verify, **{"max_frame": 1000, "max_frames_per_s": 1000, **limits})


@pytest.fixture
def serving() -> WorkerRoute:
    """A route that has said HELLO."""
    admitted = route()
    assert admitted.receive(hello(), now=0) == [Admit(LEASE, "test")]
    return admitted


@pytest.mark.parametrize(
    ("message", "kind", "reason"),
    [
        (data(GATEWAY), "malformed", "one HELLO, not 1 frames from DATA"),
        (hello() + data(GATEWAY), "malformed", "one HELLO, not 2 frames from HELLO"),
        (hello("forged"), "ticket", "ticket refused: forged"),
        (hello(lease=b"m" * 16), "ticket", "the ticket is for another lease"),
        (encode(FrameType.HELLO, b"{"), "malformed", "HELLO body"),
        (b"", "malformed", "0 bytes left"),
    ],
)
def test_before_hello(message, kind, reason):
    """Nothing is admitted without a ticket for exactly that lease."""
    fresh = route()
    (action,) = fresh.receive(message, now=0)
    assert isinstance(action, Close)
    assert (action.kind, reason in action.reason, fresh.phase) == (kind, True, Phase.CLOSED)
    assert fresh.receive(hello(), now=0) == []


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (hello(), "HELLO does not come from a worker"),
        (encode(FrameType.OPEN, b"", return_address=GATEWAY), "OPEN does not come from a worker"),
        (encode(FrameType.DATA, b""), "DATA without a return address"),
        (encode(FrameType.STATUS, b"", request_id=b"m" * 16), "STATUS of another lease"),
        (data(GATEWAY, bytes(1000)), "frame of 1,048 bytes, at most 1,000"),
        (data(GATEWAY) + b"\x01", "1 bytes left"),
    ],
)
def test_what_closes_a_serving_socket(serving, message, reason):
    """A frame that a worker may not send closes its socket, and nothing of that message is published."""
    (action,) = serving.receive(data(GATEWAY) + message, now=0)
    assert isinstance(action, Close)
    assert reason in action.reason


def test_regroups_by_return_address(serving):
    """Frames of one message reach their gateways as one message each, in order; the lease's own go to its subject."""
    status = encode(FrameType.STATUS, b"s", request_id=LEASE)
    message = data(GATEWAY, b"1") + data(OTHER_GATEWAY, b"2") + status + data(GATEWAY, b"3")
    assert serving.receive(message, now=0) == [
        Publish(subjects.gateway_in(GATEWAY), data(GATEWAY, b"1") + data(GATEWAY, b"3")),
        Publish(subjects.gateway_in(OTHER_GATEWAY), data(OTHER_GATEWAY, b"2")),
        Publish(subjects.lease_out(LEASE), status),
    ]


def test_one_place_goes_on_as_it_is(serving):
    """A message for one gateway is passed on without a copy."""
    message = data(GATEWAY, b"1") + data(GATEWAY, b"2")
    (action,) = serving.receive(message, now=0)
    assert action.payload is message


def test_flood_closes_with_the_number(serving):
    """A worker that sends more frames a second than it may is closed; at the allowed rate it goes on for ever."""
    steady = route(max_frames_per_s=10)
    steady.receive(hello(), now=0)
    for second in range(100):
        assert all(isinstance(steady.receive(data(GATEWAY), now=second)[0], Publish) for _ in range(10))
    (action,) = steady.receive(data(GATEWAY), now=99)
    assert action == Close("malformed", "more than 10 frames a second")
    assert isinstance(serving.receive(data(GATEWAY), now=0)[0], Publish)


@given(st.binary(max_size=400))
def test_any_bytes_only_close(junk):
    """Any bytes at all end in a Close or in whole frames published, never in an exception."""
    admitted = route()
    admitted.receive(hello(), now=0)
    for action in admitted.receive(junk, now=1):
        assert isinstance(action, Close) or split(action.payload, 1000)
