"""The gateway with the real judge and the real summarizer, and without them."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from gateway.stage import Gateway, Stage, chat, configure, error_of, tier, tls_env, until

from stream_core.testing import programs
from stream_core.testing.programs import Program

pytestmark = pytest.mark.process
PATH = "/v1/chat/completions"
WINDOW = 2048


@contextlib.contextmanager
def service(stage: Stage, name: str) -> Iterator[Program]:
    """Run the judge or the summarizer with the stage's deployment."""
    env = {"STREAM_CONFIG": str(stage.folder / "stream.yaml"), **tls_env(name, stage.folder / "tls", name)}
    with programs.start(f"stream_{name}", env=env) as program:
        yield program


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Stage:
    """A cheap tier with a small window, and a second one."""
    local = tier("local", engine, models=[{"id": "small", "upstream": "scripted", "context_window": WINDOW}])
    cloud = tier("cloud", engine, models=[{"id": "large", "upstream": "scripted", "context_window": 32_768}])
    return Stage(tmp_path_factory.mktemp("services"), {"tiers": [local, cloud]})


@pytest.fixture(scope="module")
def assisted(stage: Stage) -> Iterator[tuple[Gateway, Program, Program]]:
    """A gateway with both services."""
    with service(stage, "judge") as judge, service(stage, "summarizer") as summarizer:
        targets = {
            "judge_target": f"127.0.0.1:{judge.ready['port']}",
            "summarizer_target": f"127.0.0.1:{summarizer.ready['port']}",
        }
        # On a busy machine a deadline says more about the machine than about the gateway.
        with stage.run(**targets, judge_deadline_ms=5_000, fit_deadline_ms=15_000) as gateway:
            yield gateway, judge, summarizer


def conversation(turns: int) -> list[dict[str, str]]:
    middle = [
        {
            "role": "user" if turn % 2 == 0 else "assistant",
            "content": f"In turn {turn} we spoke about the weather. " + "It rained, and then the sun came out. " * 8,
        }
        for turn in range(turns)
    ]
    return [
        {"role": "system", "content": "You answer briefly."},
        *middle,
        {"role": "user", "content": "What is two plus two?"},
    ]


async def keyed(gateway: Gateway, name: str, **fields: Any) -> None:
    """Give a running gateway another key, and wait until it knows it."""
    before = len(gateway.lines("keys read again"))
    gateway.stage.add_key(name, **fields)
    await until(lambda: len(gateway.lines("keys read again")) > before)


async def ask(
    gateway: Gateway, client: aiohttp.ClientSession, model: str = "auto", **fields: Any
) -> tuple[aiohttp.ClientResponse, bytes]:
    body = {**chat(model, stream=False), **fields}
    async with client.post(gateway.url + PATH, json=body, headers=gateway.headers()) as response:
        return response, await response.read()


async def last_request(client: aiohttp.ClientSession, engine: str) -> dict[str, Any]:
    async with client.get(f"{engine}/requests") as response:
        return dict((await response.json())[-1]["body"])


async def test_the_judge_decides(assisted: tuple[Gateway, Program, Program], client: aiohttp.ClientSession) -> None:
    """With the judge there, the reason has its score and the threshold, and no default is mentioned."""
    response, _ = await ask(assisted[0], client)
    assert response.status == 200
    assert re.match(r"auto: score [01]\.\d\d (reaches|is below) 0\.60", response.headers["x-stream-reason"])
    assert "default" not in response.headers["x-stream-reason"]


async def test_a_message_is_counted_and_condensed_as_chat_is(
    assisted: tuple[Gateway, Program, Program], client: aiohttp.ClientSession
) -> None:
    """`count_tokens` gives the number of tokens that the same message, in Anthropic's form, is condensed from."""
    system, *rest = conversation(60)
    body = {"model": "local", "max_tokens": 64, "system": system["content"], "messages": rest}
    url, headers = f"{assisted[0].url}/v1/messages", assisted[0].headers()
    async with client.post(f"{url}/count_tokens", json=body, headers=headers) as response:
        tokens = (await response.json())["input_tokens"]
    async with client.post(url, json=body, headers=headers) as response:
        assert response.status == 200
        assert f"condensed {tokens} to" in response.headers["x-stream-reason"]
    assert tokens > WINDOW


async def test_a_pin_asks_no_judge(assisted: tuple[Gateway, Program, Program], client: aiohttp.ClientSession) -> None:
    """A caller who names a tier gets it, without a score."""
    response, _ = await ask(assisted[0], client, "cloud")
    assert (response.headers["x-stream-tier"], response.headers["x-stream-reason"]) == ("cloud", "named by the caller")


async def test_a_long_conversation_is_made_to_fit(
    assisted: tuple[Gateway, Program, Program], engine: str, client: aiohttp.ClientSession
) -> None:
    """What exceeds the window is condensed: the engine gets system prompt and question, and the header says so."""
    messages = conversation(60)
    response, _ = await ask(assisted[0], client, "local", messages=messages)
    assert response.status == 200
    found = re.search(r"condensed (\d+) to (\d+) tokens", response.headers["x-stream-reason"])
    assert found is not None
    assert int(found[1]) > WINDOW > int(found[2])
    sent = (await last_request(client, engine))["messages"]
    assert len(str(sent)) < len(str(messages)) / 2
    assert sent[0]["content"].startswith("You answer briefly.")
    assert sent[-1] == messages[-1]
    told = response.headers["x-stream-context"]
    assert re.fullmatch(r"condensed \d+ to \d+ tokens; messages 1-\d+(, [\d.-]+)*; by extraction; estimated", told), (
        told
    )


@pytest.mark.parametrize("forbidden_by", ["header", "key"])
async def test_condensing_can_be_forbidden(
    forbidden_by: str, assisted: tuple[Gateway, Program, Program], engine: str, client: aiohttp.ClientSession
) -> None:
    """By header or key: the small tier is 400 with both numbers; `auto` goes to a tier that takes it whole."""
    gateway, messages = assisted[0], conversation(60)
    if forbidden_by == "key":
        await keyed(gateway, "whole", context="full")
        headers = gateway.headers("whole")
    else:
        headers = gateway.headers() | {"x-stream-context": "full"}
    body = chat("local", stream=False) | {"messages": messages}
    async with client.post(gateway.url + PATH, json=body, headers=headers) as response:
        assert response.status == 400
        error = error_of(await response.read())
    assert error["code"] == "context_length_exceeded"
    assert "2,048" in error["message"]
    assert "may not be condensed" in error["message"]
    async with client.post(gateway.url + PATH, json={**body, "model": "auto"}, headers=headers) as response:
        assert (response.status, response.headers["x-stream-tier"]) == (200, "cloud")
        assert "x-stream-context" not in response.headers
    assert (await last_request(client, engine))["messages"] == messages


async def explained(
    gateway: Gateway, client: aiohttp.ClientSession, key: str = "all", **headers: str
) -> tuple[int, dict[str, Any]]:
    """What `/v1/route` says of a conversation that the small window can't hold."""
    body = {"model": "auto", "messages": conversation(60)}
    asked = gateway.headers(key) | headers
    async with client.post(f"{gateway.url}/v1/route", json=body, headers=asked) as response:
        return response.status, await response.json()


async def test_explaining_looks_at_windows(
    assisted: tuple[Gateway, Program, Program], engine: str, client: aiohttp.ClientSession
) -> None:
    """Both tiers are candidates, the small one with the words that it would condense, and how much; none is asked."""
    before = await last_request(client, engine)
    status, told = await explained(assisted[0], client)
    assert (status, told["excluded"]) == (200, [])
    reasons = {candidate["tier"]: candidate["reason"] for candidate in told["candidates"]}
    assert re.search(r"; condensed, about [\d,]+ tokens for a window of 2,048$", reasons["local"])
    assert "condensed" not in reasons["cloud"]
    assert await last_request(client, engine) == before


@pytest.mark.parametrize("forbidden_by", ["header", "key"])
async def test_explaining_where_condensing_is_forbidden(
    forbidden_by: str, assisted: tuple[Gateway, Program, Program], client: aiohttp.ClientSession
) -> None:
    """By header or key: the small tier is excluded with both numbers, the large one answers; a wrong header is 400."""
    gateway = assisted[0]
    if forbidden_by == "key":
        await keyed(gateway, "whole route", context="full")
        _, told = await explained(gateway, client, "whole route")
    else:
        _, told = await explained(gateway, client, **{"x-stream-context": "full"})
    assert (told["tier"], [candidate["tier"] for candidate in told["candidates"]]) == ("cloud", ["cloud"])
    (out,) = told["excluded"]
    assert (out["tier"], out["model"]) == ("local", "small")
    assert re.search(r"has about [\d,]+ tokens, and .* has 2,048 tokens .* may not be condensed", out["why"])
    status, told = await explained(gateway, client, **{"x-stream-context": "some"})
    assert (status, "x-stream-context" in told["error"]["message"]) == (400, True)


async def test_an_unknown_wish_is_refused(
    assisted: tuple[Gateway, Program, Program], client: aiohttp.ClientSession
) -> None:
    """A header x-stream-context that is neither `auto` nor `full` is 400 and names itself."""
    headers = assisted[0].headers() | {"x-stream-context": "some"}
    async with client.post(assisted[0].url + PATH, json=chat(stream=False), headers=headers) as response:
        assert response.status == 400
        assert "x-stream-context" in error_of(await response.read())["message"]


async def test_a_conversation_that_fits_is_not_touched(
    assisted: tuple[Gateway, Program, Program], engine: str, client: aiohttp.ClientSession
) -> None:
    """Beyond the bound by bytes, within the window by tokens: counted, and sent as it came."""
    messages = conversation(10)
    response, _ = await ask(assisted[0], client, "local", messages=messages)
    assert response.status == 200
    assert "condensed" not in response.headers["x-stream-reason"]
    assert (await last_request(client, engine))["messages"] == messages


async def test_an_answer_that_leaves_no_room(
    assisted: tuple[Gateway, Program, Program], client: aiohttp.ClientSession
) -> None:
    """Where the caller wants nearly the whole window for the answer, `local` is 400 with both numbers."""
    response, body = await ask(assisted[0], client, "local", messages=conversation(60), max_tokens=WINDOW - 10)
    assert response.status == 400
    assert error_of(body)["code"] == "context_length_exceeded"
    assert "2,048" in error_of(body)["message"]


async def test_without_the_services_it_goes_on(
    assisted: tuple[Gateway, Program, Program], client: aiohttp.ClientSession
) -> None:
    """Judge and summarizer killed: the default score decides, long conversations are estimated; reasons say so."""
    gateway, judge, summarizer = assisted
    judge.process.kill()
    summarizer.process.kill()
    await until(lambda: judge.process.poll() is not None and summarizer.process.poll() is not None)
    response, _ = await ask(gateway, client)
    assert response.status == 200
    assert "judge away, default score" in response.headers["x-stream-reason"]
    response, _ = await ask(gateway, client, "local", messages=conversation(10))
    assert response.status == 200
    assert "summarizer away, sent whole" in response.headers["x-stream-reason"]
    response, body = await ask(gateway, client, "local", messages=conversation(60))
    assert response.status == 400
    assert "summarizer is away" in error_of(body)["message"]
    response, _ = await ask(gateway, client, "auto", messages=conversation(60))
    assert response.headers["x-stream-tier"] == "cloud"
    assert "local: conversation too long" in response.headers["x-stream-reason"]


async def test_a_judge_that_does_not_answer(bare: Gateway, engine: str, client: aiohttp.ClientSession) -> None:
    """A judge that accepts connections and is silent costs its deadline and no more."""
    await configure(bare, tier("local", engine))
    response, _ = await ask(bare, client)
    assert response.status == 200
    assert re.search("judge (too slow|away), default score", response.headers["x-stream-reason"])
