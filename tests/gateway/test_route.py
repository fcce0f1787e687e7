"""POST /v1/route explains and sends nothing."""

import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from gateway.stage import Gateway, Stage, error_of, tier, tls_env

from stream_core.testing import programs
from stream_core.testing.programs import Program

pytestmark = pytest.mark.process
PROOF = {"messages": [{"role": "user", "content": "Prove that every finite group of odd order is solvable."}]}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Stage:
    tiers = [tier("local", engine), tier("cloud", engine, privacy="public")]
    stage = Stage(tmp_path_factory.mktemp("route"), {"tiers": tiers})
    stage.add_key("local-only", tiers=["local"])
    stage.add_key("second")
    return stage


@pytest.fixture(scope="module")
def judge(stage: Stage) -> Iterator[Program]:
    config = {"STREAM_CONFIG": str(stage.folder / "stream.yaml"), "STREAM_JUDGE__LOG_LEVEL": "DEBUG"}
    with programs.start("stream_judge", env=config | tls_env("judge", stage.folder / "tls", "judge")) as program:
        yield program


@pytest.fixture(scope="module")
def gateway(stage: Stage, judge: Program) -> Iterator[Gateway]:
    settings = {"judge_target": f"127.0.0.1:{judge.ready['port']}", "judge_deadline_ms": 5_000}
    with stage.run(**settings) as gateway:
        yield gateway


async def post(gateway: Gateway, path: str, body: Any, key: str = "all", **headers: str) -> tuple[int, bytes, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(gateway.url + path, json=body, headers={**gateway.headers(key), **headers}) as answer,
    ):
        return answer.status, await answer.read(), answer.headers


async def test_explain(gateway: Gateway) -> None:
    """A hard question goes to the cloud: the answer says who, why, what else, and the judge's words."""
    status, body, _ = await post(gateway, "/v1/route", {"model": "auto", **PROOF})
    told = json.loads(body)
    assert status == 200, body
    assert (told["tier"], told["model"], told["level"]) == ("cloud", "cloud-model", "HIGH")
    assert set(told["scores"]) == {"local", "cloud"}
    assert "asks for a proof" in told["reasons"]
    assert [candidate["tier"] for candidate in told["candidates"]] == ["cloud", "local"]
    assert told["excluded"] == []


async def test_explain_names_what_is_out(gateway: Gateway) -> None:
    """Privacy, entitlement and pins appear as exclusions with their reasons, and nothing is sent."""
    before = len(gateway.lines("request"))
    asked, restricted = {"model": "auto", **PROOF}, {"x-stream-privacy": "restricted"}
    private = json.loads((await post(gateway, "/v1/route", asked, **restricted))[1])
    entitled = json.loads((await post(gateway, "/v1/route", {"model": "auto", **PROOF}, "local-only"))[1])
    pinned = json.loads((await post(gateway, "/v1/route", {"model": "local", **PROOF}))[1])
    assert [told["tier"] for told in (private, entitled, pinned)] == ["local"] * 3
    whys = [told["excluded"][0]["why"] for told in (private, entitled, pinned)]
    assert "may see text up to 'public'" in whys[0]
    assert "may not use" in whys[1]
    assert "the caller named 'local'" in whys[2]
    assert set(private["scores"]) == {"local"}
    assert len(gateway.lines("request")) == before


async def test_verdicts_are_remembered_by_key_where_nobody_else_may_see(gateway: Gateway, judge: Program) -> None:
    """A public question that another key has asked is known; a restricted one is known to the key itself alone."""
    question = {"model": "auto", "messages": [{"role": "user", "content": "Who was the first to sail around Africa?"}]}
    for headers in ({"x-stream-privacy": "public"}, {"x-stream-privacy": "restricted"}):
        for key in ("all", "second", "second"):
            assert (await post(gateway, "/v1/route", question, key, **headers))[0] == 200
    scored = [json.loads(line) for line in judge.log().splitlines() if '"scored"' in line]
    assert [line["cached"] for line in scored[-6:]] == [False, True, True, False, False, True]


async def test_explain_refuses_what_chat_refuses(gateway: Gateway) -> None:
    """A wrong body and an unknown model are the same errors as for a chat."""
    assert (await post(gateway, "/v1/route", {"model": "auto"}))[0] == 400
    status, body, _ = await post(gateway, "/v1/route", {"model": "nobody", **PROOF})
    assert (status, error_of(body)["code"]) == (404, "model_not_found")
