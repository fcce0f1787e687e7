"""The official Anthropic client against a real gateway, with a scripted and with the embedded engine behind it."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anthropic
import orjson
import pytest
from gateway.stage import Gateway, chat

pytestmark = pytest.mark.process
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
TOOL: Any = {"name": "weather", "description": "d", "input_schema": {"type": "object"}}
CALL = [
    '{"choices":[{"index":0,"delta":{"role":"assistant","reasoning_content":"hm"}}]}',
    '{"choices":[{"index":0,"delta":{"content":"I look."}}]}',
    '{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1","function":{"name":"weather","arguments":""}}]}}]}',
    '{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\\"city\\":\\"Oslo\\"}"}}]}}]}',
    '{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}',
    '{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}',
    "[DONE]",
]


@pytest.fixture
async def official(gateway: Gateway) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """The client, which does not try again by itself; it sends its key as x-api-key."""
    key = gateway.stage.keys["all"]
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=key, max_retries=0) as client:
        yield client


async def test_whole_and_streamed(official: anthropic.AsyncAnthropic) -> None:
    """Text, reason and usage, in both ways; the headers say who answered."""
    raw = await official.messages.with_raw_response.create(
        model="auto", max_tokens=9, messages=HELLO, extra_body={"script": {"tokens": 2}}
    )
    message = await raw.parse()
    assert raw.headers["x-stream-tier"] == "local"
    assert [block.text for block in message.content if block.type == "text"] == [" token token"]
    assert (message.stop_reason, message.usage.input_tokens, message.usage.output_tokens) == ("end_turn", 5, 2)
    async with official.messages.stream(
        model="local", max_tokens=9, messages=HELLO, extra_body={"script": {"tokens": 3}}
    ) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()
    assert text == " token" * 3
    assert (final.stop_reason, final.usage.input_tokens, final.usage.output_tokens) == ("end_turn", 5, 3)


async def test_a_tool_is_called_and_its_result_goes_back(
    official: anthropic.AsyncAnthropic, engine: str, client: aiohttp.ClientSession
) -> None:
    """A streamed call with thoughts before it, then its result in the next request, as agents do it."""
    async with official.messages.stream(
        model="local",
        max_tokens=2048,
        messages=HELLO,
        tools=[TOOL],
        thinking={"type": "enabled", "budget_tokens": 1024},
        extra_body={"script": {"events": CALL}},
    ) as stream:
        message = await stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    call = message.content[2]
    assert call.type == "tool_use"
    assert (call.name, call.input, message.stop_reason) == ("weather", {"city": "Oslo"}, "tool_use")
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
    again: list[Any] = [
        *HELLO,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [result]},
    ]
    await official.messages.create(model="local", max_tokens=9, messages=again, tools=[TOOL])
    async with client.get(f"{engine}/requests") as response:
        seen = (await response.json())[-1]["body"]["messages"]
    assert [one["role"] for one in seen] == ["user", "assistant", "tool"]
    assert seen[1]["tool_calls"][0]["function"]["arguments"] == '{"city":"Oslo"}'
    assert seen[2] == {"role": "tool", "tool_call_id": "call_1", "content": "rain"}


async def test_an_image_goes_where_images_are_seen(official: anthropic.AsyncAnthropic) -> None:
    """The modality is a hard constraint here, too."""
    source: Any = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(b"x").decode()}
    messages: list[Any] = [{"role": "user", "content": [{"type": "image", "source": source}]}]
    raw = await official.messages.with_raw_response.create(model="auto", max_tokens=9, messages=messages)
    assert raw.headers["x-stream-tier"] == "cloud"
    with pytest.raises(anthropic.BadRequestError):
        await official.messages.create(model="local", max_tokens=9, messages=messages)


async def test_tokens_are_counted(official: anthropic.AsyncAnthropic) -> None:
    """Without a summarizer by estimate, larger for more text; a bad request is refused."""
    short = await official.messages.count_tokens(model="local", messages=HELLO)
    long = await official.messages.count_tokens(model="local", messages=HELLO, system="word " * 400)
    assert 0 < short.input_tokens < long.input_tokens
    with pytest.raises(anthropic.BadRequestError):
        await official.messages.count_tokens(model="local", messages=[])


async def test_errors_have_their_classes(official: anthropic.AsyncAnthropic, gateway: Gateway) -> None:
    """401, 404, 400 and 403 become the client's own exceptions, with Anthropic's body and the request's id."""
    ask: dict[str, Any] = {"max_tokens": 9, "messages": HELLO}
    with pytest.raises(anthropic.AuthenticationError):
        await official.with_options(api_key="sk-wrong").messages.create(model="auto", **ask)
    with pytest.raises(anthropic.AuthenticationError):
        await official.with_options(api_key="sk-wrong").messages.count_tokens(model="auto", messages=HELLO)
    with pytest.raises(anthropic.NotFoundError) as unknown:
        await official.messages.create(model="nope", **ask)
    assert isinstance(unknown.value.body, dict)
    assert unknown.value.body["type"] == "error"
    assert unknown.value.body["error"]["type"] == "not_found_error"
    assert unknown.value.body["request_id"] == unknown.value.response.headers["x-request-id"]
    with pytest.raises(anthropic.BadRequestError):
        await official.messages.create(model="auto", max_tokens=0, messages=HELLO)
    local = official.with_options(api_key=gateway.stage.keys["local only"])
    with pytest.raises(anthropic.PermissionDeniedError):
        await local.messages.create(model="cloud/huge", **ask)


async def test_a_bearer_key_and_paths_that_are_not_there(gateway: Gateway, client: aiohttp.ClientSession) -> None:
    """A bearer key is as good; another method and an unknown path below /v1/messages have Anthropic's error body."""
    body = {"model": "local", "max_tokens": 9, "messages": HELLO}
    async with client.post(f"{gateway.url}/v1/messages", json=body, headers=gateway.headers()) as response:
        assert response.status == 200
    for method, path, status in (("GET", "/v1/messages", 405), ("GET", "/v1/messages/batches", 404)):
        async with client.request(method, gateway.url + path, headers=gateway.headers()) as response:
            assert (response.status, (await response.json())["type"]) == (status, "error")


async def test_a_broken_stream_raises(official: anthropic.AsyncAnthropic) -> None:
    """A stream that breaks in the middle is an error event, so an exception in the client, not a short answer."""
    with pytest.raises(anthropic.APIError) as caught:
        async with official.messages.stream(
            model="local",
            max_tokens=9,
            messages=HELLO,
            extra_body={"script": {"tokens": 9, "cut": 3, "interval_ms": 5}},
        ) as stream:
            await stream.get_final_message()
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["error"]["code"] == "stream_broken"


async def test_each_api_has_its_own_error_event(gateway: Gateway, client: aiohttp.ClientSession) -> None:
    """The same break: OpenAI's error as data without a name, Anthropic's as an event "error"; neither ends well."""
    script = {"tokens": 9, "cut": 3, "interval_ms": 5}
    last = {}
    for path in ("/v1/chat/completions", "/v1/messages"):
        body = chat("local", script=script, max_tokens=9)
        async with client.post(gateway.url + path, json=body, headers=gateway.headers()) as response:
            last[path] = (await response.read()).rstrip(b"\n").rpartition(b"\n\n")[2]
    assert orjson.loads(last["/v1/chat/completions"].removeprefix(b"data: "))["error"]["code"] == "stream_broken"
    name, data = last["/v1/messages"].split(b"\n")
    assert name == b"event: error"
    assert orjson.loads(data.removeprefix(b"data: "))["error"]["code"] == "stream_broken"
