"""The SSE splitter: however the bytes are cut, the same events come out, and joined they are the input."""

import itertools

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stream_core.errors import StreamBroken
from stream_core.openai.sse import DONE, EventSplitter, data_of, is_done

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy

TRANSCRIPTS = {
    "openai": [b'data: {"a":1}\n\n', b'data: {"b":2}\n\n', DONE],
    "crlf": [b"data: x\r\n\r\n", b"data: y\r\n\r\n"],
    "mixed line ends": [b"data: x\r\n\n", b"data: y\n\r\n", b"data: z\n\n"],
    "comments and fields": [b": ping\n\n", b"event: error\ndata: x\n\n", b"id: 7\nretry: 10\n\n"],
    "many data lines": [b"data: one\ndata: two\ndata\n\n"],
    "blank lines alone": [b"\n", b"\r\n", b"data: x\n\n", b"\n", b"\n", b"data: y\n\n", b"\r\n"],
    "lone CR is content": [b"data: a\rb\r\rc\n\n"],
    "no newline in text": [b'data: {"t":"\\n\\n"}\n\n'],
}

pieces = st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"data: x", b":", b"a", b"\n\n", b"\r\n\r\n"]), max_size=40)


def feed_all(splitter: EventSplitter, parts: list[bytes]) -> list[bytes]:
    return [event for part in parts for event in splitter.feed(part)]


def split(parts: list[bytes]) -> tuple[list[bytes], bytes]:
    splitter = EventSplitter()
    return feed_all(splitter, parts), splitter.rest()


@pytest.mark.parametrize("events", TRANSCRIPTS.values(), ids=TRANSCRIPTS)
@pytest.mark.parametrize("tail", [b"", b"d", b"data: half", b"data: half\n", b"data: half\r\n"])
def test_transcripts_whole_and_byte_by_byte(events: list[bytes], tail: bytes) -> None:
    """A transcript gives its events when fed whole, byte by byte, and with an unfinished event behind it."""
    data = b"".join(events) + tail
    assert split([data]) == (events, tail)
    assert split([data[i : i + 1] for i in range(len(data))]) == (events, tail)


@patient
@given(pieces, st.lists(st.integers(0, 200), max_size=12))
@example([b"a", b"\n\r", b"\n", b"\r", b"\n"], [2, 3])
def test_cuts_change_nothing(parts: list[bytes], cuts: list[int]) -> None:
    """Any cut of any mixture of line ends gives the events of the whole, and no byte is lost or added."""
    data = b"".join(parts)
    marks = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    cut = split([data[a:b] for a, b in itertools.pairwise(marks)])
    assert cut == split([data])
    assert b"".join(cut[0]) + cut[1] == data


def test_all_short_inputs() -> None:
    """Whatever the first eight bytes are, whole or byte by byte they give the same: the quick form is no other form."""
    for length in range(9):
        for letters in itertools.product((b"a", b"\n", b"\r"), repeat=length):
            assert split([b"".join(letters)]) == split(list(letters))


@patient
@given(pieces)
def test_each_event_ends_with_its_first_blank_line(parts: list[bytes]) -> None:
    """An event holds exactly one blank line, its last one."""
    events, rest = split([b"".join(parts)])
    for event in events:
        lines = event.replace(b"\r\n", b"\n").split(b"\n")
        assert lines[-2:] == [b"", b""] or event in {b"\n", b"\r\n"}
        assert b"" not in lines[:-2]
    assert b"\n\n" not in rest.replace(b"\r\n", b"\n")


@pytest.mark.parametrize("size", [1, 7, 64])
def test_an_event_over_the_limit_is_refused_with_both_numbers(size: int) -> None:
    """An event longer than the limit is refused whatever the reads; one of exactly the limit passes."""
    fits, over = b"data: " + b"x" * 92 + b"\n\n", b"data: " + b"x" * 93 + b"\n\n"
    splitter = EventSplitter(max_event=100)
    assert feed_all(splitter, [(fits * 3)[start : start + size] for start in range(0, 300, size)]) == [fits] * 3
    splitter = EventSplitter(max_event=100)
    with pytest.raises(StreamBroken, match=r"event of 1\d\d bytes or more, at most 100 allowed"):
        feed_all(splitter, [over[start : start + size] for start in range(0, len(over), size)])


def test_memory_follows_the_limit_not_the_stream() -> None:
    """Endless bytes without a blank line stop at the limit."""
    splitter = EventSplitter(max_event=1 << 20)
    with pytest.raises(StreamBroken, match="at most 1,048,576"):
        feed_all(splitter, [b"x" * 4096] * 1_000)
    assert len(splitter.rest()) <= (1 << 20) + 4096


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: x\n\n", b"x"),
        (b"data:x\n\n", b"x"),
        (b"data:  x\n\n", b" x"),
        (b"data: x\r\n\r\n", b"x"),
        (b"data: x\ndata: y\n\n", b"x\ny"),
        (b"data\n\n", b""),
        (b"event: error\ndata: x\n\n", b"x"),
        (b": comment\n\n", None),
        (b"\n", None),
        (b"\r\n", None),
        (b"database: x\n\n", None),
    ],
)
def test_data_of(event: bytes, data: bytes | None) -> None:
    """The payload is what the data lines carry, by the standard's rules."""
    assert data_of(event) == data


def test_done_is_known_in_every_spelling() -> None:
    """The end of a stream is recognised with LF, CRLF and without the space."""
    assert all(map(is_done, [DONE, b"data:[DONE]\n\n", b"data: [DONE]\r\n\r\n"]))
    assert not is_done(b'data: {"content":"[DONE]"}\n\n')
