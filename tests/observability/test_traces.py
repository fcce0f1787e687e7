"""One request, one trace: over all processes of the real road, with the parent that each span really has."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from observability.collector import Collector, Trace, collector

from stream_core.testing.road import MODEL, Road, run_road

pytestmark = pytest.mark.process

PATH = "/v1/chat/completions"
ROOT = f"gateway: POST {PATH}"
ATTEMPT = f"gateway: chat {MODEL}"
WORKER_WAY = [ROOT, ATTEMPT, "gateway: worker", "worker: request", "worker: engine"]
JUDGE, FIT, WAKE = "stream.v1.Judge/Score", "stream.v1.Summarizer/Fit", "stream.v1.HpcDispatch/RequestWorker"
SECRET = "the cellar key lies under the third flower pot"
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
PHASES = {"auth", "read", "judge", "summarise", "queue", "network", "prefill"}


@pytest.fixture(scope="module")
def spans() -> Iterator[Collector]:
    with collector() as collecting:
        yield collecting


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory, spans: Collector) -> Iterator[Road]:
    """Everything, with a pool that is cold at first; only its workers see images, and their window is small."""
    model = {"id": MODEL, "context_window": 8192, "modalities": ["text", "image"]}
    capable = {"capabilities": ["tools", "continue_final_message"]}
    env = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": spans.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        **{f"STREAM_{name}__TRACES__SAMPLE_RATIO": "1" for name in ("GATEWAY", "JUDGE", "SUMMARIZER")},
    }
    pool = {"min_ready": 0, "max_workers": 2, "model": {**model, **capable}}
    with run_road(tmp_path_factory.mktemp("road"), judge=True, pool=pool, env=env) as running:
        asyncio.run(is_cold(running))
        yield running


async def is_cold(road: Road) -> None:
    """Wait until the gateway knows of the pool."""
    headers = {"authorization": f"Bearer {road.api_key}"}
    async with asyncio.timeout(60), aiohttp.ClientSession(headers=headers) as client:
        states: dict[str, str] = {}
        while states.get("hpc") != "cold":
            async with client.get(f"{road.gateway_url}/v1/tiers") as response:
                states = {tier["id"]: tier["state"] for tier in (await response.json())["data"]}
            await asyncio.sleep(0.05)


@pytest.fixture
async def session(road: Road) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"authorization": f"Bearer {road.api_key}"}
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=120)) as client:
        yield client


async def ask(road: Road, session: aiohttp.ClientSession, *, headers: Any = None, **fields: Any) -> tuple[Any, bytes]:
    body = {"model": "hpc", "stream": True, "messages": [{"role": "user", "content": SECRET}], **fields}
    async with session.post(road.gateway_url + PATH, json=body, headers=headers or {}) as response:
        assert response.status == 200, await response.text()
        return response.headers, await response.read()


def checked(trace: Trace) -> Trace:
    """One root, each parent there, one process behind each service but the gateway's callers."""
    assert [trace.way(span) for span in trace.spans if not span.parent] == [[ROOT]]
    by_service: dict[str, set[str]] = {}
    for span in trace.spans:
        by_service.setdefault(span.service, set()).add(span.instance)
    several = {service for service, instances in by_service.items() if len(instances) > 1}
    assert several <= {"worker"}
    return trace


async def test_a_cold_start(road: Road, spans: Collector, session: aiohttp.ClientSession) -> None:
    """The request that finds no worker is seen at hpc_dispatch, in the worker that starts for it, and at the engine."""
    headers, _ = await ask(road, session, headers={"x-stream-timing": "1"})
    start = "worker: worker start"
    trace = checked(spans.trace_of(headers["x-request-id"], "worker: engine", f"hpc_dispatch: {WAKE}", start))
    assert trace.way(trace.one("worker: engine")) == WORKER_WAY
    woken = [ROOT, ATTEMPT, f"gateway: {WAKE}", f"hpc_dispatch: {WAKE}"]
    assert trace.way(trace.one(f"hpc_dispatch: {WAKE}")) == woken
    assert trace.way(trace.one(start)) == [*woken, start]
    events = trace.one(ROOT).events
    assert events["queue"]["stream.duration_ms"] > 0.5 * events["first_token"]["stream.duration_ms"]


async def test_a_stream(road: Road, spans: Collector, session: aiohttp.ClientSession) -> None:
    """Its way, what each span tells, the relay's link, and the phases that add up to the first token's time."""
    headers, _ = await ask(
        road, session, headers={"x-stream-timing": "1"}, stream_options={"include_usage": True}, script={"tokens": 50}
    )
    trace = checked(spans.trace_of(headers["x-request-id"], "worker: engine", ROOT))
    assert trace.way(trace.one("worker: engine")) == WORKER_WAY
    assert len(trace.spans) == len(WORKER_WAY)  # none for a token
    root, attempt, worker = trace.one(ROOT), trace.one(ATTEMPT), trace.one("worker: request")
    assert root.attributes["stream.tier"] == "hpc"
    assert root.attributes["stream.ended"] == "complete"
    assert attempt.attributes["gen_ai.operation.name"] == "chat"
    assert attempt.attributes["gen_ai.request.model"] == MODEL
    assert (attempt.attributes["gen_ai.usage.input_tokens"], attempt.attributes["gen_ai.usage.output_tokens"]) == (
        5,
        50,
    )
    assert worker.attributes["stream.request_id"] == headers["x-request-id"]
    (link,) = worker.links
    (relay,) = [span for span in spans.spans if (span.trace, span.span) == link]
    assert (relay.service, relay.name, relay.parent) == ("relay", "worker session", "")
    assert relay.attributes["stream.lease"] == trace.one("gateway: worker").attributes["stream.lease"]
    assert set(root.events) == {*PHASES, "first_token"}
    told = dict(part.split(";dur=") for part in headers["server-timing"].split(", "))
    assert set(told) == {*PHASES, "total"}
    assert sum(float(told[phase]) for phase in PHASES) == pytest.approx(float(told["total"]), abs=0.1)


async def test_a_whole_answer_of_a_callers_trace(road: Road, spans: Collector, session: aiohttp.ClientSession) -> None:
    """It goes on below the caller's own span, and the engine's context is the worker's."""
    caller, above = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers, _ = await ask(road, session, headers={"traceparent": f"00-{caller}-{above}-01"}, stream=False)
    assert "server-timing" not in headers

    def enough(seen: list[Any]) -> bool:
        return {"engine", f"POST {PATH}"} <= {span.name for span in seen if span.trace == caller}

    found = {span.name: span for span in spans.wait(enough) if span.trace == caller}
    assert found[f"POST {PATH}"].parent == above
    async with session.get(f"{road.engine_url}/requests") as response:
        last = (await response.json())[-1]
    assert last["traceparent"] == f"00-{caller}-{found['engine'].span}-01"
    assert found[f"POST {PATH}"].attributes["stream.request_id"] == headers["x-request-id"]


async def test_a_callers_no_is_kept(road: Road, spans: Collector, session: aiohttp.ClientSession) -> None:
    """A trace that its caller does not record is recorded nowhere, and still reaches the engine and the logs."""
    silent = "1af7651916cd43dd8448eb211c80319c"
    await ask(road, session, headers={"traceparent": f"00-{silent}-b7ad6b7169203331-00"}, stream=False)
    async with session.get(f"{road.engine_url}/requests") as response:
        assert (await response.json())[-1]["traceparent"] == f"00-{silent}-b7ad6b7169203331-00"
    headers, _ = await ask(road, session, stream=False)
    spans.trace_of(headers["x-request-id"], "worker: engine", ROOT)  # what came before it has been sent, too
    assert not [span for span in spans.spans if span.trace == silent]


async def test_judged_and_condensed(road: Road, spans: Collector, session: aiohttp.ClientSession) -> None:
    """A long conversation with an image, to `auto`: judge and summarizer stand below the request, the worker beside."""
    long = [{"role": role, "content": f"{SECRET} {n}. " * 40} for n in range(40) for role in ("user", "assistant")]
    last = {"role": "user", "content": [{"type": "text", "text": "Where is the key?"}, IMAGE]}
    headers, _ = await ask(road, session, model="auto", messages=[*long, last])
    assert headers["x-stream-context"].startswith("condensed ")
    trace = checked(spans.trace_of(headers["x-request-id"], "worker: engine", f"judge: {JUDGE}", f"summarizer: {FIT}"))
    for service, call in (("judge", JUDGE), ("summarizer", FIT)):
        assert trace.way(trace.one(f"{service}: {call}")) == [ROOT, f"gateway: {call}", f"{service}: {call}"]
    assert trace.way(trace.one("worker: engine")) == WORKER_WAY
    assert trace.one(ROOT).attributes["stream.context"].startswith("condensed ")
    line = next(json.loads(line) for line in road.services["summarizer"].log().splitlines() if '"msg": "fit"' in line)
    assert line["trace_id"] == trace.one(ROOT).trace


async def test_a_continued_answer(road: Road, spans: Collector, session: aiohttp.ClientSession) -> None:
    """A worker is killed in mid-answer: the one that goes on has its span in the same trace, below the same attempt."""
    script = {"continue": "vllm", "tokens": 40, "text": " w{n}", "interval_ms": 30}
    body = {"model": "hpc", "stream": True, "messages": [{"role": "user", "content": "count"}], "script": script}
    (worker,) = road.workers()
    async with session.post(road.gateway_url + PATH, json=body) as response:
        first = await response.content.readuntil(b" w5")
        worker.kill()
        rest = await response.read()
    assert b"data: [DONE]" in rest
    assert b" w39" in first + rest
    trace = spans.trace_of(response.headers["x-request-id"], "worker: engine", ROOT)
    assert [trace.way(span) for span in trace.all("gateway: worker")] == [[ROOT, ATTEMPT, "gateway: worker"]] * 2
    leases = [span.attributes["stream.lease"] for span in trace.all("gateway: worker")]
    assert len(set(leases)) == 2
    assert trace.way(trace.one("worker: engine")) == WORKER_WAY  # the killed one could not tell its own


async def test_no_content_and_no_strangers(road: Road, spans: Collector, session: aiohttp.ClientSession) -> None:
    """Nothing that was asked or answered is in any export; who has no key leaves no span."""
    caller = "2af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{caller}-b7ad6b7169203331-01", "authorization": "Bearer wrong"}
    async with session.post(road.gateway_url + PATH, json={}, headers=headers) as response:
        assert response.status == 401
    found, _ = await ask(road, session, stream=False, script={"text": "under the pot"})
    spans.trace_of(found["x-request-id"], "worker: engine", ROOT)
    everything = b"".join(spans.bodies)
    assert b"flower pot" not in everything
    assert b"under the pot" not in everything
    assert road.api_key.encode() not in everything
    assert bytes.fromhex(caller) not in everything
