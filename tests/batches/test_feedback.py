"""Feedback: the owner's alone, through any replica, sealed at the broker, and a file for `stream judge calibrate`."""

import asyncio
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from batches.press import Press, gateway_env
from gateway.stage import Gateway, chat, error_of, until

pytestmark = pytest.mark.process
SECRET = "a question that nobody else may read"


@pytest.fixture(scope="module")
def second(press: Press) -> Iterator[Gateway]:
    """Another replica of the press's gateway."""
    with press.stage.run(gateway_env(press.stage.folder, press.broker.url)) as gateway:
        yield gateway


async def ask(gateway: Gateway, **headers: str) -> str:
    """Get an answer; its id, when its gateway remembers who asked."""
    status, _, told = await post(gateway, "/v1/chat/completions", chat("local", stream=False), **headers)
    assert status == 200
    await until(lambda: any(line["request_id"] == told["x-request-id"] for line in gateway.lines("request")))
    return str(told["x-request-id"])


async def post(gateway: Gateway, path: str, body: Any, key: str = "all", **headers: str) -> tuple[int, bytes, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(gateway.url + path, json=body, headers={**gateway.headers(key), **headers}) as answer,
    ):
        return answer.status, await answer.read(), answer.headers


async def thumbs_of(gateway: Gateway, key: str = "all") -> list[dict[str, Any]]:
    """What a key gets back of what it said."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(gateway.url + "/v1/feedback", headers=gateway.headers(key)) as answer,
    ):
        assert answer.status == 200, await answer.read()
        return [json.loads(line) for line in (await answer.text()).splitlines()]


async def test_any_replica_takes_a_thumb(press: Press, second: Gateway) -> None:
    """One replica's answer is judged through another one; the last word counts, and both tell it."""
    await until(lambda: bool(second.lines("files and batches are ready")))
    request_id = await ask(press.gateway)
    for gateway, good in ((press.gateway, True), (second, False)):
        thumb = {"request_id": request_id, "good": good, "prompt": SECRET}
        status, body, _ = await post(gateway, "/v1/feedback", thumb)
        assert (status, json.loads(body)) == (200, {"request_id": request_id, "tier": "local", "good": good})
    for gateway in (press.gateway, second):
        said = [thumb for thumb in await thumbs_of(gateway) if thumb["request_id"] == request_id]
        assert [(thumb["good"], thumb["prompt"], thumb["tier"]) for thumb in said] == [(False, SECRET, "local")]


async def test_the_owner_alone(press: Press, second: Gateway) -> None:
    """Another key neither judges the answer, through any replica, nor sees the thumb; an unknown answer is 404."""
    request_id = await ask(press.gateway)
    for gateway in (press.gateway, second):
        thumb = {"request_id": request_id, "good": True}
        status, body, _ = await post(gateway, "/v1/feedback", thumb, "other")
        assert (status, error_of(body)["code"]) == (404, "answer_not_found")
        assert (await post(gateway, "/v1/feedback", {**thumb, "request_id": "0" * 32}))[0] == 404
        assert (await post(gateway, "/v1/feedback", {**thumb, "request_id": "*"}))[0] == 400
        assert (await post(gateway, "/v1/feedback", {**thumb, "good": "yes"}))[0] == 400
    assert (await post(press.gateway, "/v1/feedback", {"request_id": request_id, "good": True}))[0] == 200
    assert all(thumb["request_id"] != request_id for thumb in await thumbs_of(press.gateway, "other"))


async def test_a_prompt_is_kept_up_to_its_class(press: Press, second: Gateway) -> None:
    """The class of the request that was answered counts, through any replica, and a header raises it."""
    await until(lambda: bool(second.lines("files and batches are ready")))
    restricted = {"x-stream-privacy": "restricted"}
    for asked, told in ((restricted, {}), ({}, restricted)):
        request_id = await ask(press.gateway, **asked)
        for gateway in (press.gateway, second):
            thumb = {"request_id": request_id, "good": True, "prompt": SECRET}
            status, body, _ = await post(gateway, "/v1/feedback", thumb, **told)
            assert status == 403
            assert error_of(body)["param"] == "prompt"
            assert "it is 'restricted', and prompts up to 'public' are kept" in error_of(body)["message"]
            assert SECRET.encode() not in body
        assert request_id not in {thumb["request_id"] for thumb in await thumbs_of(second)}
        assert (await post(second, "/v1/feedback", {"request_id": request_id, "good": True}, **told))[0] == 200


async def test_sealed_and_exported(press: Press, tmp_path: Path) -> None:
    """The broker's disk holds no word of it; `python -m stream_gateway.thumbs` writes a private file with all of it."""
    request_id = await ask(press.gateway)
    thumb = {"request_id": request_id, "good": True, "prompt": SECRET}
    assert (await post(press.gateway, "/v1/feedback", thumb))[0] == 200
    stored = b"".join(path.read_bytes() for path in press.store.rglob("*") if path.is_file())
    assert request_id.encode() in stored, "the thumb is not on this disk"
    assert SECRET.encode() not in stored
    path = tmp_path / "thumbs.jsonl"
    env = press.stage.env() | gateway_env(press.stage.folder, press.broker.url)
    command = (sys.executable, "-m", "stream_gateway.thumbs", str(path))
    done = await asyncio.create_subprocess_exec(*command, env=os.environ | env)
    assert await done.wait() == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert (SECRET, "local", True) in [(line.get("prompt"), line["tier"], line["good"]) for line in lines]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
