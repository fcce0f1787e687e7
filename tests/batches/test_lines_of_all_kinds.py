"""What becomes of a batch's lines: good, bad, refused, failing, too late, cancelled, of a revoked key."""

import asyncio
from typing import Any

import aiohttp
import openai
import pytest
from batches.press import Press, eventually, jsonl, lines_of, reach, request, start, upload
from openai.types import Batch

pytestmark = pytest.mark.process


async def outcome(client: openai.AsyncOpenAI, batch: Batch) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(answers by custom_id, lines of the error file); together they are as many as the batch says."""
    good = await lines_of(client, batch.output_file_id)
    bad = await lines_of(client, batch.error_file_id)
    assert batch.request_counts is not None
    assert (len(good), len(bad)) == (batch.request_counts.completed, batch.request_counts.failed)
    assert len(good) + len(bad) == batch.request_counts.total
    return {line["custom_id"]: line["response"] for line in good}, bad


async def test_bad_lines(official: openai.AsyncOpenAI) -> None:
    """Each bad line is in the error file with its number and what is wrong with it; the good ones run."""
    bad = {
        2: ("{not json", "not valid JSON"),
        3: ("[1, 2]", "not a JSON object"),
        5: ({**request("x"), "custom_id": 7}, "custom_id must be"),
        6: ({**request("m"), "method": "GET"}, "method must be"),
        7: ({**request("u"), "url": "/v1/embeddings"}, "url must be"),
        8: ({**request("b"), "body": "text"}, "body must be"),
        9: (request("r", messages=[{"role": "wizard", "content": "x"}]), "body: messages[0].role"),
        10: (request("s", stream=True), "body.stream"),
        11: (request("good-1"), "was there before"),
    }
    lines: list[Any] = [bad[n][0] if n in bad else request(f"good-{n}") for n in range(1, 13)]
    lines[3] = ""  # a blank line counts for numbers only
    batch = await reach(official, (await start(official, await upload(official, jsonl(*lines)))).id)
    assert batch.status == "completed"
    answers, errors = await outcome(official, batch)
    assert set(answers) == {"good-1", "good-12"}
    found = {error["error"]["line"]: error["error"] for error in errors}
    assert set(found) == set(bad)
    for number, (_, words) in bad.items():
        assert found[number]["message"].startswith(f"line {number}: ")
        assert words in found[number]["message"]
    assert found[11]["code"] == "duplicate_custom_id"
    assert batch.errors is not None
    assert [problem.line for problem in batch.errors.data or []] == sorted(bad)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"\n \n", "empty_file"),
        (b"nonsense\n", "invalid_line"),
        (jsonl(*[request(str(n)) for n in range(1001)]), "too_many_lines"),
    ],
    ids=["blank", "all bad", "too many"],
)
async def test_nothing_to_run(press: Press, official: openai.AsyncOpenAI, content: bytes, code: str) -> None:
    """A file without a good line, or with too many, fails as a whole and says why."""
    batch = await reach(official, (await start(official, await upload(official, content))).id)
    assert batch.status == "failed"
    assert batch.failed_at
    assert batch.errors is not None
    assert [problem.code for problem in batch.errors.data or []] == [code]


async def test_answers_that_are_errors(press: Press, official: openai.AsyncOpenAI) -> None:
    """What the engine or the policy refuses is in the error file, as a client would have got it."""
    content = jsonl(
        request("engine", script={"status": 422}),
        request("model", model="nope"),
        request("fine"),
    )
    batch = await reach(official, (await start(official, await upload(official, content))).id)
    answers, errors = await outcome(official, batch)
    assert set(answers) == {"fine"}
    by_id = {line["custom_id"]: line["response"] for line in errors}
    assert by_id["engine"]["status_code"] == 422
    assert by_id["engine"]["body"]["error"]["code"] == "scripted"
    assert by_id["model"]["status_code"] == 404
    assert by_id["model"]["body"]["error"]["code"] == "model_not_found"


async def test_an_answer_larger_than_a_message(official: openai.AsyncOpenAI) -> None:
    """An answer that fits no message of the broker comes whole."""
    content = jsonl(request("large", script={"tokens": 3_000, "text": "x" * 1_000}))
    batch = await reach(official, (await start(official, await upload(official, content))).id)
    answers, _ = await outcome(official, batch)
    assert answers["large"]["body"]["choices"][0]["message"]["content"] == "x" * 3_000_000


async def test_privacy_and_entitlement_hold(press: Press, official: openai.AsyncOpenAI) -> None:
    """A line goes nowhere that its key, or the class of its file, does not allow."""
    content = jsonl(request("local"), request("cloud", model="cloud"), request("auto", model="auto"))
    async with press.client("cloud only") as limited:
        batch = await reach(limited, (await start(limited, await upload(limited, content))).id)
        answers, errors = await outcome(limited, batch)
        assert set(answers) == {"cloud", "auto"}
        assert errors[0]["response"]["body"]["error"]["code"] == "not_allowed"
    for upload_class, batch_class in (("restricted", ""), ("", "restricted")):
        of_file = {"x-stream-privacy": upload_class} if upload_class else {}
        of_batch = {"x-stream-privacy": batch_class} if batch_class else {}
        file_id = await upload(official, content, **of_file)
        batch = await reach(official, (await start(official, file_id, **of_batch)).id)
        answers, errors = await outcome(official, batch)
        assert set(answers) == {"local", "auto"}
        assert errors[0]["custom_id"] == "cloud"
        assert errors[0]["response"]["status_code"] == 403


async def test_cancel(press: Press, official: openai.AsyncOpenAI, engine: str) -> None:
    """Running lines are cut off at the engine, waiting ones never begin, finished ones stay in the output."""
    quick = [request(f"quick-{n}") for n in range(3)]
    slow = [request(f"slow-{n}", script={"delay_ms": 60_000}) for n in range(40)]
    made = await start(official, await upload(official, jsonl(*quick, *slow)))
    await reach(
        official, made.id, lambda batch: batch.request_counts is not None and batch.request_counts.completed == 3
    )
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{engine}/requests") as response:
            before = sum(seen["ended"] == "aborted" for seen in await response.json())
        cancelled = await official.batches.cancel(made.id)
        assert cancelled.status in {"cancelling", "cancelled"}
        async with asyncio.timeout(60), session.get(f"{engine}/events?aborted={before + 1}") as response:
            assert response.status == 200
    batch = await reach(official, made.id)
    assert batch.status == "cancelled"
    assert batch.cancelled_at
    answers, errors = await outcome(official, batch)
    assert set(answers) == {f"quick-{n}" for n in range(3)}
    assert {line["error"]["code"] for line in errors} == {"batch_cancelled"}
    assert {line["custom_id"] for line in errors} == {f"slow-{n}" for n in range(40)}
    with pytest.raises(openai.BadRequestError) as twice:
        await official.batches.cancel(made.id)
    assert twice.value.code == "invalid_batch_status"


async def test_expiry(official: openai.AsyncOpenAI) -> None:
    """What has not run within the window is in the error file, as expired; the rest is in the output."""
    lines = [request("quick"), *[request(f"slow-{n}", script={"delay_ms": 60_000}) for n in range(30)]]
    made = await start(official, await upload(official, jsonl(*lines)), window="3s")
    batch = await reach(official, made.id)
    assert batch.status == "expired"
    assert batch.expired_at
    answers, errors = await outcome(official, batch)
    assert set(answers) == {"quick"}
    assert {line["error"]["code"] for line in errors} == {"batch_expired"}


async def test_revoked_key(press: Press) -> None:
    """A batch whose key is revoked stops, and says so to who looks with that key again."""
    async with press.client("doomed") as doomed:
        lines = [request("quick"), *[request(f"slow-{n}", script={"delay_ms": 60_000}) for n in range(10)]]
        made = await start(doomed, await upload(doomed, jsonl(*lines)))
        await reach(
            doomed, made.id, lambda batch: batch.request_counts is not None and batch.request_counts.completed == 1
        )
        records = press.stage.records
        place = next(n for n, record in enumerate(records) if record.name == "doomed")
        kept = records[place]
        records[place] = type(kept)(**{**{f: getattr(kept, f) for f in kept.__struct_fields__}, "revoked": True})
        press.stage.write_keys()
        await eventually(
            lambda: any(
                line["batch"] == made.id and line["status"] == "failed" for line in press.gateway.lines("batch")
            )
        )
        with pytest.raises(openai.AuthenticationError):
            await doomed.batches.retrieve(made.id)
        records[place] = kept
        press.stage.write_keys()
        async with asyncio.timeout(60):
            while True:
                try:
                    batch = await doomed.batches.retrieve(made.id)
                    break
                except openai.AuthenticationError:
                    await asyncio.sleep(0.05)
        assert batch.status == "failed"
        assert batch.errors is not None
        assert [problem.code for problem in batch.errors.data or []] == ["key_revoked"]
        answers, errors = await outcome(doomed, batch)
        assert set(answers) == {"quick"}
        assert {line["error"]["code"] for line in errors} == {"batch_failed"}


async def test_engine_without_room(press: Press, official: openai.AsyncOpenAI) -> None:
    """Lines that an engine has no room for are asked again until it has."""
    stage, tiers = press.stage, press.stage.deployment["tiers"]
    away = {**tiers[0], "base_url": "http://127.0.0.1:9/v1"}
    made = None
    try:
        before = len(press.gateway.lines("deployment read again"))
        stage.deployment = {"tiers": [away, tiers[1]]}
        stage.write_deployment()
        await eventually(lambda: len(press.gateway.lines("deployment read again")) > before)
        made = await start(official, await upload(official, jsonl(*[request(f"r{n}") for n in range(5)])))
        await eventually(
            lambda: any(line["ended"] == "upstream_unavailable" for line in press.gateway.lines("request"))
        )
    finally:
        stage.deployment = {"tiers": tiers}
        stage.write_deployment()
    batch = await reach(official, made.id)
    assert batch.status == "completed"
    answers, errors = await outcome(official, batch)
    assert len(answers) == 5
    assert not errors
