"""Real vLLM at the end of the whole HPC tier: what it can do, clients get; what it does, operators see; it may die."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import psutil
import pytest
from hpc.vllm import node

from stream_core.grpc_client import open_channel
from stream_core.rpc import hpc_dispatch_pb2, hpc_dispatch_pb2_grpc
from stream_core.settings import TlsFiles
from stream_core.testing.road import run_road, wait_hot
from stream_worker.engine_load import read_load

pytestmark = [pytest.mark.process, pytest.mark.skipif(bool(node.why_not()), reason=node.why_not())]

LIMIT_S = 600.0
"""Of a start, and so of everything that may wait for one: 20 s on two idle cores, minutes on busy ones."""
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "hello there"}], "temperature": 0, "max_tokens": 120}
LONG: dict[str, Any] = ASK | {"max_tokens": 3000}
"""So long that whatever is done after its first words comes before its end."""
WEATHER = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Bern"]}, "warm": {"type": "boolean"}},
    "required": ["city", "warm"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The tiny model's folder."""
    return node.write_model(tmp_path_factory.mktemp("model") / node.MODEL)


@contextlib.asynccontextmanager
async def watched(road) -> AsyncIterator[Any]:
    """The pool as a gateway watches it."""
    tls = road.folder / "tls"
    files = TlsFiles(ca=tls / "ca.pem", certificate=tls / "gateway.pem", key=tls / "gateway.key")
    async with open_channel(f"127.0.0.1:{road.services['hpc_dispatch'].ready['port']}", files) as channel:
        stub = hpc_dispatch_pb2_grpc.HpcDispatchStub(channel)
        yield stub.WatchPool(hpc_dispatch_pb2.WatchPoolRequest(gateway_id="test"))


async def test_a_wrong_model_path(tmp_path):
    """The pool is offline, and says why in vLLM's own words; nothing of the engine is left."""
    pool = node.pool(tmp_path / "no-such-model", tmp_path / "cache")
    with run_road(tmp_path, pool=pool) as road:
        async with asyncio.timeout(LIMIT_S), watched(road) as snapshots:
            async for snapshot in snapshots:
                (state,) = snapshot.models
                if state.state == "offline":
                    break
        assert "no-such-model" in state.reason
        assert "Error" in state.reason


@pytest.fixture(scope="module")
def road(tmp_path_factory, model):
    """Two workers, each with a vLLM of its own."""
    folder = tmp_path_factory.mktemp("road")
    env = {"STREAM_WORKER__STATUS_INTERVAL_S": "0.2"}
    with run_road(folder, workers=2, pool=node.pool(model, folder / "cache"), env=env) as running:
        with asyncio.Runner() as runner:
            runner.run(wait_hot(running, workers=2, within_s=LIMIT_S))
        yield running


class Asked:
    """A place to ask: the gateway, or an engine itself."""

    def __init__(self, session, url, api_key, model) -> None:
        self._session = session
        self._url = f"{url}/v1/chat/completions"
        self._headers = {"authorization": f"Bearer {api_key}"}
        self._model = model

    async def whole(self, **asked: Any) -> dict[str, Any]:
        """One answer, not streamed."""
        async with self._session.post(self._url, json={"model": self._model, **asked}, headers=self._headers) as got:
            answer = await got.json()
            assert got.status == 200, answer
            return answer

    async def chunks(self, **asked: Any) -> AsyncIterator[dict[str, Any]]:
        """One answer's chunks; it must end with "[DONE]"."""
        body = {"model": self._model, "stream": True, **asked}
        async with self._session.post(self._url, json=body, headers=self._headers) as got:
            assert got.status == 200, await got.text()
            async for line in got.content:
                if line == b"data: [DONE]\n":
                    return
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])
        raise AssertionError("the stream ended without [DONE]")


@pytest.fixture
async def session():
    """For the gateway and the engines alike."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=LIMIT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as made:
        yield made


@pytest.fixture
def tier(road, session):
    """The HPC tier, through the gateway."""
    return Asked(session, road.gateway_url, road.api_key, "hpc")


@pytest.fixture
def engine(road, session):
    """One of the engines, asked directly; all of them answer alike."""
    first = node.engines(road)[0]
    return Asked(session, first.url, first.api_key, node.MODEL)


def text_of(chunks):
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def finish_of(chunks):
    return [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]


def usage_of(chunks):
    (usage,) = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    return {name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}


async def until(condition):
    """Wait for other processes, which tell nobody."""
    async with asyncio.timeout(LIMIT_S):
        while not await condition():  # noqa: ASYNC110  (see above)
            await asyncio.sleep(0.05)


async def running(road, session):
    """How many requests each engine says it runs: a moment late, by vLLM's own metrics."""
    return await asyncio.gather(*(each.running(session) for each in node.engines(road)))


async def until_idle(road, session):
    """Wait until each engine says that it runs nothing: what it says later is of later requests."""

    async def idle() -> bool:
        return not any(await running(road, session))

    await until(idle)


async def busy(road, session):
    """The engine that runs the only request, when none ran before it."""
    found = []

    async def told() -> bool:
        counts = await running(road, session)
        found.extend(each for each, count in zip(node.engines(road), counts, strict=True) if count)
        return bool(found)

    await until(told)
    (one,) = found
    return one


async def test_a_stream_is_vllms_own(tier, engine):
    """Text, end and usage of a streamed chat are those of vLLM asked directly, with the key that the worker drew."""
    asked = ASK | {"stream_options": {"include_usage": True}}
    mine = [chunk async for chunk in tier.chunks(**asked)]
    direct = [chunk async for chunk in engine.chunks(**asked)]
    assert text_of(mine) == text_of(direct)
    assert len(text_of(mine)) == 120
    assert finish_of(mine) == finish_of(direct) == ["length"]
    assert usage_of(mine) == usage_of(direct)
    assert usage_of(mine)["completion_tokens"] == 120


async def test_log_probabilities(tier, engine):
    """They come through, token by token."""
    asked = ASK | {"logprobs": True, "top_logprobs": 2}
    mine, direct = await tier.whole(**asked), await engine.whole(**asked)
    ours, theirs = mine["choices"][0]["logprobs"]["content"], direct["choices"][0]["logprobs"]["content"]
    assert [entry["token"] for entry in ours] == [entry["token"] for entry in theirs]
    assert len(ours) == 120
    assert all(len(entry["top_logprobs"]) == 2 for entry in ours)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_tool_call(tier, stream):
    """A named function is called, with arguments of its schema."""
    function = {"name": "weather", "parameters": WEATHER, "strict": True}
    asked = ASK | {
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "max_tokens": 300,
    }
    if stream:
        deltas = [c["delta"] async for chunk in tier.chunks(**asked) for c in chunk["choices"]]
        parts = [call["function"] for delta in deltas for call in delta.get("tool_calls") or []]
        name = "".join(part.get("name") or "" for part in parts)
        arguments = "".join(part.get("arguments") or "" for part in parts)
    else:
        (call,) = (await tier.whole(**asked))["choices"][0]["message"]["tool_calls"]
        name, arguments = call["function"]["name"], call["function"]["arguments"]
    assert name == "weather"
    said = json.loads(arguments)
    assert set(said) == {"city", "warm"}
    assert (said["city"] in {"Oslo", "Bern"}, type(said["warm"])) == (True, bool)


async def test_a_json_schema(tier):
    """`response_format` holds the answer to its schema."""
    form = {"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER, "strict": True}}
    chunks = [chunk async for chunk in tier.chunks(**ASK, response_format=form)]
    said = json.loads(text_of(chunks))
    assert set(said) == {"city", "warm"}
    assert finish_of(chunks) == ["stop"]


async def test_many_at_once_are_one_batch(road, session, tier):
    """32 requests run together, each gets its own answer whole, and the worker can read how full the cache is."""
    most, fullest = 0.0, 0.0
    answers = [asyncio.create_task(tier.whole(**LONG | {"max_tokens": 500 + number})) for number in range(32)]

    async def look() -> bool:
        nonlocal most, fullest
        for each in node.engines(road):
            metrics = await each.metrics(session)
            most = max(most, node.counted(metrics, "vllm:num_requests_running"))
            fullest = max(fullest, read_load(metrics).cache_use or 0.0)
        return all(answer.done() for answer in answers)

    await until(look)
    assert most > 8
    assert 0 < fullest <= 1
    whole = [answer.result() for answer in answers]
    assert [answer["usage"]["completion_tokens"] for answer in whole] == [500 + number for number in range(32)]
    longest = whole[-1]["choices"][0]["message"]["content"]
    assert all(longest.startswith(answer["choices"][0]["message"]["content"]) for answer in whole)


async def test_a_client_that_leaves_stops_vllm(road, session, tier):
    """By vLLM's own metrics nothing runs any more, and of 3,000 tokens most were never made."""

    async def told() -> tuple[float, float, float]:
        metrics = "".join([await each.metrics(session) for each in node.engines(road)])
        made = node.counted(metrics, "vllm:generation_tokens_total")
        complete = node.counted(metrics, "vllm:request_success_total")
        return made, complete, node.counted(metrics, "vllm:num_requests_running")

    await until_idle(road, session)
    made_before, complete_before, _ = await told()
    chunks = tier.chunks(**LONG)
    async for chunk in chunks:
        if text_of([chunk]):
            break
    await chunks.aclose()

    async def stopped() -> bool:
        made, _, running = await told()
        return made > made_before and running == 0

    await until(stopped)
    made, complete, _ = await told()
    assert complete == complete_before
    assert made - made_before < 2000


async def cut(road, session, tier, kill):
    """Ask for a long answer, kill something of the engine's under it, and read on: text, and what the end says."""
    chunks, victim = [], None
    await until_idle(road, session)
    async for chunk in tier.chunks(**LONG):
        chunks.append(chunk)
        if victim is None and len(text_of(chunks)) >= 20:
            victim = await busy(road, session)
            kill(victim)
    (last,) = [chunk for chunk in chunks if chunk["choices"] and chunk["choices"][0]["finish_reason"]]
    return text_of(chunks), last.get("stream"), victim


async def test_the_engine_is_killed_and_started_again(road, session, tier, engine):
    """Its answer goes on, on the other one, to the very letter; its worker keeps the lease and starts it anew."""
    expected = (await engine.whole(**LONG))["choices"][0]["message"]["content"]
    text, mark, victim = await cut(road, session, tier, lambda victim: victim.processes[0].kill())
    assert (text, mark) == (expected, {"continued": 1})
    assert (await asyncio.to_thread(psutil.wait_procs, victim.processes, timeout=20))[1] == []
    await wait_hot(road, workers=2, within_s=LIMIT_S)
    again = [each for each in node.engines(road) if each.worker == victim.worker]
    assert [each.processes[0] == victim.processes[0] for each in again] == [False]
    answer = await Asked(session, again[0].url, again[0].api_key, node.MODEL).whole(**ASK)
    assert expected.startswith(answer["choices"][0]["message"]["content"])


async def test_the_worker_is_killed(road, session, tier, engine):
    """The same with the whole worker: the answer is the undisturbed one, and no process of its vLLM is left."""
    expected = (await engine.whole(**LONG))["choices"][0]["message"]["content"]
    text, mark, victim = await cut(road, session, tier, lambda victim: victim.worker.kill())
    assert (text, mark) == (expected, {"continued": 1})
    assert (await asyncio.to_thread(psutil.wait_procs, victim.processes, timeout=20))[1] == []
