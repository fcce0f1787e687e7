"""Answers as clients see them: the engine's bytes, the headers that say who answered, and everything passed on."""

import asyncio
import re
from typing import Any

import aiohttp
import orjson
import pytest
from gateway.stage import Gateway, chat, events_of, until

pytestmark = pytest.mark.process
PATH = "/v1/chat/completions"


async def post(client: aiohttp.ClientSession, url: str, body: Any, **headers: str) -> tuple[bytes, Any]:
    async with client.post(url + PATH, json=body, headers=headers) as response:
        return await response.read(), response


ODD = [
    '{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{\\"a\\":1}"}}]}}]}',
    '{"choices":[{"delta":{"content":"\\u00e4 \U0001f600 \\n\\n"},"logprobs":{"content":[]}}]}',
    '{"choices" : [ {"delta" : {"reasoning_content": "hm"}} ] , "own_field":  1e3}',
    '{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}',
    "[DONE]",
]


@pytest.mark.parametrize(
    "script",
    [
        {"tokens": 5},
        {"tokens": 200, "per_write": 0},
        {"tokens": 50, "per_write": 7},
        {"tokens": 3, "text": "x" * 100_000},
        {"events": ODD},
    ],
    ids=["each token", "all at once", "bunches", "long events", "tools, logprobs, odd spacing"],
)
@pytest.mark.parametrize("usage", [False, True])
async def test_a_stream_is_the_engines_bytes(
    gateway: Gateway, engine: str, client: aiohttp.ClientSession, script: dict[str, Any], usage: bool
) -> None:
    """Every byte of a stream is the engine's own, with and without a usage chunk, however it was cut on the way."""
    body = chat("local", script=script, stream_options={"include_usage": usage})
    through, response = await post(client, gateway.url, body, **gateway.headers())
    direct, _ = await post(client, engine, body)
    assert response.status == 200
    assert through == direct
    assert through.endswith(b"data: [DONE]\n\n")


async def test_a_whole_answer_is_the_engines_bytes(
    gateway: Gateway, engine: str, client: aiohttp.ClientSession
) -> None:
    """A body that is not streamed passes unchanged, spaces and field order included, with its length."""
    text = '{ "id":"x",  "choices": [{"message":{"content":"\\u00e4"}}], "usage":{"completion_tokens":1} }'
    body = chat("local", stream=False, script={"body": text})
    through, response = await post(client, gateway.url, body, **gateway.headers())
    assert (response.status, through.decode()) == (200, text)
    assert response.content_type == "application/json"
    assert int(response.headers["content-length"]) == len(through)


async def test_every_field_reaches_the_engine(gateway: Gateway, engine: str, client: aiohttp.ClientSession) -> None:
    """The request arrives as it was sent, but for the model, which the engine knows by another name."""
    sent = chat(
        "local/local-model",
        temperature=0.25,
        seed=7,
        logprobs=True,
        top_logprobs=3,
        tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
        stream_options={"include_usage": True},
        chat_template_kwargs={"enable_thinking": False},
        script={"tokens": 1, "text": "marked"},
    )
    await post(client, gateway.url, sent, **gateway.headers())
    async with client.get(f"{engine}/requests") as response:
        seen = [record["body"] for record in await response.json()]
    assert {**sent, "model": "scripted"} in seen


async def test_headers_tell_who_answered_and_why(gateway: Gateway, client: aiohttp.ClientSession) -> None:
    """Tier, model, reason and request id stand in the headers; proxies are told not to buffer."""
    ids = set()
    for model, reason in (("auto", r"auto: score 0\.50 .*no judge, default score"), ("local", "named by the caller")):
        _, response = await post(client, gateway.url, chat(model), **gateway.headers())
        headers = response.headers
        assert (headers["x-stream-tier"], headers["x-stream-model"]) == ("local", "local-model")
        assert re.match(reason, headers["x-stream-reason"])
        assert headers["x-accel-buffering"] == "no"
        assert headers["cache-control"] == "no-cache"
        assert headers["openai-processing-ms"].isdigit()
        assert response.content_type == "text/event-stream"
        ids.add(headers["x-request-id"])
    assert len(ids) == 2
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)


async def test_a_request_leaves_one_log_line_without_content(gateway: Gateway, client: aiohttp.ClientSession) -> None:
    """The log has the route, the times and the engine's own token count, and neither prompt nor answer."""
    body = chat("local", script={"tokens": 3, "text": "secretanswer"}, stream_options={"include_usage": True})
    body["messages"][0]["content"] = "secretquestion"
    _, response = await post(client, gateway.url, body, **gateway.headers())
    request_id = response.headers["x-request-id"]
    await until(lambda: any(line["request_id"] == request_id for line in gateway.lines("request")))
    (line,) = (line for line in gateway.lines("request") if line["request_id"] == request_id)
    assert (line["tier"], line["status"], line["ended"]) == ("local", 200, "complete")
    assert (line["prompt_tokens"], line["completion_tokens"]) == (5, 3)
    assert 0 < line["first_token_ms"] <= line["total_ms"]
    assert line["key"].startswith("key-")
    log = gateway.program.log()
    assert "secretanswer" not in log
    assert "secretquestion" not in log
    assert gateway.stage.keys["all"] not in log


async def test_an_image_goes_where_images_are_seen(gateway: Gateway, client: aiohttp.ClientSession) -> None:
    """`auto` with an image leaves out tiers without vision; a tier without it that is named is a bad request."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 300_000}}
    message = {"role": "user", "content": [{"type": "text", "text": "what is it?"}, image]}
    _, response = await post(client, gateway.url, {**chat(), "messages": [message]}, **gateway.headers())
    assert response.headers["x-stream-tier"] == "cloud"
    _, response = await post(client, gateway.url, {**chat("local"), "messages": [message]}, **gateway.headers())
    assert response.status == 400


async def test_a_large_body_works(gateway: Gateway, engine: str, client: aiohttp.ClientSession) -> None:
    """A request of 100 KB arrives whole."""
    body = chat("local", script={"tokens": 1})
    body["metadata"] = {"note": "m" * 100_000}
    body["messages"][0]["content"] = "ä" * 500
    through, response = await post(client, gateway.url, body, **gateway.headers())
    assert response.status == 200
    assert len(events_of(through)) == 4


async def test_a_traceparent_is_passed_on_and_junk_is_not(gateway: Gateway, client: aiohttp.ClientSession) -> None:
    """A valid W3C trace context does no harm, nor does an invalid one."""
    for value in ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "junk\tjunk"):
        _, response = await post(client, gateway.url, chat("local"), **gateway.headers(), traceparent=value)
        assert response.status == 200


async def test_many_at_once(gateway: Gateway, client: aiohttp.ClientSession) -> None:
    """Sixty-four streams at once are each whole and none is another's."""

    async def ask(number: int) -> bytes:
        body = chat("local", script={"tokens": 20, "text": f"<{number}>", "interval_ms": 1})
        return (await post(client, gateway.url, body, **gateway.headers()))[0]

    answers = await asyncio.gather(*(ask(number) for number in range(64)))
    for number, answer in enumerate(answers):
        texts = [orjson.loads(event[6:])["choices"][0]["delta"].get("content") for event in events_of(answer)[1:-2]]
        assert texts == [f"<{number}>"] * 20
