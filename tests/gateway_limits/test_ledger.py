"""The ledger of real gateways: an entry for each request, whatever dies."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from batches.press import jsonl, reach, request, start, upload
from gateway.stage import chat, until
from gateway_limits.bank import Bank, ask
from gateway_limits.books import entries, requests
from gateway_limits.test_lines_of_batches import official

from stream_core.audit.verify import verify

pytestmark = pytest.mark.process


async def all_there(folder: Path, ids: list[str]) -> None:
    """Look until each of these has its entry; after a death that takes until it is noticed."""
    missing = set(ids)
    for _ in range(900):
        if not (missing := set(ids) - {fields.id for fields in requests(folder)}):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"no entry of {missing}")


def id_of(bank: Bank, key: str) -> str:
    """Id of a key by its name."""
    return next(record.id for record in bank.stage.records if record.name == key)


async def test_every_request_has_its_entry(bank: Bank, client: aiohttp.ClientSession) -> None:
    """Answered, refused, streamed or a line of a batch, at any replica: who, where to, what it cost, and no content."""
    key, folder = await bank.key(dollars_per_month=1.0, prompt_tokens=2_000), bank.stage.folder
    first, second = bank.gateways
    secret = [{"role": "user", "content": "secretquestion"}]
    script = {"tokens": 3, "text": "secretanswer"}
    told = [
        await ask(client, first, key, messages=secret, script=script),
        await ask(client, second, key, model="cloud", stream=True, messages=secret, script=script),
        await ask(client, first, key, model="nowhere"),
        await ask(client, first, key, model="gpu"),
        await ask(client, second, key, messages=[{"role": "user", "content": "secretquestion" * 2_000}]),
    ]
    async with official(bank, key) as owner:
        file = await upload(owner, jsonl(request("a", "secretquestion", max_tokens=5, script=script)))
        await reach(owner, (await start(owner, file)).id)
    await until(lambda: len(requests(folder, id_of(bank, key))) == 6)
    found = {fields.id: fields for fields in requests(folder, id_of(bank, key))}
    plain, cloud, nowhere, gpu, large = (found[answer.headers["x-request-id"]] for answer in told)
    (line,) = (fields for fields in found.values() if fields.batch)
    assert (plain.tier, plain.model, plain.status, plain.ended) == ("local", "local-model", 200, "complete")
    assert (plain.prompt_tokens, plain.completion_tokens, plain.counted) == (5, 3, "engine")
    assert plain.privacy == "public"
    assert plain.first_token_ms is not None
    assert (cloud.stream, cloud.nanodollars, cloud.counted) == (True, 8_000_000, "engine")
    assert (nowhere.status, nowhere.ended, nowhere.counted) == (404, "model_not_found", "")
    assert gpu.gpu_ms > 0
    assert (large.status, large.ended) == (413, "request_too_large")
    assert (line.completion_tokens, line.ended) == (3, "complete")
    for text in entries(folder):
        assert "secret" not in text
    assert verify(text.encode() for text in entries(folder)).faults == []


async def test_kill_9_loses_none(tmp_path: Path, engine: str, client: aiohttp.ClientSession) -> None:
    """A gateway is killed with streams under way: each request has an entry, what it could not write is charged."""
    with Bank.running(tmp_path, engine) as bank:
        key = await bank.key()
        first, _ = bank.gateways
        await until(lambda: all(gateway.lines("files and batches are ready") for gateway in bank.gateways))
        seen: list[str] = []
        begun = asyncio.Event()

        async def one(number: int) -> None:
            slow = number % 2
            script: dict[str, Any] = {"tokens": 5_000, "interval_ms": 20} if slow else {"tokens": 3}
            body = chat("cloud", max_tokens=100, script=script)
            headers = first.headers(key)
            with contextlib.suppress(aiohttp.ClientError):
                async with client.post(f"{first.url}/v1/chat/completions", json=body, headers=headers) as answer:
                    assert answer.status == 200
                    await answer.content.readany()
                    seen.append(answer.headers["x-request-id"])
                    if len(seen) == 60:
                        begun.set()
                    await answer.read()

        asking = [asyncio.create_task(one(number)) for number in range(60)]
        await begun.wait()
        first.program.process.kill()
        await asyncio.gather(*asking)
        await all_there(tmp_path, seen)
        kept = requests(tmp_path, id_of(bank, key))
        assert sorted(fields.id for fields in kept) == sorted(seen)
        lost = [fields for fields in kept if fields.ended == "lost"]
        assert len(lost) >= 30, "all that ran"
        assert all(fields.nanodollars > 100_000_000 and fields.counted == "reserve" for fields in lost)
        assert all(fields.nanodollars == 8_000_000 for fields in kept if fields.ended == "complete")
        assert verify(text.encode() for text in entries(tmp_path)).faults == []


async def test_the_broker_and_the_store_are_away(tmp_path: Path, engine: str, client: aiohttp.ClientSession) -> None:
    """What ends while the broker is away is written when it is back, in its order."""
    with Bank.running(tmp_path, engine) as bank:
        key = await bank.key()
        first, _ = bank.gateways
        await until(lambda: bool(first.lines("files and batches are ready")))
        ids = [(await ask(client, first, key)).headers["x-request-id"]]
        bank.broker.kill()
        ids += [(await ask(client, first, key)).headers["x-request-id"] for _ in range(5)]
        bank.broker.start()
        ids += [(await ask(client, first, key)).headers["x-request-id"]]
        await until(lambda: {fields.id for fields in requests(tmp_path)} >= set(ids))
        assert [fields.id for fields in requests(tmp_path)] == ids
        assert verify(text.encode() for text in entries(tmp_path)).faults == []
