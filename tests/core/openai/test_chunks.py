"""What is read of an answer's last events: whether it is finished, and what it used."""

import pytest

from stream_core.openai.chunks import Usage, is_finished, usage_of, usage_of_body
from stream_core.openai.sse import DONE

TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n'
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}\n\n'
ODD = [b": ping\n\n", b"\n", b"data: {broken\n\n", b"data: 7\n\n", b'data: {"error":{"message":"x"}}\n\n', DONE]


@pytest.mark.parametrize(
    ("events", "finished"),
    [
        ([], False),
        ([TOKEN], False),
        ([TOKEN, FINISH], True),
        ([FINISH, USAGE], True),
        ([b'data: {"choices":[{"delta":{"content":"finish_reason"}}]}\n\n'], False),
        (ODD, False),
        ([*ODD, FINISH.replace(b"\n\n", b"\r\n\r\n")], True),
    ],
)
def test_finished(events: list[bytes], finished: bool) -> None:
    """Only a choice with a finish_reason finishes an answer; comments, junk and errors do not."""
    assert is_finished(events) is finished


def test_usage() -> None:
    """The last usage counts; without one, or with one of another shape, nothing is known."""
    assert usage_of([TOKEN, USAGE.replace(b"7", b"1"), USAGE, DONE]) == Usage(5, 7)
    assert usage_of([TOKEN, *ODD]) is None
    assert usage_of([b'data: {"usage":"none"}\n\n']) is None
    assert usage_of_body(b'{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}') == Usage(1, 0)
    assert usage_of_body(b"{}") is None
    assert usage_of_body(b"<html>\xff") is None
