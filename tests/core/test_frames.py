"""Frames: whole, cut anywhere, several in one message, and everything that must be refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_core.errors import FrameError
from stream_core.wire.frames import (
    DEFAULT_MAX_FRAME,
    HEADER_BYTES,
    MAX_SEQUENCE,
    Flag,
    FrameType,
    encode,
    join,
    split,
)

ids = st.binary(min_size=16, max_size=16)
frames = st.builds(
    lambda type_, body, request_id, address, sequence, flags: encode(
        type_, body, request_id=request_id, return_address=address, sequence=sequence, flags=flags
    ),
    st.sampled_from(FrameType),
    st.binary(max_size=300),
    ids,
    ids,
    st.integers(0, MAX_SEQUENCE),
    st.sampled_from(Flag),
)


@given(st.lists(frames, min_size=1, max_size=8))
def test_round_trip(encoded):
    """What is joined into messages is read back frame by frame, byte for byte, in order."""
    messages = join(encoded, 1000)
    assert [frame.wire for message in messages for frame in split(message)] == encoded
    assert all(len(message) <= 1000 for message in messages)


@given(st.lists(frames, min_size=1, max_size=3), st.data())
def test_cut_or_longer_is_refused(encoded, data):
    """A message cut at any byte that is no frame border, or with bytes behind it, is refused as a whole."""
    message = b"".join(encoded)
    borders = {sum(map(len, encoded[:count])) for count in range(len(encoded) + 1)}
    cut = data.draw(st.integers(0, len(message)).filter(lambda place: place not in borders))
    with pytest.raises(FrameError):
        split(message[:cut])
    with pytest.raises(FrameError):
        split(message + data.draw(st.binary(min_size=1, max_size=HEADER_BYTES - 1)))


@pytest.mark.parametrize(
    ("place", "value", "complaint"),
    [
        (0, 0, "protocol version 0"),
        (0, 2, "protocol version 2"),
        (1, 0, "unknown frame type 0"),
        (1, 255, "unknown frame type 255"),
        (2, 1, "unknown flags 0x0100"),
        (3, 2, "unknown flags 0x0002"),
    ],
)
def test_unknown_is_an_error(place, value, complaint):
    """An unknown version, type or flag is an error and no extension point."""
    frame = bytearray(encode(FrameType.DATA, b"body"))
    frame[place] = value
    with pytest.raises(FrameError, match=complaint):
        split(bytes(frame))


def test_limit_prints_both_numbers():
    """A frame past the limit is refused before its body is looked at, with both numbers."""
    frame = encode(FrameType.DATA, bytes(DEFAULT_MAX_FRAME))
    with pytest.raises(FrameError, match=r"frame of 524,336 bytes, at most 524,288"):
        split(frame)
    assert split(frame, DEFAULT_MAX_FRAME + HEADER_BYTES)[0].body == bytes(DEFAULT_MAX_FRAME)


def test_empty_message():
    """A message without a frame is malformed."""
    with pytest.raises(FrameError, match="0 bytes left"):
        split(b"")
