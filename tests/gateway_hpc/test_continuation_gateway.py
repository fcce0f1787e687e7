"""The whole road with two workers: the official client does not notice that a worker was killed in mid-answer."""

import asyncio
from collections.abc import Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from stream_core.testing.road import Road, run_road, wait_hot

pytestmark = pytest.mark.process

TOKENS = 60


@pytest.fixture(scope="module")
def road(tmp_path_factory) -> Iterator[Road]:
    """Broker, relay, dispatch, two workers, scripted engine and gateway."""
    with run_road(tmp_path_factory.mktemp("road"), workers=2) as running:
        asyncio.run(wait_hot(running, workers=2))
        yield running


async def test_official_client_reads_one_stream(road):
    """Two streams, a worker each; one worker is killed: both texts and usages are whole, and one stream says why."""
    script = {"continue": "llama", "tokens": TOKENS, "text": " w{n}", "interval_ms": 30}
    (killed, _) = road.workers()
    both_run = asyncio.Barrier(2)

    async def ask(client: openai.AsyncOpenAI) -> list[ChatCompletionChunk]:
        chunks = []
        stream = await client.chat.completions.create(
            model="hpc",
            messages=[{"role": "user", "content": "count"}],
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"script": script},
        )
        async for chunk in stream:
            chunks.append(chunk)
            if len(chunks) == 8 and await both_run.wait() == 0:  # one of them
                killed.kill()
        return chunks

    marks = []
    async with openai.AsyncOpenAI(base_url=f"{road.gateway_url}/v1", api_key=road.api_key, max_retries=0) as client:
        for chunks in await asyncio.gather(ask(client), ask(client)):
            choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
            assert "".join(choice.delta.content or "" for choice in choices) == "".join(f" w{n}" for n in range(TOKENS))
            assert choices[-1].finish_reason == "stop"
            usage = chunks[-1].usage
            assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (5, TOKENS, 5 + TOKENS)
            assert len({chunk.id for chunk in chunks}) == 1
            marks.append([(chunk.model_extra or {}).get("stream") for chunk in chunks[-2:]])
    assert sorted(marks, key=str) == [[None] * 2, [{"continued": 1}] * 2]
