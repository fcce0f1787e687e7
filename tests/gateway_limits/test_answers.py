"""What a client sees of its limits, and what an answer is charged in the end, with a real gateway and engine."""

import json
from typing import Any

import aiohttp
import pytest
from gateway.stage import Gateway, chat, events_of, until
from gateway_limits.bank import Bank, ask, ask_until, held

pytestmark = pytest.mark.process
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {},
    "/v1/completions": {"model": "local", "prompt": "hello", "max_tokens": 10},
    "/v1/messages": {"model": "local", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 10},
    "/v1/responses": {"model": "local", "input": "hello", "max_output_tokens": 10},
}


def line_of(gateway: Gateway, request_id: str) -> dict[str, Any]:
    """The log line of a request."""
    return next(line for line in gateway.lines("request") if line["request_id"] == request_id)


@pytest.mark.parametrize("path", BODIES)
async def test_headers_and_refusals_of_each_api(bank: Bank, client: aiohttp.ClientSession, path: str) -> None:
    """Each answer says what is left, in its API's form; so does the refusal, with `retry-after`."""
    key, gateway = await bank.key(requests_per_minute=2, tokens_per_minute=10_000), bank.gateways[0]
    first, second, refused = [await ask(client, gateway, key, path, **BODIES[path]) for _ in range(3)]
    assert [first.status, second.status, refused.status] == [200, 200, 429], refused.body
    if path == "/v1/messages":
        assert second.headers["anthropic-ratelimit-requests-limit"] == "2"
        assert second.headers["anthropic-ratelimit-requests-remaining"] == "0"
        assert second.headers["anthropic-ratelimit-requests-reset"].endswith("Z")
        assert 9_000 < int(first.headers["anthropic-ratelimit-tokens-remaining"]) < 10_000
        assert refused.error["type"] == "rate_limit_error"
        assert refused.error["code"] == "rate_limit_exceeded"
    else:
        assert second.headers["x-ratelimit-limit-requests"] == "2"
        assert second.headers["x-ratelimit-remaining-requests"] == "0"
        assert second.headers["x-ratelimit-reset-requests"].endswith("s")
        assert second.headers["x-ratelimit-limit-tokens"] == "10000"
        assert 9_000 < int(first.headers["x-ratelimit-remaining-tokens"]) < 10_000
        assert (refused.error["type"], refused.error["code"]) == ("requests", "rate_limit_exceeded")
    assert 50 < int(refused.headers["retry-after"]) <= 61


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/moderations", "/v1/tokenize"])
async def test_requests_without_an_answer_in_words(bank: Bank, client: aiohttp.ClientSession, path: str) -> None:
    """They count as requests; tokenising counts no tokens."""
    key, gateway = await bank.key(requests_per_minute=1, tokens_per_minute=100_000), bank.gateways[0]
    body = {"model": "others", "prompt" if path == "/v1/tokenize" else "input": "hello"}
    first, second = [await ask(client, gateway, key, path, **body) for _ in range(2)]
    assert [first.status, second.status] == [200, 429], first.body
    assert (int(first.headers["x-ratelimit-remaining-tokens"]) == 100_000) is (path == "/v1/tokenize")


@pytest.mark.parametrize("path", BODIES)
async def test_usage_is_asked_for_and_left_out(bank: Bank, client: aiohttp.ClientSession, path: str) -> None:
    """A client that did not ask for the usage gets the engine's other events alone; the gateway knows the tokens."""
    key, gateway = await bank.key(), bank.gateways[0]
    body = {**(BODIES[path] or chat("local")), "stream": True}
    async with client.post(f"{gateway.url}{path}", json=body, headers=gateway.headers(key)) as answer:
        events = events_of(await answer.read())
    if path in {"/v1/chat/completions", "/v1/completions"}:
        assert not any(b'"usage":{' in event for event in events)
        assert events[-1] == b"data: [DONE]\n\n"
    await until(lambda: any(line["request_id"] == answer.headers["x-request-id"] for line in gateway.lines("request")))
    line = line_of(gateway, answer.headers["x-request-id"])
    assert (line["prompt_tokens"], line["completion_tokens"]) == (5, 8)


async def test_usage_that_was_asked_for(bank: Bank, client: aiohttp.ClientSession) -> None:
    """It stays."""
    key, gateway = await bank.key(), bank.gateways[0]
    body = chat("local", stream_options={"include_usage": True})
    async with client.post(f"{gateway.url}/v1/chat/completions", json=body, headers=gateway.headers(key)) as answer:
        events = events_of(await answer.read())
    assert json.loads(events[-2][6:])["usage"]["completion_tokens"] == 8


async def test_a_stream_that_was_cut(bank: Bank, client: aiohttp.ClientSession) -> None:
    """It is charged what was sent: more than nothing, less than its reserve, which is there again."""
    key, gateway = await bank.key(tokens_per_minute=100_000), bank.gateways[0]
    async with held(client, gateway, key, max_tokens=5_000) as stream:
        for _ in range(5):
            await stream.content.readany()
        request_id = stream.headers["x-request-id"]
        assert int(stream.headers["x-ratelimit-remaining-tokens"]) < 95_000
    await until(lambda: any(line["request_id"] == request_id for line in gateway.lines("request")))
    line = line_of(gateway, request_id)
    assert line["ended"] == "client_gone"
    assert line["completion_tokens"] is None, "the engine did not come to tell it"
    assert 5 <= line["charged_tokens"] < 2_000
    name = "x-ratelimit-remaining-tokens"
    await ask_until(client, gateway, key, lambda answer: int(answer.headers[name]) > 97_000)


async def test_what_is_too_large(bank: Bank, client: aiohttp.ClientSession) -> None:
    """A prompt or a request that alone is more than a limit is 413, naming whose limit and both numbers."""
    gateway = bank.gateways[0]
    key = await bank.key(prompt_tokens=100)
    assert (await ask(client, gateway, key)).status == 200
    long = [{"role": "user", "content": "word " * 1_000}]
    refused = await ask(client, gateway, key, messages=long)
    assert (refused.status, refused.error["code"]) == (413, "request_too_large")
    assert "may send 100 in one request" in refused.error["message"]
    key = await bank.key(tokens_per_minute=100)
    refused = await ask(client, gateway, key, max_tokens=500)
    assert (refused.status, refused.error["code"]) == (413, "request_too_large")
    assert "has 100" in refused.error["message"]


async def test_dollars_and_fallback(bank: Bank, client: aiohttp.ClientSession) -> None:
    """Who names the cloud is charged and in the end refused; the free tiers still answer, under each of their names."""
    key, gateway = await bank.key(dollars_per_month=0.2), bank.gateways[0]
    passed = 0
    while (answer := await ask(client, gateway, key, model="cloud")).status == 200:
        passed += 1
    assert 2 <= passed <= 15
    assert (answer.status, answer.error["code"], answer.error["type"]) == (
        429,
        "insufficient_quota",
        "insufficient_quota",
    )
    assert "$0.2000 dollars per month" in answer.error["message"]
    assert answer.headers["x-should-retry"] == "false"
    for name in ("auto", "local", "local/local-model", "local-model"):
        assert (await ask(client, gateway, key, model=name)).status == 200
    for name in ("cloud/cloud-model", "cloud-model"):
        assert (await ask(client, gateway, key, model=name)).status == 429
    # A tier that is away is replaced by the next one that the limit allows; nobody else is left for the cloud's.
    assert (await ask(client, gateway, key, model="auto", script={"status": 503})).status == 503


async def test_gpu_hours(bank: Bank, client: aiohttp.ClientSession) -> None:
    """The seconds of a request are charged by its share; what was reserved for a long answer comes back."""
    share = 4.0 / 2.0
    key, gateway = await bank.key(gpu_hours_per_month=share * 60 / 3600), bank.gateways[0]
    assert (await ask(client, gateway, key, model="gpu", max_tokens=1_000)).status == 200, "50 s of 60"
    await ask_until(client, gateway, key, lambda answer: answer.status == 200, model="gpu", max_tokens=1_000)
    refused = await ask(client, gateway, key, model="gpu", max_tokens=2_000)
    assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")
    assert "GPU hours per month" in refused.error["message"]
    assert (await ask(client, gateway, key)).status == 200


async def test_would_it_be_limited(bank: Bank, client: aiohttp.ClientSession) -> None:
    """POST /v1/route tells beforehand, and counts nothing."""
    key, gateway = await bank.key(requests_per_minute=1), bank.gateways[0]
    body = chat("local")
    for _ in range(2):
        told = json.loads((await ask(client, gateway, key, "/v1/route", **body)).body)
        assert told["limited"] is None
    assert (await ask(client, gateway, key)).status == 200
    told = json.loads((await ask(client, bank.gateways[1], key, "/v1/route", **body)).body)
    assert "limit of 1 requests per minute" in told["limited"]
