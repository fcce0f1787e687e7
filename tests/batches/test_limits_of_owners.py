"""What an owner may store and run: every limit bites, and says its number."""

import asyncio
import json
from collections.abc import Iterator

import aiohttp
import openai
import psutil
import pytest
from batches.press import Press, jsonl, reach, request, start, upload
from gateway.stage import error_of

pytestmark = pytest.mark.process
_MIB = 1024 * 1024


@pytest.fixture(scope="module")
def narrow(tmp_path_factory, engine) -> Iterator[Press]:
    """A gateway with small limits."""
    limits = {
        "max_file_bytes": 60 * _MIB,
        "max_files": 3,
        "max_total_bytes": 100 * _MIB,
        "max_open_batches": 2,
        "max_window_s": 3600,
        "file_ttl_s": 7200,
    }
    with Press.running(tmp_path_factory.mktemp("narrow"), engine, **limits) as running:
        yield running


async def _remove_all(client: openai.AsyncOpenAI) -> None:
    for file in [file async for file in client.files.list()]:
        await client.files.delete(file.id)


async def test_files(narrow: Press) -> None:
    """Too large, too many, too many bytes together: refused with both numbers, and nothing of it is kept."""
    async with narrow.client() as client:
        with pytest.raises(openai.APIStatusError) as large:
            await upload(client, b"x" * (61 * _MIB))
        assert large.value.status_code == 413
        assert "at most 62,914,560" in large.value.message
        for _ in range(3):
            await upload(client, b"x\n")
        with pytest.raises(openai.BadRequestError) as many:
            await upload(client, b"x\n")
        assert many.value.code == "limit_exceeded"
        assert "file 4 of yours, at most 3" in many.value.message
        await _remove_all(client)
        await upload(client, b"x" * (55 * _MIB))
        with pytest.raises(openai.BadRequestError) as heavy:
            await upload(client, b"x" * (55 * _MIB))
        assert "bytes or more together, at most 104,857,600" in heavy.value.message
        await _remove_all(client)
        assert [file.id async for file in client.files.list()] == []


async def test_never_one_too_many(narrow: Press) -> None:
    """Of many uploads at once never more are taken than allowed."""
    async with narrow.client("other") as client:
        made = await asyncio.gather(*[upload(client, b"x\n") for _ in range(12)], return_exceptions=True)
        kept = [file.id async for file in client.files.list()]
        assert len(kept) <= 3
        assert sorted(kept) == sorted(id_ for id_ in made if isinstance(id_, str))


async def test_open_batches(narrow: Press) -> None:
    """One batch too many is told to come later; a batch that has ended makes room."""
    async with narrow.client() as client:
        file_id = await upload(client, jsonl(request("slow", script={"delay_ms": 60_000})))
        made = [await start(client, file_id, "1h") for _ in range(2)]
        with pytest.raises(openai.RateLimitError) as refused:
            await start(client, file_id, "1h")
        assert "open batch 3 of yours, at most 2" in refused.value.message
        with pytest.raises(openai.BadRequestError) as used:
            await client.files.delete(file_id)
        assert used.value.code == "file_in_use"
        for batch in made:
            await client.batches.cancel(batch.id)
            await reach(client, batch.id)
        last = await start(client, file_id, "1h")
        await client.batches.cancel(last.id)
        await reach(client, last.id)
        await _remove_all(client)


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"completion_window": "2h"}, "completion_window", "7,200 seconds, at most 3,600"),
        ({"completion_window": "soon"}, "completion_window", "is not like 24h"),
        ({"endpoint": "/v1/embeddings"}, "endpoint", "is not one of /v1/chat/completions"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata", "17 pairs, at most 16"),
        ({"metadata": {"k": "x" * 513}}, "metadata", "513 characters, at most 64 and 512"),
        ({"completion_window": None}, "completion_window", "string"),
        ({"surprise": 1}, "surprise", "not permitted"),
    ],
)
async def test_fields(narrow: Press, change: dict[str, object], param: str, words: str) -> None:
    """A wrong field is named, with its limit."""
    async with narrow.client() as client, aiohttp.ClientSession(headers=narrow.gateway.headers()) as session:
        file_id = await upload(client, jsonl(request("a")))
        wish = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "1h", **change}
        async with session.post(f"{narrow.gateway.url}/v1/batches", json=wish) as response:
            assert response.status == 400
            error = error_of(await response.read())
        assert error["param"] == param
        assert words in error["message"]
        await client.files.delete(file_id)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"file": b"x", "purpose": "assistants"}, "purpose"),
        ({"file": b"x"}, "purpose"),
        ({"purpose": "batch"}, "file"),
        ({"file": b"", "purpose": "batch"}, "file"),
        ({"file": b"x", "purpose": "batch", "expires_after[anchor]": "created_at"}, "expires_after"),
        ({"file": b"x", "purpose": "x" * 5000}, "purpose"),
    ],
)
async def test_forms(narrow: Press, fields: dict[str, str | bytes], param: str) -> None:
    """A form that lacks something or says something wrong is refused, and nothing of it is kept."""
    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in fields.items():
        form.add_field(name, value, **({"filename": "f"} if name == "file" else {}))
    async with aiohttp.ClientSession(headers=narrow.gateway.headers()) as session:
        async with session.post(f"{narrow.gateway.url}/v1/files", data=form) as response:
            assert response.status == 400
            assert error_of(await response.read())["param"] == param
        async with session.get(f"{narrow.gateway.url}/v1/files") as response:
            assert json.loads(await response.read())["data"] == []


async def test_upload_in_bounded_memory(narrow: Press) -> None:
    """50 MB go through a gateway that never has half of it in memory, there and back."""
    content = jsonl(*[request(f"r{n}", "x" * 50_000) for n in range(1_000)])
    process = psutil.Process(narrow.gateway.program.process.pid)
    async with narrow.client() as client:
        await client.files.delete(await upload(client, jsonl(request("warm"))))
        before, most, watching = process.memory_info().rss, 0, True

        async def watch() -> None:
            nonlocal most
            while watching:
                most = max(most, process.memory_info().rss)
                await asyncio.sleep(0.02)

        watcher = asyncio.create_task(watch())
        file_id = await upload(client, content)
        assert (await client.files.content(file_id)).content == content
        watching = False
        await watcher
        await client.files.delete(file_id)
    grown = most - before
    print(f"grown by {grown / _MIB:.1f} MiB")  # noqa: T201
    assert grown < 25 * _MIB
