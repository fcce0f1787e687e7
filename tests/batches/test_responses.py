"""The Responses API through the official client: streamed, gone on from, listed, deleted, and nobody else's."""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from batches.press import Press, gateway_env
from gateway.stage import Stage, tier, until
from openai.types.responses import Response

from stream_core.files import write_private

pytestmark = pytest.mark.process
TOOL: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}
CALL = [
    '{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1","function":{"name":"weather","arguments":""}}]}}]}',
    '{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\\"city\\":\\"Oslo\\"}"}}]}}]}',
    '{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}',
    "[DONE]",
]


@pytest.fixture(autouse=True)
async def store(press: Press) -> None:
    """Wait until the gateway has reached its store."""
    await until(lambda: bool(press.gateway.lines("files and batches are ready")))


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


async def say(client: openai.AsyncOpenAI, text: str, answer: str = "yes", **fields: Any) -> Response:
    """Ask for an answer of one word."""
    script = {"script": {"tokens": 1, "text": answer}}
    response: Response = await client.responses.create(model="local", input=text, extra_body=script, **fields)
    return response


async def asked(http: aiohttp.ClientSession, engine: str) -> list[dict[str, Any]]:
    """Messages that the engine got last."""
    async with http.get(f"{engine}/requests") as response:
        messages: list[dict[str, Any]] = (await response.json())[-1]["body"]["messages"]
    return messages


async def test_a_conversation_goes_on(official: openai.AsyncOpenAI, engine: str, http: aiohttp.ClientSession) -> None:
    """Three turns by `previous_response_id`: the engine sees all that was said, and instructions of the last alone."""
    first = await say(official, "one", "uno", instructions="old")
    second = await say(official, "two", "due", previous_response_id=first.id)
    third = await say(official, "three", "tre", previous_response_id=second.id, instructions="new")
    assert (third.output_text, third.previous_response_id, third.store) == ("tre", second.id, True)
    said = [(message["role"], message["content"]) for message in await asked(http, engine)]
    assert said == [
        ("system", "new"),
        ("user", "one"),
        ("assistant", "uno"),
        ("user", "two"),
        ("assistant", "due"),
        ("user", "three"),
    ]
    await official.responses.delete(first.id)
    again = await say(official, "four", previous_response_id=third.id)
    assert again.status == "completed"


async def test_streamed_calls_and_their_outputs(
    official: openai.AsyncOpenAI, engine: str, http: aiohttp.ClientSession
) -> None:
    """A streamed tool call is kept before the client learns of its end; its output goes on from it."""
    events = [
        event
        async for event in await official.responses.create(
            model="local", input="rain?", tools=[TOOL], stream=True, extra_body={"script": {"events": CALL}}
        )
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert last.type == "response.completed"
    call = last.response.output[0]
    assert call.type == "function_call"
    assert (call.name, call.arguments) == ("weather", '{"city":"Oslo"}')
    output: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}]
    await official.responses.create(model="local", input=output, previous_response_id=last.response.id, tools=[TOOL])
    assert [message["role"] for message in await asked(http, engine)] == ["user", "assistant", "tool"]


async def test_what_is_kept(official: openai.AsyncOpenAI, press: Press) -> None:
    """Retrieved, its input listed in pages, deleted; another key finds nothing; `store: false` keeps nothing."""
    items: Any = [{"role": "user", "content": text} for text in ("a", "b", "c")]
    made = await official.responses.create(model="local", input=items, metadata={"k": "v"})
    found = await official.responses.retrieve(made.id)
    assert found == made
    assert found.metadata == {"k": "v"}
    listed = [item async for item in await official.responses.input_items.list(made.id, limit=2, order="asc")]
    assert [item.content for item in listed if item.type == "message"] == ["a", "b", "c"]
    async with press.client("other") as other:
        for refused in (other.responses.retrieve(made.id), other.responses.delete(made.id)):
            with pytest.raises(openai.NotFoundError) as caught:
                await refused
            assert caught.value.code == "response_not_found"
        with pytest.raises(openai.BadRequestError) as previous:
            await say(other, "x", previous_response_id=made.id)
    assert (previous.value.code, previous.value.param) == ("previous_response_not_found", "previous_response_id")
    assert (await official.responses.retrieve(made.id, include=["reasoning.encrypted_content"])) == made
    with pytest.raises(openai.BadRequestError) as unknown:
        await official.responses.retrieve(made.id, include=["file_search_call.results"])
    assert unknown.value.param == "include"
    with pytest.raises(openai.BadRequestError) as running:
        await official.responses.cancel(made.id)
    assert running.value.code == "not_in_background"
    await official.responses.delete(made.id)
    unstored = await say(official, "x", store=False)
    assert unstored.store is False  # type: ignore[attr-defined]  # a field that the client's type leaves out
    for id_ in (made.id, unstored.id, "resp_nonsense"):
        with pytest.raises(openai.NotFoundError):
            await official.responses.retrieve(id_)


async def test_a_class_sticks_to_a_conversation(official: openai.AsyncOpenAI) -> None:
    """What was said as internal is never sent to a tier for public text by going on from it."""
    made = await say(official, "secret", extra_headers={"x-stream-privacy": "internal"})
    with pytest.raises(openai.PermissionDeniedError):
        await official.responses.create(model="cloud", input="go on", previous_response_id=made.id)
    assert (await official.responses.create(model="cloud", input="hello")).status == "completed"


async def test_nothing_is_readable_at_the_broker(official: openai.AsyncOpenAI, press: Press) -> None:
    """Neither question nor answer stands in the broker's files."""
    await say(official, "secretquestion", "secretanswer")
    stored = b"".join(path.read_bytes() for path in press.store.rglob("*") if path.is_file())
    assert stored
    assert b"secretquestion" not in stored
    assert b"secretanswer" not in stored


async def test_errors(official: openai.AsyncOpenAI, press: Press, http: aiohttp.ClientSession) -> None:
    """A built-in tool is 400 by name; a stream that breaks ends with the API's own events, and is not kept."""
    with pytest.raises(openai.BadRequestError) as refused:
        await official.responses.create(model="local", input="x", tools=[{"type": "web_search"}])
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "tools[0].type")
    script = {"tokens": 9, "cut": 3, "interval_ms": 5}
    stream = await official.responses.create(model="local", input="x", stream=True, extra_body={"script": script})
    events = [event async for event in stream]
    assert [event.type for event in events[-2:]] == ["error", "response.failed"]
    assert events[-1].type == "response.failed"
    with pytest.raises(openai.NotFoundError):
        await official.responses.retrieve(events[-1].response.id)
    headers = {**press.gateway.headers(), "content-type": "application/json"}
    async with http.post(f"{press.gateway.url}/v1/responses", data=b"{", headers=headers) as response:
        assert response.status == 400


async def test_too_many_push_out_the_oldest(tmp_path: Path, press: Press, engine: str) -> None:
    """Of a key's responses the last three stay, and of large ones those that fit; a conversation too long is 413."""
    stage = Stage(tmp_path, {"tiers": [tier("local", engine)]})
    write_private(tmp_path / "batch.key", secrets.token_hex(32).encode())
    bounds = {"max_kept": 3, "max_total_bytes": 30_000, "max_bytes": 20_000}
    limits = {f"STREAM_GATEWAY__RESPONSES__{name.upper()}": str(value) for name, value in bounds.items()}
    with stage.run({**gateway_env(tmp_path, press.broker.url), **limits}) as gateway:
        await until(lambda: bool(gateway.lines("files and batches are ready")))
        key = stage.keys["all"]
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
            made = [await say(client, str(number)) for number in range(5)]
            assert await _kept(client, made) == [False, False, True, True, True]
            large = [await say(client, "x" * 12_000) for _ in range(3)]
            assert await _kept(client, large) == [False, True, True]
            with pytest.raises(openai.APIStatusError) as caught:
                await say(client, "x" * 20_001)
            assert caught.value.status_code == 413
            assert "at most 20,000" in caught.value.message


async def _kept(client: openai.AsyncOpenAI, made: list[Response]) -> list[bool]:
    found = []
    for one in made:
        try:
            await client.responses.retrieve(one.id)
        except openai.NotFoundError:
            found.append(False)
        else:
            found.append(True)
    return found


async def test_without_a_store(tmp_path: Path, engine: str) -> None:
    """Answers come, and say that they are not stored; who insists on it, or goes on from one, is told why not."""
    stage = Stage(tmp_path, {"tiers": [tier("local", engine)]})
    with stage.run() as gateway:
        key = stage.keys["all"]
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
            made: Any = await say(client, "x")
            assert made.store is False
            with pytest.raises(openai.BadRequestError) as caught:
                await say(client, "x", store=True)
            assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "store")
            with pytest.raises(openai.BadRequestError) as gone_on:
                await say(client, "x", previous_response_id=made.id)
            assert gone_on.value.param == "previous_response_id"
