"""Every API on the sealed road: they are one pipeline, so a lost worker is as little noticed in one as in the other."""

import asyncio
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from stream_core.testing.road import Road, run_road, wait_hot

pytestmark = pytest.mark.process

TOKENS = 40


@pytest.fixture(scope="module")
def road(tmp_path_factory) -> Iterator[Road]:
    """Broker, relay, dispatch, two workers, scripted engine and gateway."""
    with run_road(tmp_path_factory.mktemp("road"), workers=2) as running:
        asyncio.run(wait_hot(running, workers=2))
        yield running


async def test_completions_and_responses(road):
    """Another path of the engine's API, and another dialect, arrive through relay and broker."""
    script = {"script": {"tokens": 3}}
    async with openai.AsyncOpenAI(base_url=f"{road.gateway_url}/v1", api_key=road.api_key, max_retries=0) as client:
        stream = await client.completions.create(model="hpc", prompt="once", stream=True, extra_body=script)
        assert "".join([chunk.choices[0].text async for chunk in stream]) == " token" * 3
        whole = await client.completions.create(model="hpc", prompt="once", extra_body=script)
        assert whole.choices[0].text == " token" * 3
        made = await client.responses.create(model="hpc", input="hello", store=False, extra_body=script)
        assert made.output_text == " token" * 3


async def test_a_message_outlives_its_worker(road):
    """A worker is killed in the middle of a streamed message: text, usage and reason are whole."""
    script: dict[str, Any] = {"continue": "llama", "tokens": TOKENS, "text": " w{n}", "interval_ms": 30}
    (killed, _) = road.workers()
    both_run = asyncio.Barrier(2)

    async def ask(client: anthropic.AsyncAnthropic) -> anthropic.types.Message:
        async with client.messages.stream(
            model="hpc",
            max_tokens=500,
            messages=[{"role": "user", "content": "count"}],
            extra_body={"script": script},
        ) as stream:
            seen = 0
            async for _ in stream.text_stream:
                seen += 1
                if seen == 8 and await both_run.wait() == 0:  # one of them
                    killed.kill()
            return await stream.get_final_message()

    async with anthropic.AsyncAnthropic(base_url=road.gateway_url, api_key=road.api_key, max_retries=0) as client:
        for message in await asyncio.gather(ask(client), ask(client)):
            assert [block.text for block in message.content] == ["".join(f" w{n}" for n in range(TOKENS))]
            assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", TOKENS)
