"""Sender and receiver together, over a network that does to frames whatever it likes."""

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_core.envelope.session import Opener, Sealer
from stream_core.errors import FrameError
from stream_core.wire.frames import Frame, FrameType, encode, split
from stream_core.wire.payloads import Credit, End, Failure, Head, Resume, dump, load_chunks
from stream_core.wire.receiver import Alive, Chunks, Missing, Receiver, ReceiverState
from stream_core.wire.sender import MAX_PAYLOAD, Sender, SenderState

KEY, REQUEST, GATEWAY = bytes(32), b"r" * 16, b"g" * 16
HEAD = Head(status=200, content_type="text/event-stream")


def sender(window: int = 1 << 20) -> Sender:
    return Sender(Sealer(KEY, request_id=REQUEST, return_address=GATEWAY).seal, window)


def receiver(window: int = 1 << 20, **limits: int) -> Receiver:
    return Receiver(Opener(KEY).open, window, **limits)


def one(frame: bytes) -> Frame:
    (read,) = split(frame)
    return read


def test_an_answer_from_head_to_end():
    """HEAD, DATA, END become the same events in order, and the last acknowledgement lets the sender forget."""
    near, far = receiver(), sender()
    frames = [far.alive(), far.head(HEAD), *far.data(deque([b"one", b"two"])), far.end()]
    events = [near.receive(one(frame)) for frame in frames]
    assert events == [Alive(), HEAD, Chunks([b"one", b"two"], continued=False), End(bytes=6)]
    assert near.state is ReceiverState.CLOSED
    assert far.kept == 4
    far.credit(near.credit())
    assert far.state is SenderState.FINISHED
    assert far.kept == 0


def test_window_stops_and_credit_moves_it():
    """A sender out of credit is not writable until the reader has taken bytes; an old CREDIT changes nothing."""
    near, far = receiver(window=10), sender(window=10)
    frames = [far.head(HEAD), *far.data(deque([b"0123456789"]))]
    assert not far.writable
    for frame in frames:
        near.receive(one(frame))
    old = near.credit()
    far.credit(old)
    assert not far.writable
    assert near.consumed(10)
    far.credit(near.credit())
    assert far.writable
    far.credit(old)
    assert far.writable


def test_what_is_kept_follows_the_window_up_to_the_senders_own_limit():
    """After a CREDIT of a wider window more may be unacknowledged, but never more than the sender keeps by itself."""
    near = receiver(window=MAX_PAYLOAD)
    far = Sender(Sealer(KEY, request_id=REQUEST, return_address=GATEWAY).seal, MAX_PAYLOAD, most_kept=3 * MAX_PAYLOAD)
    waiting = deque([bytes(MAX_PAYLOAD)] * 9)
    for frame in [far.head(HEAD), *far.data(waiting)]:
        near.receive(one(frame))
    kept = []
    for window in (2, 1, 3, 100):
        near.widen(window * MAX_PAYLOAD)
        assert near.consumed(0) == (window > 1)
        far.credit(near.credit())
        far.data(waiting)
        kept.append(far.kept)
    assert kept == [1, 1, 2, 3]
    assert not far.writable


def test_worker_past_its_credit_fails_the_request():
    """A worker that floods beyond its window by more than one payload is cut off with both numbers."""
    near, far = receiver(window=10), sender(window=10**9)
    near.receive(one(far.head(HEAD)))
    events = [near.receive(one(frame)) for frame in far.data(deque([bytes(MAX_PAYLOAD), bytes(11)]))]
    assert isinstance(events[-1], Failure)
    assert "65,547 bytes sent on a credit of 10" in events[-1].message


@given(st.lists(st.integers(1, 3 * MAX_PAYLOAD), min_size=1, max_size=6))
def test_long_chunks_are_cut_and_marked(sizes):
    """Chunks of any length arrive as the same bytes; only a chunk longer than a payload is cut, and marked so."""
    chunks = [bytes([index % 256]) * size for index, size in enumerate(sizes)]
    frames = [one(frame) for frame in sender().data(deque(chunks))]
    whole, open_ = [], b""
    for frame in frames:
        pieces = load_chunks(Opener(KEY).open(frame))
        pieces[0], open_ = open_ + pieces[0], b""
        if frame.flags:
            open_ = pieces.pop()
            assert not pieces
        whole += pieces
    assert open_ == b""
    assert whole == chunks


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda far: far.data(deque([b"x"]))[0], "DATA before HEAD"),
        (lambda far: far.end(), "END after 0 bytes, 0 arrived"),
    ],
)
def test_frames_out_of_the_table_fail(build, complaint):
    """A worker that breaks the state table fails its request, with what it did."""
    event = receiver().receive(one(build(sender())))
    assert isinstance(event, Failure)
    assert complaint in event.message


def test_end_must_agree_on_the_bytes():
    """An END whose count differs from what arrived is a failure, never a success."""
    near, seal = receiver(), Sealer(KEY, request_id=REQUEST, return_address=GATEWAY).seal
    near.receive(one(seal(FrameType.HEAD, dump(HEAD))))
    event = near.receive(one(seal(FrameType.END, dump(End(bytes=5)))))
    assert event == Failure("malformed_frame", "END after 5 bytes, 0 arrived", retryable=True)


def test_too_many_broken_seals_fail_the_request():
    """A path that keeps changing frames is noticed each time and given up after the limit, with both numbers."""
    near = receiver(max_rejected=2)
    bad = one(encode(FrameType.DATA, bytes(40), request_id=REQUEST, return_address=GATEWAY))
    assert [near.receive(bad) for _ in range(2)] == [Missing(0), Missing(0)]
    event = near.receive(bad)
    assert event == Failure("stream_tampered", "3 frames did not open, at most 2", retryable=True)


def test_closed_sender_refuses_and_changes_nothing():
    """After END nothing more may be sent, and the attempt leaves no trace."""
    far = sender()
    far.end()
    for attempt in (far.alive, far.end, lambda: far.data(deque([b"x"]))):
        with pytest.raises(FrameError, match="after the answer was closed"):
            attempt()
    assert far.kept == 1


@pytest.mark.parametrize("wrong", [Credit(received=3, limit=0), Resume(sequence=3)])
def test_impossible_control_is_refused(wrong):
    """An acknowledgement or a RESUME of frames that were never sent is an error."""
    far = sender()
    far.alive()
    with pytest.raises(FrameError, match="1"):
        (far.credit if isinstance(wrong, Credit) else far.resume)(wrong)


@settings(max_examples=150, deadline=None)
@given(
    chunks=st.lists(st.binary(min_size=1, max_size=50), max_size=30),
    window=st.integers(1, 200),
    data=st.data(),
)
def test_any_network(chunks, window, data):
    """Frames dropped, doubled, reordered, changed, spliced in from another request: the reader gets a prefix, then all.

    Whatever the network does, what was read is a prefix of what was sent. Once it behaves, RESUME and CREDIT bring the
    rest, and only then there is an END.
    """
    near, far = receiver(window=window, max_rejected=10**9), sender(window=window)
    foreign = Sealer(b"k" * 32, request_id=REQUEST, return_address=GATEWAY)
    got: list[bytes] = []
    ended = False

    def deliver(frames: list[bytes]) -> None:
        nonlocal ended
        for frame in frames:
            match near.receive(one(frame)):
                case Chunks(pieces, _):
                    got.extend(pieces)
                    near.consumed(sum(map(len, pieces)))
                    assert b"".join(chunks).startswith(b"".join(got))
                case End():
                    ended = True

    def through_the_network(frames: list[bytes]) -> list[bytes]:
        out = []
        for frame in frames:
            match data.draw(st.sampled_from(["pass", "pass", "drop", "double", "change", "splice"])):
                case "pass":
                    out.append(frame)
                case "double":
                    out += [frame, frame]
                case "change":
                    place = data.draw(st.integers(48, len(frame) - 1))
                    out.append(frame[:place] + bytes([frame[place] ^ 1]) + frame[place + 1 :])
                case "splice":
                    out += [foreign.seal(FrameType.DATA, b"\0\0\0\1x"), frame]
        return data.draw(st.permutations(out)) if out and data.draw(st.booleans()) else out

    frames = [far.head(HEAD)]
    waiting = deque(chunks)
    while waiting:
        if far.writable:
            frames += far.data(waiting)
            continue
        deliver(through_the_network(frames))
        frames = []
        far.credit(near.credit())
        deliver(far.resume(Resume(near.missing_again().sequence)))
        far.credit(near.credit())
    frames.append(far.end())
    deliver(through_the_network(frames))
    deliver(far.resume(Resume(near.missing_again().sequence)))
    assert b"".join(got) == b"".join(chunks)
    assert ended
