"""Fallback: before the first byte the next allowed tier answers, after it never, and never beside a pin."""

import asyncio

import aiohttp
import pytest
from gateway.stage import Gateway, chat, configure, error_of, tier
from gateway.upstream import DONE, EVENT, FINISH, STREAM_HEAD, Upstream, upstream, whole

pytestmark = pytest.mark.process
PATH = "/v1/chat/completions"
GOOD = STREAM_HEAD + EVENT + FINISH + DONE

FAILURES = {
    "closes at once": b"",
    "503": whole("503 Service Unavailable"),
    "500": whole("500 Internal Server Error"),
    "429": whole("429 Too Many Requests"),
    "404": whole("404 Not Found"),
    "413": whole("413 Content Too Large"),
    "401 of our key": whole("401 Unauthorized", b'{"error":{"message":"bad key sk-ours"}}'),
    "redirect": whole("302 Found", b"", b"location: http://127.0.0.1:1/"),
    "head, then nothing": STREAM_HEAD,
    "junk": b"junk\r\n\r\n",
}


async def ask(
    gateway: Gateway, client: aiohttp.ClientSession, model: str = "auto", *, stream: bool = True
) -> tuple[aiohttp.ClientResponse, bytes]:
    async with client.post(gateway.url + PATH, json=chat(model, stream=stream), headers=gateway.headers()) as response:
        return response, await response.read()


async def pair(gateway: Gateway, first: Upstream, second: Upstream, **fields: object) -> None:
    await configure(gateway, tier("local", first.url, **fields), tier("cloud", second.url))


@pytest.mark.parametrize("answer", FAILURES.values(), ids=FAILURES)
async def test_auto_goes_on_to_the_next_tier(bare: Gateway, client: aiohttp.ClientSession, answer: bytes) -> None:
    """Whatever fails before the first byte, the next tier answers and the reason says so; nothing of ours leaks."""
    async with upstream(answer) as first, upstream(GOOD) as second:
        await pair(bare, first, second)
        response, body = await ask(bare, client)
    assert (response.status, body) == (200, EVENT + FINISH + DONE)
    assert (first.posts, second.posts) == (1, 1)
    assert response.headers["x-stream-tier"] == "cloud"
    assert "local failed (" in response.headers["x-stream-reason"]
    assert "sk-ours" not in str(response.headers) + bare.program.log()


async def test_a_tier_that_says_nothing_is_replaced(bare: Gateway, client: aiohttp.ClientSession) -> None:
    """Also a first token that does not come is replaced, when its tier's time is up."""
    async with upstream(STREAM_HEAD, silent=True) as first, upstream(GOOD) as second:
        await pair(bare, first, second, first_token_timeout_s=0.2)
        response, _ = await ask(bare, client)
        assert response.headers["x-stream-tier"] == "cloud"
        assert "local failed (upstream_timeout)" in response.headers["x-stream-reason"]
        async with asyncio.timeout(60):
            await first.left.wait()


@pytest.mark.parametrize(
    ("failure", "status"), [("503", 503), ("500", 503), ("401 of our key", 503), ("429", 429), ("404", 404)]
)
async def test_a_pin_never_falls_back(bare: Gateway, client: aiohttp.ClientSession, failure: str, status: int) -> None:
    """A caller who named a tier gets its error, with a hint to try again, and no other tier sees the prompt."""
    async with upstream(FAILURES[failure]) as first, upstream(GOOD) as second:
        await pair(bare, first, second)
        for model in ("local", "local/local-model", "local-model"):
            response, body = await ask(bare, client, model)
            assert response.status == status
            assert b"sk-ours" not in body
            if status == 503:
                assert error_of(body)["code"] == "upstream_unavailable"
                assert response.headers["retry-after"].isdigit()
    assert (first.posts, second.posts) == (3, 0)


@pytest.mark.parametrize("model", ["auto", "local"])
async def test_the_engines_own_refusal_is_final(bare: Gateway, client: aiohttp.ClientSession, model: str) -> None:
    """An engine's 400 is about the request: its body is the client's answer, and no other tier is bothered."""
    refusal = b'{"error":{"message":"no such grammar","type":"x","param":null,"code":"y"}}'
    async with upstream(whole("400 Bad Request", refusal)) as first, upstream(GOOD) as second:
        await pair(bare, first, second)
        response, body = await ask(bare, client, model)
    assert (response.status, body, second.posts) == (400, refusal, 0)
    assert response.headers["x-stream-tier"] == "local"


async def test_after_the_first_byte_there_is_no_other(bare: Gateway, client: aiohttp.ClientSession) -> None:
    """A stream that breaks later is an error event; it is never continued by another tier."""
    async with upstream(STREAM_HEAD + EVENT) as first, upstream(GOOD) as second:
        await pair(bare, first, second)
        response, body = await ask(bare, client)
    assert (response.status, second.posts) == (200, 0)
    assert b"stream_broken" in body
    assert b"[DONE]" not in body


async def test_when_nobody_is_left_the_reasons_are_told(bare: Gateway, client: aiohttp.ClientSession) -> None:
    """All tiers failed: 503, each with its reason, and when to come back."""
    async with upstream(FAILURES["503"]) as first, upstream(FAILURES["500"]) as second:
        await pair(bare, first, second)
        response, body = await ask(bare, client, stream=False)
    assert response.status == 503
    assert "retry-after" in response.headers
    message = error_of(body)["message"]
    assert "'local'" in message
    assert "'cloud'" in message


async def test_privacy_holds_through_fallback(bare: Gateway, client: aiohttp.ClientSession) -> None:
    """A confidential request stays where it may be, also when that tier fails."""
    async with upstream(FAILURES["503"]) as first, upstream(GOOD) as second:
        await configure(bare, tier("local", first.url), tier("cloud", second.url, privacy="public"))
        async with client.post(
            bare.url + PATH, json=chat(), headers={**bare.headers(), "x-stream-privacy": "internal"}
        ) as response:
            assert response.status == 503
    assert (first.posts, second.posts) == (1, 0)


async def test_a_tier_that_went_away_is_not_asked_until_it_is_back(
    bare: Gateway, client: aiohttp.ClientSession
) -> None:
    """A server that is gone is known to be away after one failure; when it listens again, it is asked again."""
    async with upstream(GOOD) as second:
        async with upstream(GOOD) as first:
            await pair(bare, first, second)
            port = int(first.url.rpartition(":")[2])
            response, _ = await ask(bare, client)
            assert response.headers["x-stream-tier"] == "local"
        response, _ = await ask(bare, client)
        assert response.headers["x-stream-tier"] == "cloud"
        response, _ = await ask(bare, client)
        assert "local is away" in response.headers["x-stream-reason"]
        async with upstream(GOOD, port=port), asyncio.timeout(60):
            while response.headers["x-stream-tier"] != "local":
                response, _ = await ask(bare, client)
    assert response.headers["x-stream-tier"] == "local"
