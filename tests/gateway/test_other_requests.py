"""Completions, embeddings, moderations and counts of tokens, through the official client, and where they go."""

from collections.abc import AsyncIterator, Iterator

import aiohttp
import openai
import pytest
from gateway.stage import Gateway, Stage, tier

from stream_core.testing import programs

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Gateway]:
    """The embedded engine, one that chats and counts, one for vectors, and one for verdicts."""
    empty = str(tmp_path_factory.mktemp("nothing"))
    env = {"STREAM_ENGINE__MODEL": "demo", "STREAM_MODELS_DIR": empty, "HF_HUB_CACHE": empty}

    def model(name: str, *capabilities: str) -> list[dict[str, object]]:
        return [{"id": name, "upstream": "scripted", "capabilities": list(capabilities)}]

    with programs.start("stream_engine", env=env) as real:
        url = str(real.ready["base_url"]).removesuffix("/v1")
        stage = Stage(
            tmp_path_factory.mktemp("house"),
            {
                "tiers": [
                    tier("vectors", engine, models=model("vectors", "embeddings")),
                    tier("verdicts", engine, models=model("judge", "moderations"), privacy="public"),
                    tier("chatty", engine, models=model("chatty", "tokenize", "tokenize_chat")),
                    tier(
                        "demo",
                        url,
                        models=[{"id": "demo", "upstream": "stream-demo", "capabilities": ["tokenize", "logprobs"]}],
                    ),
                ]
            },
        )
        with stage.run() as running:
            yield running


@pytest.fixture
async def official(house: Gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    """The client, which does not try again by itself."""
    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=house.stage.keys["all"], max_retries=0) as client:
        yield client


async def test_completions(official: openai.AsyncOpenAI) -> None:
    """Whole and streamed, by a scripted engine and by the embedded one; `auto` finds a model that chats."""
    whole = await official.completions.with_raw_response.create(
        model="auto", prompt="once", extra_body={"script": {"tokens": 2}}
    )
    assert whole.headers["x-stream-tier"] == "chatty"
    assert whole.parse().choices[0].text == " token token"
    stream = await official.completions.create(
        model="chatty",
        prompt="once",
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"script": {"tokens": 3}},
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == " token" * 3
    assert chunks[-1].usage is not None
    real = await official.completions.create(model="demo", prompt="Hello", max_tokens=5, logprobs=2)
    assert real.choices[0].text
    assert real.choices[0].logprobs is not None


async def test_embeddings(official: openai.AsyncOpenAI) -> None:
    """`auto` goes to the one model that makes vectors; a chat model that is named is 404, and so is chat with it."""
    raw = await official.embeddings.with_raw_response.create(model="auto", input=["a", "b", "a"])
    vectors = [item.embedding for item in raw.parse().data]
    assert raw.headers["x-stream-tier"] == "vectors"
    assert vectors[0] == vectors[2] != vectors[1]
    with pytest.raises(openai.NotFoundError) as caught:
        await official.embeddings.create(model="chatty", input="a")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        await official.chat.completions.create(model="vectors", messages=[{"role": "user", "content": "a"}])
    with pytest.raises(openai.BadRequestError) as refused:
        await official.embeddings.create(model="auto", input="a", dimensions=4)
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "dimensions")


async def test_moderations(official: openai.AsyncOpenAI, house: Gateway, client: aiohttp.ClientSession) -> None:
    """Passed to the tier that offers it, if that tier may see the text."""
    verdict = await official.moderations.create(input="hello")
    assert not verdict.results[0].flagged
    headers = {**house.headers(), "x-stream-privacy": "internal"}
    async with client.post(f"{house.url}/v1/moderations", json={"input": "a"}, headers=headers) as response:
        assert response.status == 404


async def test_tokens(house: Gateway, client: aiohttp.ClientSession) -> None:
    """Counted by the named model's own engine: llama.cpp's answer gets its count; messages only where they can be."""

    async def ask(**body: object) -> tuple[int, dict[str, object]]:
        async with client.post(f"{house.url}/v1/tokenize", json=body, headers=house.headers()) as response:
            return response.status, await response.json()

    status, answer = await ask(model="demo", prompt="Hello, world")
    assert status == 200
    assert isinstance(answer["tokens"], list)
    assert answer["count"] == len(answer["tokens"]) > 1
    assert (await ask(model="chatty", messages=[{"role": "user", "content": "a"}]))[0] == 200
    status, answer = await ask(model="demo", messages=[{"role": "user", "content": "a"}])
    assert (status, answer["error"]["code"]) == (400, "unsupported_parameter")  # type: ignore[index]


async def test_a_model_by_its_id(official: openai.AsyncOpenAI) -> None:
    """`GET /v1/models/{id}` finds one, with slashes too, and by a bare name as requests do; another one is 404."""
    assert (await official.models.retrieve("demo/demo")).id == "demo/demo"
    assert (await official.models.retrieve("judge")).stream["tier"] == "verdicts"  # type: ignore[attr-defined]  # ours, beside OpenAI's fields
    with pytest.raises(openai.NotFoundError) as caught:
        await official.models.retrieve("nope")
    assert caught.value.code == "model_not_found"
