"""The official client: what it makes of our answers, and of our errors."""

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from gateway.stage import Gateway

pytestmark = pytest.mark.process
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
async def official(gateway: Gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    """The client, which does not try again by itself."""
    key = gateway.stage.keys["all"]
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
        yield client


async def test_answers(official: openai.AsyncOpenAI) -> None:
    """Streamed with usage, whole, and the list of models: read without a special word."""
    whole = await official.chat.completions.create(model="local", **ASK, extra_body={"script": {"tokens": 2}})
    assert whole.choices[0].message.content == " token token"
    stream = await official.chat.completions.create(
        model="auto", **ASK, stream=True, stream_options={"include_usage": True}, extra_body={"script": {"tokens": 3}}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == " token" * 3
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    assert "auto" in [model.id async for model in official.models.list()]


async def test_a_broken_stream_raises(official: openai.AsyncOpenAI) -> None:
    """A stream that breaks in the middle is an exception in the client, not a short answer."""
    stream = await official.chat.completions.create(
        model="local", **ASK, stream=True, extra_body={"script": {"tokens": 9, "cut": 3, "interval_ms": 5}}
    )
    with pytest.raises(openai.APIError) as caught:
        [chunk async for chunk in stream]
    assert caught.value.code == "stream_broken"


async def test_errors_have_their_classes(official: openai.AsyncOpenAI) -> None:
    """401, 404 and 400 become the client's own exceptions, with code, field and request id."""
    with pytest.raises(openai.AuthenticationError) as refused:
        await official.with_options(api_key="sk-wrong").chat.completions.create(model="auto", **ASK)
    assert refused.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError) as unknown:
        await official.chat.completions.create(model="nope", **ASK)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    assert len(unknown.value.request_id or "") == 32
    with pytest.raises(openai.BadRequestError) as bad:
        await official.chat.completions.create(model="auto", messages=[{"role": "wizard", "content": "x"}])  # type: ignore[typeddict-item]
    assert bad.value.param == "messages[0].role"
