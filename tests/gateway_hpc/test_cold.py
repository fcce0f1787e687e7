"""The first request to a cold model: it waits and says so, or the next tier answers while the worker starts."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest
from gateway.stage import error_of
from gateway_hpc.dispatched import LIMIT, MODEL, Scene, cluster

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
SCRIPT = {"tokens": 20, "text": " w{n}"}


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The events and comments of a stream, as they come."""
    while event := await response.content.readuntil(b"\n\n"):
        yield event


async def comment(response: aiohttp.ClientResponse, words: str) -> str:
    """Read until a comment holds these words."""
    async with asyncio.timeout(60):
        async for event in events(response):
            assert event.startswith(b": "), event
            if words in (said := event.decode()):
                return said
    raise AssertionError("the stream ended")


async def undisturbed(made: Scene) -> bytes:
    """What the engine itself says."""
    asked = {"model": MODEL, "stream": True, "messages": [], "script": SCRIPT}
    async with made.client.post(f"{made.parts.engine_url}/v1/chat/completions", json=asked) as response:
        return await response.read()


async def test_a_stream_waits_and_is_kept_informed(cold: Scene) -> None:
    """200 and a comment at once, then what hpc_dispatch says, then the engine's own bytes; dispatch hears of it."""
    heard = asyncio.create_task(
        cold.dispatch.asked(lambda request: (request.model, request.cluster, request.waiting) == (MODEL, "alpha", 1))
    )
    async with cold.ask("hpc", script=SCRIPT) as response:
        assert response.status == 200
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["x-stream-tier"] == "hpc"
        assert "waiting for a worker: asked for" in response.headers["x-stream-reason"]
        assert "x-stream-cluster" not in response.headers
        assert await comment(response, "") == ": waiting for a worker: asked for (no worker runs)\n\n"
        await heard
        assert len(cold.dispatch.requests[-1].gateway_id) == 32
        await cold.dispatch.say("alpha", "starting", queue_position=3, starting=1, in_s=40)
        assert (await comment(response, "queued")).startswith(": waiting for a worker: queued, position 3, about ")
        worker = await cold.hire("alpha")
        # With every second that it waits dispatch is told again.
        await cold.dispatch.asked(lambda request: request.waiting == 1)
        await cold.dispatch.say("alpha", "hot", worker)
        assert "answered by hpc/scripted on alpha: named by the caller; on alpha" in await comment(response, "answered")
        assert await response.read() == await undisturbed(cold)


async def test_the_official_client_does_not_notice(cold: Scene) -> None:
    """The client skips the comments; streamed or whole, it waits and gets its answer."""
    key = cold.gateway.stage.keys["all"]
    async with openai.AsyncOpenAI(base_url=f"{cold.gateway.url}/v1", api_key=key, max_retries=0) as client:

        async def ask(stream: bool) -> str:
            asked = client.chat.completions.create(
                model="hpc", messages=[{"role": "user", "content": "x"}], stream=stream, extra_body={"script": SCRIPT}
            )
            if not stream:
                return (await asked).choices[0].message.content
            return "".join([chunk.choices[0].delta.content or "" async for chunk in await asked if chunk.choices])

        asking = [asyncio.create_task(ask(stream)) for stream in (True, False)]
        await cold.dispatch.asked(lambda request: request.waiting == 2)
        await cold.dispatch.say("alpha", "hot", await cold.hire("alpha"))
        streamed, whole = await asyncio.gather(*asking)
    assert streamed == "".join(f" w{n}" for n in range(20))
    assert whole


async def test_when_the_limit_is_over(stage: Scene, cloud: dict[str, Any]) -> None:
    """A stream ends with an error event, a whole answer with 503: code, state, reason, and when to come back."""
    made = await stage.play(cluster("alpha", cold_wait_s=0.5))
    await made.dispatch.say("alpha", "starting", queue_position=2, starting=1, in_s=90, reason="two jobs before it")
    await made.told("/v1/models/hpc", lambda told: told["stream"]["queue_position"] == 2)
    async with made.ask(stream=True) as response:
        assert response.status == 200
        *comments, last = [event async for event in events(response)]
    assert comments
    assert all(event.startswith(b": waiting for a worker: queued, position 2") for event in comments)
    streamed = error_of(last.removeprefix(b"data: "))
    async with made.ask(stream=False) as response:
        assert response.status == 503
        assert 80 <= int(response.headers["retry-after"]) <= 90
        whole = error_of(await response.read())
    for error in (streamed, whole):
        assert error["code"] == "worker_not_ready"
        words = "no worker of 'hpc/scripted' had a place within 0.5 s: queued, position 2, about "
        assert error["message"].startswith(words)
        assert "two jobs before it" in error["message"]


async def test_auto_waits_where_the_pool_says_so(cold: Scene) -> None:
    """`wait`: the stream's headers leave open who answers, since another tier may; a comment tells in the end."""
    async with cold.ask("auto", script=SCRIPT) as response:
        assert response.status == 200
        assert "x-stream-tier" not in response.headers
        await comment(response, "waiting for a worker: asked for")
        await cold.dispatch.say("alpha", "hot", await cold.hire("alpha"))
        assert "answered by hpc/scripted on alpha: auto" in await comment(response, "answered")
        assert (await response.read()).endswith(b"data: [DONE]\n\n")


async def test_auto_goes_on_to_the_next_tier_when_nothing_comes(stage: Scene, cloud: dict[str, Any]) -> None:
    """`wait`, until the limit: then the next tier answers in the same stream."""
    made = await stage.play(cluster("alpha", cold_wait_s=0.3), tiers=(cloud,))
    async with made.ask("auto", script=SCRIPT) as response:
        said = await comment(response, "answered")
        assert said.startswith(": answered by cloud/cloud-model: auto")
        assert "hpc failed (worker_not_ready)" in said
        assert (await response.read()).endswith(b"data: [DONE]\n\n")


async def test_auto_takes_the_next_tier_where_the_pool_says_so(stage: Scene, cloud: dict[str, Any]) -> None:
    """`next`: the dearer tier answers at once, the worker is asked for all the same; who names the tier waits."""
    made = await stage.play(cluster("alpha", cold_start="next"), tiers=(cloud,))
    heard = asyncio.create_task(made.dispatch.asked(lambda request: request.cluster == "alpha"))
    async with made.ask("auto", script=SCRIPT) as response:
        assert response.headers["x-stream-tier"] == "cloud"
        assert "hpc is cold, a worker is asked for" in response.headers["x-stream-reason"]
        assert b": " not in (await response.read())[:2]
    await heard
    for model in ("hpc", "hpc/scripted", "scripted"):
        async with made.ask(model, script=SCRIPT) as response:
            assert response.headers["x-stream-tier"] == "hpc"
            await comment(response, "asked for")
    await made.dispatch.say("alpha", "hot", await made.hire("alpha"))
    await made.told("/v1/models/hpc", lambda told: told["stream"]["state"] == "hot")
    async with made.ask("auto", script=SCRIPT) as response:
        assert response.headers["x-stream-tier"] == "hpc"
        assert response.headers["x-stream-cluster"] == "alpha"


async def test_a_confidential_request_wakes_nothing_it_may_not_see(stage: Scene, cloud: dict[str, Any]) -> None:
    """A key that may not use the cluster gets another tier, and hpc_dispatch hears of nothing."""
    places = (cluster("alpha", cold_start="next"), cluster("beta", cold_start="next"))
    made = await stage.play(*places, tiers=(cloud,))
    async with made.ask("auto", key="beta only") as response:
        assert response.headers["x-stream-tier"] == "cloud"
    async with made.ask("hpc/alpha/scripted", key="beta only") as response:
        assert response.status == 403
    heard = asyncio.create_task(made.dispatch.asked(lambda request: request.cluster == "beta"))
    async with made.ask("hpc/beta/scripted", key="beta only") as response:
        await comment(response, "asked for")
        await heard
    assert {request.cluster for request in made.dispatch.requests} == {"beta"}


async def test_waiting_is_bounded_and_a_place_left_is_free(stage: Scene, cloud: dict[str, Any]) -> None:
    """One more than may wait is 503 with both numbers; when a client leaves, the next one is let in at once."""
    made = await stage.play(cluster("alpha"))
    async with contextlib.AsyncExitStack() as stack:
        waiting = [await stack.enter_async_context(made.ask()) for _ in range(LIMIT)]
        for response in waiting:
            await comment(response, "asked for")
        async with made.ask() as response:
            assert response.status == 503
            assert response.headers["retry-after"]
            error = error_of(await response.read())
        assert error["code"] == "worker_not_ready"
        assert error["message"] == "12 requests wait for a worker already, at most 12 may"
        waiting[0].close()
        await made.dispatch.asked(lambda request: request.waiting == LIMIT - 1)
        async with made.ask() as response:
            assert response.status == 200
            await comment(response, "asked for")


async def test_full_workers_with_room_for_more(cold: Scene) -> None:
    """Where all are full and another worker may come, a request waits, dispatch hears of it, and it gets a place."""
    worker = await cold.hire("alpha", max_requests=2)
    await cold.dispatch.say("alpha", "hot", worker)
    await cold.told("/v1/models/hpc", lambda told: told["stream"]["state"] == "hot")
    slow = {"tokens": 100_000, "interval_ms": 5}
    async with contextlib.AsyncExitStack() as stack:
        running = [await stack.enter_async_context(cold.ask(script=slow)) for _ in range(2)]
        for response in running:
            await response.content.readany()
        async with cold.ask(script=SCRIPT) as response:
            assert await comment(response, "") == ": waiting for a worker: all workers are busy\n\n"
            await cold.dispatch.asked(lambda request: (request.cluster, request.waiting) == ("alpha", 1))
            running[0].close()
            await comment(response, "answered by hpc/scripted on alpha")
            assert (await response.read()).endswith(b"data: [DONE]\n\n")


async def test_full_workers_without_room(stage: Scene, cloud: dict[str, Any]) -> None:
    """Where no further worker may come, the refusal is told at once."""
    made = await stage.play(cluster("alpha", max_workers=1))
    await made.dispatch.say("alpha", "hot", await made.hire("alpha", max_requests=2))
    await made.told("/v1/models/hpc", lambda told: told["stream"]["state"] == "hot")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            busy = await stack.enter_async_context(made.ask(script={"tokens": 100_000, "interval_ms": 5}))
            await busy.content.readany()
        async with made.ask() as response:
            assert response.status == 503
            assert error_of(await response.read())["code"] == "worker_busy"


async def test_many_wait_for_one_worker(cold: Scene) -> None:
    """Ten clients wait; the worker that comes runs two at once; all are answered, and none is refused."""

    async def ask() -> bytes:
        async with cold.ask(script=SCRIPT) as response:
            return b"".join([event async for event in events(response) if not event.startswith(b": ")])

    asking = [asyncio.create_task(ask()) for _ in range(10)]
    await cold.dispatch.asked(lambda request: request.waiting == 10)
    await cold.dispatch.say("alpha", "hot", await cold.hire("alpha", max_requests=2))
    assert await asyncio.gather(*asking) == [await undisturbed(cold)] * 10


async def test_an_engines_refusal_after_the_wait(cold: Scene) -> None:
    """The headers said 200 already: the engine's own error is the stream's last event."""
    async with cold.ask(script={"status": 400}) as response:
        await comment(response, "asked for")
        await cold.dispatch.say("alpha", "hot", await cold.hire("alpha"))
        *_, last = [event async for event in events(response)]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "scripted"
