"""A worker is killed in mid-answer: the answer goes on on another one.

Workers, relay and broker are real; what the engine says is scripted: numbered text shows what is lost or doubled.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import aiohttp
import pytest
from gateway_hpc import lane
from gateway_hpc.crew import Crew, Hands, crew, hands, read
from gateway_hpc.gate import gate

from stream_core.errors import StreamBroken
from stream_gateway.backends.continued import Persistence
from stream_gateway.backends.continued_request import DECLARED

pytestmark = pytest.mark.process

TOKENS = 40
USAGE = {"stream_options": {"include_usage": True}}
TEXT = "".join(f" w{n}" for n in range(TOKENS))
FOR_EVER = 10_000
QUICK = Persistence(wait_s=0.3, settle_s=0.2)


def script(way: str, **more: object) -> dict[str, object]:
    """Numbered text at a pace at which a kill falls into it."""
    return {"continue": way, "tokens": TOKENS, "text": " w{n}", "interval_ms": 10, **more}


@pytest.fixture(scope="module")
def workers(tmp_path_factory) -> Iterator[Hands]:
    """Broker, relay and engine; workers as the tests need them."""
    with lane.parts(tmp_path_factory.mktemp("continuation")) as running, hands(running) as made:
        yield made


@pytest.fixture
async def pair(workers) -> AsyncIterator[Crew]:
    """Two workers."""
    await workers.hire(2)
    async with crew(workers) as made:
        made.show()
        yield made


async def asked_of(engine_url: str) -> list[dict]:
    """The requests that the engine has seen."""
    async with aiohttp.ClientSession() as session, session.get(f"{engine_url}/requests") as response:
        return await response.json()


@pytest.mark.parametrize(
    ("way", "capabilities"),
    [("vllm", {DECLARED}), ("vllm", set()), ("llama", set()), ("llama-apart", set())],
    ids=["declared", "new text only", "the given text again", "the given text again, in pieces"],
)
async def test_answer_goes_on(pair, way, capabilities):
    """Whatever the engine's way to continue is, the client reads one stream: text and usage as if nothing had been."""
    pair.show(capabilities=frozenset(capabilities))
    undisturbed = await read(await pair.ask(script(way, interval_ms=0), **USAGE))
    got = await read(await pair.ask(script(way), **USAGE), killing=pair, after=(12,))
    assert undisturbed.text == got.text == TEXT
    assert undisturbed.usage == got.usage == {"prompt_tokens": 5, "completion_tokens": TOKENS, "total_tokens": 45}
    assert undisturbed.mark is None
    assert got.mark == {"continued": 1}
    assert got.chunks[-1]["stream"] == {"continued": 1}
    assert got.events[-1] == b"data: [DONE]\n\n"
    assert len({(chunk["id"], chunk["model"], chunk["created"]) for chunk in got.chunks}) == 1
    assert sum("role" in chunk["choices"][0]["delta"] for chunk in got.chunks if chunk["choices"]) == 1


async def test_two_deaths(workers):
    """The worker that took over is killed as well: a third one goes on."""
    await workers.hire(3)
    async with crew(workers) as trio:
        trio.show()
        got = await read(await trio.ask(script("llama"), **USAGE), killing=trio, after=(8, 20))
    assert (got.text, got.mark) == (TEXT, {"continued": 2})
    assert got.usage == {"prompt_tokens": 5, "completion_tokens": TOKENS, "total_tokens": 45}


async def test_too_many_deaths(workers):
    """An answer is continued so many times and no more."""
    await workers.hire(3)
    async with crew(workers, Persistence(times=1)) as trio:
        trio.show()
        with pytest.raises(StreamBroken, match="the worker was lost"):
            await read(await trio.ask(script("llama")), killing=trio, after=(8, 20))


async def test_token_limit_counts_all_workers(pair):
    """The caller's limit holds for the whole answer, to the token."""
    got = await read(await pair.ask(script("llama"), max_completion_tokens=20, **USAGE), killing=pair, after=(10,))
    assert got.text == "".join(f" w{n}" for n in range(20))
    assert got.usage == {"prompt_tokens": 5, "completion_tokens": 20, "total_tokens": 25}
    (last,) = [chunk for chunk in got.chunks if chunk["choices"] and chunk["choices"][0]["finish_reason"]]
    assert last["choices"][0]["finish_reason"] == "length"


async def test_usage_is_measured_only_where_it_is_wanted(pair):
    """Without a wish for usage and without a limit, a continuation costs one request and no other."""
    before = len(await asked_of(pair.hands.parts.engine_url))
    got = await read(await pair.ask(script("vllm")), killing=pair, after=(12,))
    assert (got.text, got.usage) == (TEXT, [])
    seen = (await asked_of(pair.hands.parts.engine_url))[before:]
    assert [request["body"]["messages"][-1]["role"] for request in seen] == ["user", "assistant"]
    assert seen[1]["body"]["messages"][-1]["content"] in TEXT


async def test_same_words_again_are_no_echo(pair):
    """A model that repeats itself is heard: the engine's way is asked for, not guessed from the text."""
    again = {"text": " ha", "tokens": 40}
    got = await read(await pair.ask(script("vllm", **again)), killing=pair, after=(8,))
    assert got.text == " ha" * 40
    assert pair.backend.echoes == {("test", "scripted"): False}


@pytest.mark.parametrize(
    "request_",
    [{"n": 2}, {"response_format": {"type": "json_object"}}],
    ids=["n", "JSON"],
)
async def test_what_can_not_go_on_is_an_error(pair, request_):
    """An answer whose text alone does not carry it over ends at once, as an error that may be retried."""
    with pytest.raises(StreamBroken, match="the worker was lost") as caught:
        await read(await pair.ask(script("vllm"), **request_), killing=pair, after=(8,))
    assert caught.value.retryable
    assert caught.value.code == "stream_broken"


async def test_tool_call_under_way_is_an_error(pair):
    """The request allows a tool call, and one has begun."""
    call = {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{"}}]}
    events = [json.dumps({"choices": [{"index": 0, "delta": call}]})] * 50
    with pytest.raises(StreamBroken, match="the worker was lost"):
        await read(await pair.ask({"events": events, "interval_ms": 10}), killing=pair, after=(8,))


@pytest.mark.parametrize(
    ("marker", "count", "script_", "request_"),
    [
        (b"\r\n\r\n", 1, {"tokens": 5}, {"n": 2}),
        (b"\r\n\r\n", 1, {"tokens": 5}, {}),
        (b"y" * 1000, 2, {"body": json.dumps({"long": "y" * 300_000})}, {"stream": False, "n": 2}),
    ],
    ids=["streamed, not to be continued", "streamed", "whole, some of it is here"],
)
async def test_nothing_was_sent_yet(workers, marker, count, script_, request_):
    """While the client has nothing, any request is asked again from the start, and its bytes are the engine's own."""
    await workers.hire(1)
    (_, other), *_ = workers.alive.values()
    async with gate(workers.parts.engine_url, marker, count) as held, crew(workers) as made:
        mine = await workers.add(engine={"url": held.url})
        made.show(other)
        expected = await read(await made.ask(script_, **request_))
        made.show(mine, other)
        answer = await made.ask(script_, **request_)
        await held.held.wait()
        await made.kill(mine.lease_id)
        assert b"".join((await read(answer)).events) == b"".join(expected.events)


@pytest.mark.parametrize(
    ("allowed", "goes_on"), [(None, True), ({"test", "other"}, True), ({"test"}, False)], ids=["any", "both", "one"]
)
async def test_an_answer_moves_only_where_it_may(workers, allowed, goes_on):
    """Another cluster's worker takes over unless the key, or the name that was asked for, shuts it out."""
    await workers.hire(2)
    async with crew(workers, QUICK) as made:
        first, second = (worker for _, worker in workers.alive.values())
        made.show(first, replace(second, cluster="other"))
        allowed = allowed and frozenset(allowed)
        answer = await made.ask(script("vllm"), clusters=allowed)
        if not goes_on:
            with pytest.raises(StreamBroken, match="no other worker"):
                await read(answer, killing=made, after=(8,))
            return
        assert (await read(answer, killing=made, after=(8,))).text == TEXT


async def test_no_other_worker(workers):
    """Without another worker the answer ends as an error once the limit is over, and one was asked for."""
    await workers.hire(1)
    async with crew(workers, QUICK) as alone:
        alone.show(next(iter(workers.alive.values()))[1])
        with pytest.raises(StreamBroken, match=r"no other worker of scripted took over within 0 s") as caught:
            await read(await alone.ask(script("vllm")), killing=alone, after=(8,))
        assert caught.value.retryable


async def test_successor_is_waited_for(workers):
    """A worker that becomes ready within the limit goes on."""
    await workers.hire(1)
    async with crew(workers) as made:
        made.show()
        answer = await made.ask(script("vllm"), **USAGE)
        reading = asyncio.create_task(read(answer, killing=made, after=(8,)))
        await workers.add()
        await made.killed.wait()
        made.show()
        assert (await reading).text == TEXT


async def test_engine_that_breaks_off(pair):
    """An engine's broken stream goes on elsewhere too; where nobody is left and nobody will come, the error is soon."""
    pair.backend._persistence = Persistence(settle_s=0.1)
    got = b""
    with pytest.raises(StreamBroken, match="engine"):
        async for batch in await pair.ask(script("vllm", cut=10, interval_ms=1)):
            got += b"".join(batch)
    assert [f'" w{n}"'.encode() in got for n in range(19)] == [True] * 18 + [False]


async def test_client_leaves_a_continuation(pair):
    """A client that leaves after the take-over aborts the engine's request on the second worker."""
    answer = await pair.ask(script("vllm", tokens=FOR_EVER))
    count = 0
    killed = False
    async with contextlib.aclosing(answer):
        async for batch in answer:
            count += len(batch)
            if not killed and count >= 8:
                killed = True
                await pair.kill(pair.busy())
            if count > 30:
                break
    assert not any(map(pair.channel.running_on, pair.hands.alive))
    mine: list[dict] = []
    async with asyncio.timeout(60):
        while [request["ended"] for request in mine] != ["aborted", "aborted"]:
            seen = await asked_of(pair.hands.parts.engine_url)
            mine = [request for request in seen if request["body"].get("script", {}).get("tokens") == FOR_EVER]


async def test_engine_that_refuses_to_continue(pair):
    """An engine that refuses a last message of the assistant ends the answer at once, as an error to be retried."""
    with pytest.raises(StreamBroken, match="another one did not go on: the engine answered 400"):
        await read(await pair.ask(script("refuse")), killing=pair, after=(8,))
