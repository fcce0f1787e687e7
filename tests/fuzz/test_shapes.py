"""Well-sealed frames with any content: what a hostile gateway or worker can do, who holds the keys of its own session.

Anybody who has a worker's public key can seal an OPEN, so this is also what relay and broker can do to a worker.
"""

import contextlib
import secrets
import struct
from collections import deque

import pytest
from fuzz.targets import GATEWAY, LEASE, NOW_MS, OPEN_SECRET, PUBLIC, UPLINK_FRAME, WorkerEnd, new_call, open_frames
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_core.envelope.keys import HPKE_OVERHEAD, seal_open
from stream_core.envelope.session import Opener, Sealer, to_worker_key
from stream_core.errors import FrameError
from stream_core.wire.frames import Frame, FrameType, header, split
from stream_core.wire.payloads import Credit, Failure, Head, Open, Resume, dump, dump_chunks, dump_open
from stream_core.wire.receiver import Receiver, ReceiverState
from stream_core.wire.sender import MAX_PAYLOAD, Sender
from stream_worker.desk import MAX_COPIES, MAX_WINDOW, Dropped, Send, Start
from stream_worker.serve import _HEADER_VALUE, _PATH

DEEP = b'{"x":' + b"[" * 100_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
BODIES = st.binary(max_size=80) | st.just(DEEP) | JSON.map(lambda value: repr(value).encode("utf-8", "replace"))
NUMBERS = st.integers(0, 2**64 - 1) | st.integers(0, 40)


def sealed_open(plaintext: bytes, request_id: bytes) -> Frame:
    clear = header(FrameType.OPEN, len(plaintext) + HPKE_OVERHEAD, request_id, GATEWAY, 0)
    sealed = seal_open(plaintext, PUBLIC, lease_id=LEASE, header=clear, open_secret=OPEN_SECRET)
    return split(clear + sealed, UPLINK_FRAME)[0]


def opened(**changes: object) -> bytes:
    fields = {"secret": bytes(32), "opened_at_ms": NOW_MS, "window": 1000, "path": "/v1/chat/completions"}
    return dump_open(Open(**(fields | changes)), b"" if "body_parts" in changes else b"{}")


@given(st.lists(st.binary(max_size=60).map(lambda head: struct.pack(">I", len(head)) + head) | BODIES, max_size=4))
@settings(deadline=None, max_examples=60)
def test_any_open(plaintexts):
    """An OPEN that opens and holds anything at all is dropped, and nothing of it is remembered."""
    end = WorkerEnd()
    before = end.state()
    for plaintext in plaintexts:
        (action,) = end.desk.receive(sealed_open(plaintext, secrets.token_bytes(16)), NOW_MS)
        assert isinstance(action, Dropped)
    assert end.state() == before


@pytest.mark.parametrize("window", [-1, 0, MAX_WINDOW + 1, 2**63, 10**40])
def test_window_is_bounded(window):
    """A window that would have the worker keep a whole answer is refused with both numbers."""
    end = WorkerEnd()
    (action,) = end.desk.receive(sealed_open(opened(window=window), secrets.token_bytes(16)), NOW_MS)
    assert isinstance(action, Dropped)
    assert action.kind == "malformed_frame"


@given(
    st.sampled_from(FrameType), BODIES | st.tuples(NUMBERS, NUMBERS).map(lambda two: struct.pack(">QQ", *two)), NUMBERS
)
@settings(deadline=None)
def test_any_control_frame(type_, plaintext, leap):
    """A control frame of the request's own gateway, of any type, body and number, raises nothing and grows nothing."""
    end = WorkerEnd()
    known = len(end.desk.requests)
    sealer = end.call._sealer
    sealer.next_sequence = max(sealer.next_sequence, leap - 1)
    for _ in range(2 if sealer.next_sequence < 2**64 - 2 else 1):
        if type_ is not FrameType.OPEN:
            end.desk.receive(split(sealer.seal(type_, plaintext), UPLINK_FRAME)[0], NOW_MS)
    assert len(end.desk.requests) <= known
    assert len(end.request.sender._kept) <= end.request.sender._next


@given(st.lists(st.tuples(NUMBERS, NUMBERS, st.booleans()), max_size=12))
def test_no_credit_makes_the_worker_keep_more(steps):
    """Whatever is granted, the worker keeps its own limit and one payload at most, and never what was not sent."""
    window, most_kept = 1000, 3000
    sender = Sender(Sealer(bytes(32), request_id=LEASE, return_address=GATEWAY).seal, window, most_kept)
    sender.head(Head(200, "x"))
    for received, limit, resume in steps:
        before = (sender.first_kept, sender.kept)
        known = before[0] <= received <= sender._next
        with contextlib.nullcontext() if known or (not resume and received < before[0]) else pytest.raises(FrameError):
            if resume:
                assert len(sender.resume(Resume(received))) <= sender.kept
            else:
                sender.credit(Credit(received, limit))
        assert known or (sender.first_kept, sender.kept) == before
        sender.data(deque([bytes(400)] * 20))
        assert sum(map(len, sender._kept)) <= most_kept + MAX_PAYLOAD + 100 * sender.kept
        assert sender.first_kept + sender.kept == sender._next


@given(
    st.lists(
        st.tuples(st.sampled_from(FrameType), BODIES | st.lists(st.binary(max_size=9)).map(dump_chunks)), max_size=8
    )
)
@settings(deadline=None)
def test_any_answer(frames):
    """A worker's well-sealed frames with any content are events or fail the request; nothing raises."""
    sealer = Sealer(bytes(32), request_id=LEASE, return_address=GATEWAY)
    receiver = Receiver(Opener(bytes(32)).open, 1000)
    for type_, plaintext in frames:
        closed = receiver.state is ReceiverState.CLOSED
        event = receiver.receive(split(sealer.seal(type_, plaintext), UPLINK_FRAME)[0])
        assert (event is None) == closed


@pytest.mark.parametrize(
    "head",
    [
        Head(200, "text/html\r\nset-cookie: a=b"),
        Head(200, "a\nb"),
        Head(99, "text/plain"),
        Head(-1, "text/plain"),
        Head(10**9, "text/plain"),
    ],
)
def test_a_worker_puts_nothing_into_the_answers_headers(head):
    """A status that HTTP has not, or a content type with a line break, fails the request."""
    sealer = Sealer(bytes(32), request_id=LEASE, return_address=GATEWAY)
    receiver = Receiver(Opener(bytes(32)).open, 1000)
    event = receiver.receive(split(sealer.seal(FrameType.HEAD, dump(head)))[0])
    assert isinstance(event, Failure)


def test_empty_chunks_are_no_free_memory():
    """Chunks without bytes would cost a slow reader's gateway memory and the worker no credit: refused."""
    sealer = Sealer(bytes(32), request_id=LEASE, return_address=GATEWAY)
    receiver = Receiver(Opener(bytes(32)).open, 1000)
    receiver.receive(split(sealer.seal(FrameType.HEAD, dump(Head(200, "x"))))[0])
    event = receiver.receive(split(sealer.seal(FrameType.DATA, dump_chunks([b""] * 1000)))[0])
    assert isinstance(event, Failure)
    assert "at least 1" in event.message


def test_copies_of_an_open_bring_only_so_many_windows():
    """A relay that repeats an OPEN thousands of times is answered a few times, then not at all."""
    end = WorkerEnd()
    copy = split(end.seen[0], UPLINK_FRAME)[0]
    actions = [end.desk.receive(copy, NOW_MS)[0] for _ in range(5000)]
    assert sum(isinstance(action, Send) for action in actions) == MAX_COPIES
    assert isinstance(actions[-1], Dropped)


def test_requests_of_a_flood_are_bounded():
    """Requests that are refused and never acknowledged do not pile up; the limit is named."""
    end = WorkerEnd()
    actions = [end.desk.receive(sealed_open(opened(), secrets.token_bytes(16)), NOW_MS)[0] for _ in range(100)]
    assert isinstance(actions[-1], Dropped)
    assert (actions[-1].kind, "at most 20" in actions[-1].detail) == ("flood", True)
    assert len(end.desk.requests) == 20


def test_bodies_that_never_complete_are_bounded():
    """Gateways that send requests in parts and never the last one can't fill the worker's memory."""
    end = WorkerEnd()
    end.desk._max_requests = 100
    most = 4 * (1 << 20)
    refused = 0
    for _ in range(40):
        request_id, secret = secrets.token_bytes(16), secrets.token_bytes(32)
        end.desk.receive(sealed_open(opened(secret=secret, body_parts=2), request_id), NOW_MS)
        sealer = Sealer(to_worker_key(secret, lease_id=LEASE, request_id=request_id), request_id=request_id)
        frame = sealer.seal(FrameType.BODY, bytes(300_000))
        refused += bool(end.desk.receive(split(frame, UPLINK_FRAME)[0], NOW_MS))
        assert sum(sum(map(len, request.parts)) for request in end.desk.requests.values()) <= most
    assert refused > 0


def test_a_brokers_wrong_turn():
    """A gateway's frames that a broker brings to another worker's desk say nothing there."""
    end, call = WorkerEnd(), new_call(b"n" * 16)
    before = end.state()
    for frame in [*open_frames(call), call.credit(), call.resume(), call.cancel()]:
        (action,) = end.desk.receive(split(frame)[0], NOW_MS)
        assert isinstance(action, Dropped)
    assert end.state() == before
    assert not any(isinstance(action, Start) for action in end.desk.receive(split(end.seen[0])[0], NOW_MS))


@given(st.text(max_size=80) | st.from_regex(r"/v1/[a-z./%?#@\\:_-]{0,40}"))
def test_a_path_stays_within_the_engines_api(path):
    """A path that OPEN asks for is refused, or lies below /v1/, has no dots, no query, no host, and loads nothing."""
    if _PATH.fullmatch(path):
        assert path.startswith("/v1/")
        assert not set(path) & set(".%?#@\\: \r\n\t")
        assert "//" not in path
        assert not path.startswith(("/v1/load", "/v1/unload"))


@pytest.mark.parametrize(
    ("path", "passes"),
    [
        ("/v1/chat/completions", True),
        ("/v1/embeddings", True),
        ("/v1/responses", True),
        ("/v1/audio/transcriptions", True),
        ("/v1/../metrics", False),
        ("/v1/load_lora_adapter", False),
        ("/v1/unload_lora_adapter", False),
        ("/v1//evil.example", False),
        ("/metrics", False),
        ("/v1/chat/completions\n", False),
        ("http://evil.example/v1/x", False),
        ("@evil.example/v1/x", False),
    ],
)
def test_paths(path, passes):
    """What is an engine's API and what is not."""
    assert bool(_PATH.fullmatch(path)) == passes


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\nb", "\x00", "ü", "", "x" * 1025])
def test_header_values(value):
    """A trace header that could end the line, or is endless, does not reach the engine's request."""
    assert not _HEADER_VALUE.fullmatch(value)
