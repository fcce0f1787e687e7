"""The official client: files and batches from upload to results, without a special word."""

import openai
import pytest
from batches.press import Press, jsonl, lines_of, reach, request, start, upload

pytestmark = pytest.mark.process


async def test_from_upload_to_results(official: openai.AsyncOpenAI) -> None:
    """Each line's answer is the engine's own, under its custom_id; counts, times and ids are all there."""
    content = jsonl(*[request(f"r{n}", script={"tokens": n}) for n in range(1, 21)])
    file_id = await upload(official, content)
    made = await start(official, file_id)
    assert made.object == "batch"
    assert made.input_file_id == file_id
    batch = await reach(official, made.id)
    assert batch.status == "completed", batch
    assert batch.request_counts is not None
    assert batch.request_counts.model_dump() == {"total": 20, "completed": 20, "failed": 0}
    assert batch.error_file_id is None
    assert batch.created_at <= (batch.in_progress_at or 0) <= (batch.finalizing_at or 0) <= (batch.completed_at or 0)
    results = {line["custom_id"]: line for line in await lines_of(official, batch.output_file_id)}
    assert len(results) == 20
    for n in range(1, 21):
        response = results[f"r{n}"]["response"]
        assert response["status_code"] == 200
        assert response["body"]["choices"][0]["message"]["content"] == " token" * n
        assert results[f"r{n}"]["error"] is None


async def test_files(official: openai.AsyncOpenAI) -> None:
    """A file comes back byte for byte, is listed, and is gone when it is deleted."""
    content = jsonl(*[request(f"r{n}", "x" * 40_000) for n in range(20)])  # several chunks
    made = await official.files.create(file=("my requests.jsonl", content), purpose="batch")
    assert (made.bytes, made.filename, made.purpose, made.status) == (
        len(content),
        "my requests.jsonl",
        "batch",
        "processed",
    )
    assert (await official.files.retrieve(made.id)) == made
    assert (await official.files.content(made.id)).content == content
    assert made.id in [file.id async for file in official.files.list(limit=1)]
    assert made.id not in [file.id async for file in official.files.list(purpose="batch_output")]
    deleted = await official.files.delete(made.id)
    assert deleted.deleted
    with pytest.raises(openai.NotFoundError) as gone:
        await official.files.retrieve(made.id)
    assert gone.value.code == "file_not_found"


async def test_list_and_metadata(official: openai.AsyncOpenAI) -> None:
    """Batches are listed the newest first, page by page, with what their owner wrote on them."""
    file_id = await upload(official, jsonl(request("a")))
    made = []
    for n in range(3):
        batch = await official.batches.create(
            input_file_id=file_id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"number": str(n)},
        )
        made.append(batch.id)
    listed = [batch async for batch in official.batches.list(limit=2)]
    assert [batch.id for batch in listed][:3] == made[::-1]
    assert (listed[0].metadata or {})["number"] == "2"
    for id_ in made:
        assert (await reach(official, id_)).status == "completed"


async def test_only_the_owner(press: Press, official: openai.AsyncOpenAI) -> None:
    """Another key finds neither file nor batch, whatever it tries, and lists none of them."""
    file_id = await upload(official, jsonl(request("a")))
    batch = await start(official, file_id)
    async with press.client("other") as other:
        for attempt in (
            other.files.retrieve(file_id),
            other.files.content(file_id),
            other.files.delete(file_id),
            other.batches.retrieve(batch.id),
            other.batches.cancel(batch.id),
            start(other, file_id),
            other.files.retrieve("file-../../etc/passwd"),
        ):
            with pytest.raises(openai.NotFoundError):
                await attempt
        assert [file.id async for file in other.files.list()] == []
        assert [each.id async for each in other.batches.list()] == []
    assert (await reach(official, batch.id)).status == "completed"
