"""`stream chat`: answers are written as they come, and who answered is told."""

import json
import os

import pytest
from aiohttp import web

from stream_cli import leftovers
from stream_cli.chat import Conversation, Server, demo_mark, find, pieces, refusal, text_of, who
from stream_cli.home import open_home
from stream_core.errors import ConfigError, RemoteError, StreamBroken, UpstreamUnavailable


def event(**fields):
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def delta(text):
    return event(choices=[{"index": 0, "delta": {"content": text}}])


DONE = b"data: [DONE]\n\n"


async def collect(chunks):
    async def source():
        for chunk in chunks:
            yield chunk

    return "".join([piece async for piece in pieces(source())])


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_the_text_of_a_stream_however_it_is_cut(size):
    """Role and usage events, comments and CRLF give no text; bytes after the end are not read."""
    stream = (
        event(choices=[{"delta": {"role": "assistant", "content": None}}])
        + b": comment\n\n"
        + delta("Hé")
        + delta("llo").replace(b"\n", b"\r\n")
        + event(choices=[{"delta": {}, "finish_reason": "stop"}])
        + event(choices=[], usage={"total_tokens": 3})
        + DONE
        + b"data: nonsense\n\n"
    )
    assert await collect([stream[i : i + size] for i in range(0, len(stream), size)]) == "Héllo"


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([delta("a")], "before it was complete"),
        ([], "before it was complete"),
        ([delta("a"), event(error={"message": "worker lost"}), DONE], "worker lost"),
        ([b"data: {\n\n"], "no chunk of an answer"),
        ([b"data: 7\n\n"], "no chunk of an answer"),
        ([b'data: {"choices":[{}]}\n\n'], "no chunk of an answer"),
    ],
)
async def test_a_broken_stream_is_never_an_answer(chunks, message):
    """An end without [DONE], an error event and nonsense are errors."""
    with pytest.raises(StreamBroken, match=message):
        await collect(chunks)


def test_text_of_several_choices():
    """Deltas without content add nothing."""
    assert text_of(b'{"choices":[{"delta":{"content":"a"}},{"delta":{"tool_calls":[]}}]}') == "a"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"no such model"}}', "no such model"),
        (b'{"error":"plain"}', "plain"),
        (b"<html>", "<html>"),
        (b"7", "no reason given"),
    ],
)
def test_a_refusal_is_told_in_the_gateways_words(body, message):
    """Message and status, whatever the body looks like."""
    assert refusal(404, body).message == f"{message} (HTTP 404)"


def test_the_headers_say_who_answered():
    """Tier, model and reason; missing ones are told as unknown."""
    told = who({"x-stream-tier": "hpc", "x-stream-model": "m", "x-stream-reason": "pinned"})
    assert told == ("hpc", "m", "pinned")
    assert who({}) == ("?", "?", "")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"stream": {"demo": true}}', True),
        (b'{"stream": {"demo": false}}', False),
        (b'{"id": "m"}', False),
        (b"[]", False),
        (b"", False),
    ],
)
def test_the_demo_mark_of_a_model(body, expected):
    """Only a description that says so marks a demo model."""
    assert demo_mark(body) is expected


@pytest.fixture
async def gateway():
    """A small gateway on loopback that remembers what it was asked."""
    asked = []

    async def answer(request):
        asked.append((request.headers["Authorization"], await request.json()))
        if asked[-1][1]["messages"][-1]["content"] == "refuse":
            return web.json_response({"error": {"message": "not allowed"}}, status=403)
        response = web.StreamResponse(headers={"x-stream-tier": "local", "x-stream-model": "stream-demo"})
        await response.prepare(request)
        await response.write(delta("All ") + delta("right."))
        if asked[-1][1]["messages"][-1]["content"] != "break":
            await response.write(DONE)
        return response

    app = web.Application()

    async def describe(request):
        return web.json_response({"id": request.match_info["model"], "stream": {"demo": True}})

    app.router.add_post("/v1/chat/completions", answer)
    app.router.add_get("/v1/models/{model:local/stream-demo}", describe)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield Server(f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v1", "sk-key"), asked
    await runner.cleanup()


async def test_a_conversation_keeps_its_turns(gateway):
    """The second question carries the first one and its answer; failed turns are forgotten."""
    server, asked = gateway
    written = []
    conversation = Conversation(server, "auto")
    answered = await conversation.ask("one", written.append)
    assert (answered.tier, answered.demo, "".join(written)) == ("local", True, "All right.")
    with pytest.raises(RemoteError, match=r"not allowed \(HTTP 403\)"):
        await conversation.ask("refuse", written.append)
    with pytest.raises(StreamBroken):
        await conversation.ask("break", written.append)
    await conversation.ask("two", written.append)
    key, body = asked[-1]
    assert key == "Bearer sk-key"
    assert (body["model"], body["stream"]) == ("auto", True)
    assert [(m["role"], m["content"]) for m in body["messages"]] == [
        ("user", "one"),
        ("assistant", "All right."),
        ("user", "two"),
    ]


async def test_a_gateway_that_is_away_is_one_error():
    """Nobody listening is told with the address."""
    with pytest.raises(UpstreamUnavailable, match=r"127\.0\.0\.1:9"):
        await Conversation(Server("http://127.0.0.1:9/v1", "k"), "auto").ask("x", print)


def test_the_running_gateway_is_found_by_its_state_folder(tmp_path):
    """Address and key come from the state folder; nothing running there is told."""
    home = open_home(tmp_path)
    with pytest.raises(ConfigError, match="no `stream up` is ready"):
        find(tmp_path)
    leftovers.write(home, host="0.0.0.0", port=18080, programs={"gateway": os.getpid()})
    home.api_key.write_text("sk-key\n")
    assert find(tmp_path) == Server("http://127.0.0.1:18080/v1", "sk-key")


def test_the_command_says_when_nothing_runs(tmp_path, stream):
    """`stream chat` without a gateway: one line, exit code 1."""
    done = stream("chat", "hello", "--home", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("stream: no `stream up` is ready under")
    assert len(done.stderr.splitlines()) == 1
