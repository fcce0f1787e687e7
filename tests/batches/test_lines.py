"""Lines, the census of their ids, the form, sealing, the life of a batch: pure parts, without a broker."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from stream_core.errors import FrameError, InvalidRequest, SealError
from stream_gateway.batches.limits import clean_filename, expiry_seconds, window_seconds
from stream_gateway.batches.lines import Census, Line, LineSplitter
from stream_gateway.batches.multipart import Form
from stream_gateway.batches.records import BatchRecord
from stream_gateway.batches.sealing import OVERHEAD, Sealer
from stream_gateway.batches.states import CLOSED, IllegalEvent, advance, claim, line_code

KEY = bytes(range(32))
NONCE = b"n" * 12


def _cut(data: bytes, sizes: list[int], max_line: int = 1_000) -> list[Line]:
    splitter = LineSplitter(max_line)
    lines: list[Line] = []
    start = 0
    for size in [*sizes, len(data)]:
        lines += splitter.feed(data[start : start + size])
        start += size
    return lines + splitter.finish()


@given(
    st.lists(st.binary(max_size=30).filter(lambda b: b"\n" not in b), max_size=20),
    st.lists(st.integers(0, 40), max_size=30),
)
def test_lines_are_where_they_say(pieces: list[bytes], sizes: list[int]) -> None:
    """However the bytes come, each line that is not blank is found again at its offset, with its number."""
    data = b"\n".join(pieces)
    lines = _cut(data, sizes)
    assert [line.data for line in lines] == [piece for piece in pieces if piece.strip()]
    for line in lines:
        assert data[line.offset : line.offset + line.length] == line.data == pieces[line.number - 1]


def test_a_line_that_is_too_long_is_not_kept() -> None:
    """Of a line over the limit nothing but its length is kept; its neighbours are untouched."""
    lines = _cut(b"a" * 9 + b"\n" + b"b" * 50 + b"\nc", [7] * 20, max_line=10)
    assert [(line.number, line.length, line.data) for line in lines] == [(1, 9, b"a" * 9), (2, 50, b""), (3, 1, b"c")]


@given(st.lists(st.sampled_from("abcdefgh"), max_size=30))
def test_census(ids: list[str]) -> None:
    """A repeated id is found at its second place and each later one, whatever else there is."""
    census = Census(b"s" * 16)
    for n, name in enumerate(ids):
        data = json.dumps({"custom_id": name}).encode()
        census.look(Line(n + 1, 0, len(data), data))
    census.look(Line(99, 0, 3, b"{no"))
    census.close()
    assert census.count == len(ids) + 1
    assert [census.is_repeated(name) for name in ids] == [name in ids[:n] for n, name in enumerate(ids)]


BODY = (
    b'--xx\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--xx\r\nContent-Disposition: form-data; name="file"; filename="f.jsonl"\r\nContent-Type: text/plain\r\n\r\n'
    b"line one\r\n--x not the end\r\n\r\n--xx--\r\n"
)


@given(st.lists(st.integers(0, 60), max_size=30))
def test_form_in_any_pieces(sizes: list[int]) -> None:
    """The same bytes, cut anywhere, are the same fields and the same file."""
    form = Form("multipart/form-data; boundary=xx")
    got, start = b"", 0
    for size in [*sizes, len(BODY)]:
        got += b"".join(piece.data for piece in form.feed(BODY[start : start + size]))
        start += size
    assert (form.fields, form.filename, form.complete) == ({"purpose": "batch"}, "f.jsonl", True)
    assert got == b"line one\r\n--x not the end\r\n"


def test_form_refuses() -> None:
    """No boundary, two files, bytes that are no form."""
    for content_type in ("application/json", "multipart/form-data", ""):
        with pytest.raises(InvalidRequest):
            Form(content_type)
    with pytest.raises(InvalidRequest, match="one per request"):
        Form("multipart/form-data; boundary=xx").feed(BODY.replace(b'name="purpose"', b'name="file"'))
    with pytest.raises(InvalidRequest, match="not valid"):
        Form("multipart/form-data; boundary=xx").feed(b"nonsense" * 100)


def test_sealing_binds_the_place() -> None:
    """What is sealed opens at its own place alone, with this key alone, and not when a bit has changed."""
    sealer = Sealer(KEY)
    sealed = sealer.seal(b"text", "chunk", "file-a", "0", nonce=NONCE)
    assert len(sealed) == 4 + OVERHEAD
    assert b"text" not in sealed
    assert sealer.unseal(sealed, "chunk", "file-a", "0") == b"text"
    for kind, group, place in (("result", "file-a", "0"), ("chunk", "file-b", "0"), ("chunk", "file-a", "1")):
        with pytest.raises(SealError):
            sealer.unseal(sealed, kind, group, place)  # type: ignore[arg-type]
    with pytest.raises(SealError):
        Sealer(b"other key, also of 32 bytes. abc").unseal(sealed, "chunk", "file-a", "0")
    for place in range(1, len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(SealError):
            sealer.unseal(bytes(changed), "chunk", "file-a", "0")
    for cut in (b"", sealed[: OVERHEAD - 1], b"\x02" + sealed[1:]):
        with pytest.raises(FrameError):
            sealer.unseal(cut, "chunk", "file-a", "0")


def test_owner_tags() -> None:
    """An owner has one tag under one key; it is hex, and another one under another key."""
    tag = Sealer(KEY).owner_tag("key-1")
    assert tag == Sealer(KEY).owner_tag("key-1")
    assert int(tag, 16)
    assert len({tag, Sealer(KEY).owner_tag("key-2"), Sealer(bytes(32)).owner_tag("key-1")}) == 3


def _record() -> BatchRecord:
    return BatchRecord(
        id="batch_1",
        owner="key-1",
        endpoint="/v1/chat/completions",
        input_file="file-1",
        output_file="file-2",
        error_file="file-3",
        window="24h",
        privacy="public",
        created=0.0,
        expires=10.0,
        output_expires=20.0,
    )


@pytest.mark.parametrize(
    ("events", "status"),
    [
        (["enqueued", "finish", "close"], "completed"),
        (["fail", "close"], "failed"),
        (["enqueued", "fail", "close"], "failed"),
        (["expire", "close"], "expired"),
        (["enqueued", "expire", "close"], "expired"),
        (["cancel", "close"], "cancelled"),
        (["enqueued", "cancel", "close"], "cancelled"),
    ],
)
def test_life(events: list, status: str) -> None:
    """Each way through a batch's life ends as drawn, with the time of each step; then nothing more can happen."""
    record = _record()
    for now, event in enumerate(events, 1):
        record = advance(record, event, float(now))
        assert record.stamps[record.status] == now
    assert record.status == status
    assert record.status in CLOSED
    for event in ("enqueued", "finish", "fail", "expire", "cancel", "close"):
        with pytest.raises(IllegalEvent):
            advance(record, event, 9.0)


def test_events_out_of_order() -> None:
    """What is not drawn raises: finishing what was not queued, cancelling what is being finished."""
    with pytest.raises(IllegalEvent):
        advance(_record(), "finish", 1.0)
    with pytest.raises(IllegalEvent):
        advance(_record(), "close", 1.0)
    with pytest.raises(IllegalEvent):
        advance(advance(advance(_record(), "enqueued", 1.0), "finish", 2.0), "cancel", 3.0)


def test_claims() -> None:
    """One holds it; it may keep it, others wait until its time is over; each change lets go of it."""
    held = claim(_record(), "me", 100.0, 10.0)
    assert held is not None
    assert claim(held, "other", 109.0, 10.0) is None
    assert claim(held, "me", 109.0, 10.0) == replace(held, held_until=119.0)
    assert claim(held, "other", 110.0, 10.0) is not None
    assert advance(held, "cancel", 101.0).holder == ""


def test_words() -> None:
    """Windows, expiries and names as clients write them."""
    assert [window_seconds(text, 1e9) for text in ("24h", "1h", "90m", "2d", "5s")] == [
        86_400,
        3_600,
        5_400,
        172_800,
        5,
    ]
    assert expiry_seconds(None, None, 7.0) == 7.0
    assert expiry_seconds("created_at", "3600", 1e6) == 3_600
    for anchor, seconds in (("now", "3600"), ("created_at", "3599"), ("created_at", "x"), (None, "3600")):
        with pytest.raises(InvalidRequest):
            expiry_seconds(anchor, seconds, 1e6)
    assert clean_filename("../../etc/pass\x00wd") == "passwd"
    assert clean_filename("") == "upload.jsonl"
    assert {line_code(ending)[0] for ending in ("expired", "cancelled", "failed")} == {
        "batch_expired",
        "batch_cancelled",
        "batch_failed",
    }
