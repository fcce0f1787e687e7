"""Messages keep their JSON; calls stay with their results."""

import json
from typing import Any

import pytest
from hypothesis import given

from stream_core.errors import InvalidRequest
from stream_summarizer.conversation import Medium, parse

from .building import answering, calling, conversation, encode, said, talks


@pytest.mark.parametrize(
    ("messages", "units"),
    [
        ([said("user", "a")], [(0, 0)]),
        ([said("system", "s"), said("user", "a"), said("assistant", "b")], [(0, 0), (1, 1), (2, 2)]),
        ([said("user", "a"), calling("x"), answering("x"), said("assistant", "b")], [(0, 0), (1, 2), (3, 3)]),
        ([said("user", "a"), calling("x", "y"), answering("y"), answering("x")], [(0, 0), (1, 3)]),
        # Ids that start anew in every turn answer the latest call.
        ([calling("x"), answering("x"), said("user", "u"), calling("x"), answering("x")], [(0, 1), (2, 2), (3, 4)]),
        # A result that comes late keeps all that lies between.
        ([calling("x", "y"), answering("x"), said("user", "u"), answering("y"), said("user", "v")], [(0, 3), (4, 4)]),
        # A call without a result, a result without a call.
        ([said("user", "a"), calling("x"), said("user", "b")], [(0, 0), (1, 1), (2, 2)]),
        ([said("user", "a"), said("assistant", "b"), answering("x"), said("user", "c")], [(0, 0), (1, 2), (3, 3)]),
        ([answering("x"), said("user", "c")], [(0, 0), (1, 1)]),
    ],
)
def test_units(messages: list[dict[str, Any]], units: list[tuple[int, int]]) -> None:
    """Each row: messages, and the groups that must not be split."""
    assert [(unit.first, unit.last) for unit in conversation(messages).units] == units


def test_older_function_calls() -> None:
    """A `function_call` and the `function` message of that name are one unit."""
    call = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    talk = conversation([said("user", "a"), call, {"role": "function", "name": "f", "content": "1"}, said("user", "b")])
    assert [(unit.first, unit.last) for unit in talk.units] == [(0, 0), (1, 2), (3, 3)]


def test_json_is_kept() -> None:
    """Unknown fields, key order, escapes and spaces come out byte for byte."""
    raw = b'{"x_mine" : [1,  2], "role":"user","content":"\\u00e9\\/"}'
    message = parse(b"[ " + raw + b" ]", max_messages=1).messages[0]
    assert message.raw == raw
    assert message.text == "é/"


def test_parts() -> None:
    """Text parts give the text; images, sound and files are media with their size."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400}}
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    message = conversation([said("user", [{"type": "text", "text": "one"}, image, sound])]).messages[0]
    assert message.text == "one"
    kinds = [(medium.kind, medium.format) for medium in message.media]
    assert kinds == [("image_url", ""), ("input_audio", "wav")]
    assert message.media[0] == Medium("image_url", "", len(json.dumps(image)))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "messages: "),
        (b"{}", "messages: expected `array`, got `object`"),
        (b"[]", "messages: empty, at least 1 message is wanted"),
        (b"[1]", "messages[0]: expected `object`, got `int`"),
        (b'[{"content": "x"}]', "messages[0]: object missing required field `role`"),
        (b'[{"role": "wizard", "content": "x"}]', "messages[0].role: 'wizard' is none of system, developer, user"),
        (b'[{"role": "user", "content": 5}]', "messages[0].content: expected `str | array | null`, got `int`"),
        (b'[{"role": "user", "content": [{"text": "x"}]}]', "messages[0].content[0]: object missing required"),
        (b'[{"role": "user", "content": "\\udc00"}]', "messages"),
        (b'[{"role": "user", "content": "\xff"}]', "messages"),
        (b"[" * 5000, "messages: "),
        (encode([said("user", "x")] * 11), "messages: 11 messages, at most 10"),
    ],
)
def test_bad_messages(data: bytes, words: str) -> None:
    """What is no conversation is refused with the field's name, and with both numbers where a limit bit."""
    with pytest.raises(InvalidRequest) as caught:
        parse(data, max_messages=10)
    assert caught.value.message.startswith(words)


@pytest.mark.parametrize("tools", [b"", b" null ", b"[]"])
def test_no_tools(tools: bytes) -> None:
    """No tools may be written in three ways."""
    assert parse(encode([said("user", "x")]), tools, max_messages=1).tools == b""


def test_bad_tools() -> None:
    """Tools that are no list of objects are refused."""
    with pytest.raises(InvalidRequest, match=r"^tools\[0\]: expected `object`, got `int`"):
        parse(encode([said("user", "x")]), b"[1]", max_messages=1)


@given(talks())
def test_units_cover(messages: list[dict[str, Any]]) -> None:
    """Units cover every message once and in order, and hold each call together with its results."""
    talk = conversation(messages)
    covered = [index for unit in talk.units for index in range(unit.first, unit.last + 1)]
    assert covered == list(range(len(messages)))
    for unit in talk.units:
        group = talk.of(unit)
        answered = sorted(message.answers for message in group if message.role == "tool")
        assert answered == sorted(call.id for message in group for call in message.calls)
