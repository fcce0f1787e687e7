"""What thumbs are good for: they move the judge's probabilities. And what happens when there is no room for more."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from batches.press import Press, gateway_env
from gateway.stage import Gateway, chat, error_of, tls_env, until

from stream_core.testing import programs
from stream_core.testing.broker import run_broker

pytestmark = pytest.mark.process
THUMBS = 30
QUESTION = "What is the capital of country number {}?"
ROOM = 16 * 1024


@pytest.fixture(scope="module")
def narrow(press: Press) -> Iterator[Gateway]:
    """A gateway whose broker has little room for thumbs."""
    with run_broker() as url:
        env = gateway_env(press.stage.folder, url)
        with press.stage.run(env, feedback_max_bytes=ROOM) as gateway:
            yield gateway


async def post(gateway: Gateway, path: str, body: Any) -> tuple[int, bytes, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(gateway.url + path, json=body, headers=gateway.headers()) as answer,
    ):
        return answer.status, await answer.read(), answer.headers


async def answered(gateway: Gateway, questions: list[str]) -> list[str]:
    """Ask the local tier; the answers' ids, once the gateway remembers them."""

    async def ask(question: str) -> str:
        body = chat("local", stream=False) | {"messages": [{"role": "user", "content": question}]}
        status, _, headers = await post(gateway, "/v1/chat/completions", body)
        assert status == 200
        return str(headers["x-request-id"])

    ids = await asyncio.gather(*map(ask, questions))
    await until(lambda: set(ids) <= {line["request_id"] for line in gateway.lines("request")})
    return ids


async def local_score(press: Press, calibration: Path | None) -> float:
    """What `/v1/route` says of the local tier, with a judge of that calibration."""
    folder = press.stage.folder
    env = {"STREAM_CONFIG": str(folder / "stream.yaml"), **tls_env("judge", folder / "tls", "judge")}
    if calibration is not None:
        env["STREAM_JUDGE__CALIBRATION_FILE"] = str(calibration)
    with programs.start("stream_judge", env=env) as judge:
        target = f"127.0.0.1:{judge.ready['port']}"
        with press.stage.run(judge_target=target, judge_deadline_ms=5_000) as gateway:
            body = {"model": "auto", "messages": [{"role": "user", "content": QUESTION.format(7)}]}
            status, told, _ = await post(gateway, "/v1/route", body)
            assert status == 200, told
            return float(json.loads(told)["scores"]["local"])


async def test_thumbs_move_the_judge(press: Press, tmp_path: Path) -> None:
    """Thirty thumbs down for `local`, fetched and fitted: the judge thinks less of that tier, and routes by it."""
    questions = [QUESTION.format(number) for number in range(THUMBS)]
    ids = await answered(press.gateway, questions)
    for number, (request_id, question) in enumerate(zip(ids, questions, strict=True)):
        thumb = {"request_id": request_id, "good": number % 10 == 0, "prompt": question}
        assert (await post(press.gateway, "/v1/feedback", thumb))[0] == 200
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{press.gateway.url}/v1/feedback", headers=press.gateway.headers()) as response,
    ):
        (tmp_path / "outcomes.jsonl").write_bytes(await response.read())
    command = ("-m", "stream_cli", "judge", "calibrate", "outcomes.jsonl", "--output", "own.json")
    done = await asyncio.create_subprocess_exec(sys.executable, *command, cwd=tmp_path)
    assert await done.wait() == 0
    before, after = await local_score(press, None), await local_score(press, tmp_path / "own.json")
    assert after < before - 0.2


async def test_no_room_for_more(narrow: Gateway) -> None:
    """When the room for thumbs is used up the next one is 429 and names the setting; what is there stays."""
    await until(lambda: bool(narrow.lines("files and batches are ready")))
    kept = 0
    for request_id in await answered(narrow, [QUESTION.format(number) for number in range(ROOM // 1024)]):
        thumb = {"request_id": request_id, "good": True, "prompt": "x" * 2048}
        status, body, _ = await post(narrow, "/v1/feedback", thumb)
        if status != 200:
            break
        kept += 1
    assert status == 429, body
    assert "gateway.feedback_max_bytes" in error_of(body)["message"]
    assert kept > 0
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{narrow.url}/v1/feedback", headers=narrow.headers()) as response,
    ):
        assert len((await response.text()).splitlines()) == kept
