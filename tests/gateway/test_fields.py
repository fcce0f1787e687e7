"""Every field of a chat request: it reaches the engine, takes effect there, or is refused by its name."""

import base64
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
from gateway.stage import Gateway, Stage, tier

from stream_core.testing import programs

pytestmark = pytest.mark.process
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
VISION = ["text", "image"]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Gateway]:
    """The embedded engine; beside it a plain model, one that sees, one that hears, and one that does it all."""
    empty = str(tmp_path_factory.mktemp("nothing"))
    env = {"STREAM_ENGINE__MODEL": "demo", "STREAM_MODELS_DIR": empty, "HF_HUB_CACHE": empty}
    with programs.start("stream_engine", env=env) as real:
        url = str(real.ready["base_url"]).removesuffix("/v1")
        everything = ["functions", "prediction", "web_search", "store", "service_tier", "audio_output", "part:file"]
        stage = Stage(
            tmp_path_factory.mktemp("house"),
            {
                "tiers": [
                    tier("demo", url, models=[{"id": "demo", "upstream": "stream-demo"}]),
                    tier("plain", engine, models=[{"id": "plain", "upstream": "scripted", "capabilities": []}]),
                    tier(
                        "seeing",
                        engine,
                        models=[{"id": "eye", "upstream": "scripted", "modalities": VISION, "context_window": 32_768}],
                    ),
                    tier(
                        "hearing",
                        engine,
                        models=[{"id": "ear", "upstream": "scripted", "modalities": ["text", "audio"]}],
                    ),
                    tier("rich", engine, models=[{"id": "rich", "upstream": "scripted", "capabilities": everything}]),
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


async def test_fields_take_effect(official: openai.AsyncOpenAI) -> None:
    """The embedded engine gives two choices, log-probabilities, the same text for the same seed, and stops in time."""
    ask: dict[str, Any] = {"model": "demo", "messages": HELLO, "max_tokens": 12, "seed": 7, "temperature": 1.0}
    two = await official.chat.completions.create(**ask, n=2, logprobs=True, top_logprobs=3)
    assert len(two.choices) == 2
    assert two.choices[0].logprobs is not None
    assert len((two.choices[0].logprobs.content or [])[0].top_logprobs) == 3
    first, second = [await official.chat.completions.create(**ask) for _ in range(2)]
    text = first.choices[0].message.content or ""
    assert text == second.choices[0].message.content
    stopped = await official.chat.completions.create(**ask, stop=[text[4:6]])
    assert (stopped.choices[0].message.content or "") == text[: text.index(text[4:6])]


async def test_structure_binds_the_answer(official: openai.AsyncOpenAI) -> None:
    """A JSON schema is kept to, and a tool can be demanded; both by a real engine."""
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    answer = await official.chat.completions.create(
        model="demo", messages=HELLO, response_format=form, max_tokens=40, temperature=0
    )
    assert (answer.choices[0].message.content or "").replace(" ", "") in {'{"a":true}', '{"a":false}'}
    tools: Any = [WEATHER]
    called = await official.chat.completions.create(
        model="demo", messages=HELLO, tools=tools, tool_choice="required", max_tokens=120, temperature=0
    )
    calls = called.choices[0].message.tool_calls or []
    assert [call.function.name for call in calls if call.type == "function"] == ["weather"]


async def test_the_other_dialects_mean_the_same(house: Gateway, official: openai.AsyncOpenAI) -> None:
    """Limits, forms and forced tools of Responses and of Messages take effect at the embedded engine, too."""
    short = await official.responses.create(model="demo", input="Tell me a long story.", max_output_tokens=5)
    assert short.usage is not None
    assert (short.status, short.usage.output_tokens) == ("incomplete", 5)
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    form: Any = {"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True}}
    bound = await official.responses.create(model="demo", input="hello", text=form, max_output_tokens=40, temperature=0)
    assert bound.output_text.replace(" ", "") in {'{"a":true}', '{"a":false}'}
    key = house.stage.keys["all"]
    async with anthropic.AsyncAnthropic(base_url=house.url, api_key=key, max_retries=0) as client:
        tool: Any = {"name": "weather", "input_schema": WEATHER["function"]["parameters"]}
        async with client.messages.stream(
            model="demo",
            max_tokens=120,
            messages=HELLO,
            tools=[tool],
            tool_choice={"type": "any"},
            extra_body={"temperature": 0},
        ) as stream:
            message = await stream.get_final_message()
    assert [block.name for block in message.content if block.type == "tool_use"] == ["weather"]
    assert (message.stop_reason, message.usage.input_tokens > 0) == ("tool_use", True)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("plain", {"tools": [WEATHER]}, "tools"),
    ("plain", {"logprobs": True}, "logprobs"),
    ("plain", {"response_format": {"type": "json_object"}}, "response_format"),
    ("seeing", {"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
    ("seeing", {"store": True}, "store"),
    ("seeing", {"service_tier": "flex"}, "service_tier"),
    ("seeing", {"functions": [{"name": "f"}]}, "functions"),
    ("seeing", {"prediction": {"type": "content", "content": "x"}}, "prediction"),
    ("seeing", {"web_search_options": {"search_context_size": "low"}}, "web_search_options"),
    ("seeing", {"modalities": ["text", "audio"], "audio": {"voice": "a", "format": "wav"}}, "modalities"),
    (
        "seeing",
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]},
        "messages[0].content[0].type",
    ),
]


@pytest.mark.parametrize(("model", "fields", "param"), REFUSED)
async def test_what_a_model_lacks_is_refused_by_name(
    official: openai.AsyncOpenAI, model: str, fields: dict[str, Any], param: str
) -> None:
    """A field that the named model can't honour is 400 with `code` and `param`; nothing is dropped in silence."""
    with pytest.raises(openai.BadRequestError) as caught:
        await official.chat.completions.create(**{"model": model, "messages": HELLO, **fields})
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", param)


async def test_auto_goes_where_a_field_is_honoured(official: openai.AsyncOpenAI) -> None:
    """`auto` leaves out every model that lacks what is asked for: store, and audio, have one tier each."""
    stored = await official.chat.completions.with_raw_response.create(model="auto", messages=HELLO, store=True)
    assert stored.headers["x-stream-tier"] == "rich"
    clip: Any = {"type": "input_audio", "input_audio": {"data": base64.b64encode(b"RIFF").decode(), "format": "wav"}}
    heard = await official.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": [clip]}]
    )
    assert heard.headers["x-stream-tier"] == "hearing"
    with pytest.raises(openai.BadRequestError) as caught:
        await official.chat.completions.create(model="plain", messages=[{"role": "user", "content": [clip]}])
    assert (caught.value.code, caught.value.param) == ("invalid_request_error", "messages")


async def test_wishes_pass_on(official: openai.AsyncOpenAI, engine: str, client: aiohttp.ClientSession) -> None:
    """Wishes demand nothing and reach the engine; one that it may not know of is told in the reason."""
    wishes: dict[str, Any] = {
        "reasoning_effort": "high",
        "verbosity": "low",
        "parallel_tool_calls": False,
        "tools": [WEATHER],
        "user": "u-1",
        "safety_identifier": "s-1",
        "prompt_cache_key": "k-1",
        "metadata": {"project": "p"},
        "service_tier": "auto",
        "store": False,
        "logit_bias": {"17": -100},
    }
    raw = await official.chat.completions.with_raw_response.create(model="seeing", messages=HELLO, **wishes)
    assert "reasoning_effort passed on" in raw.headers["x-stream-reason"]
    async with client.get(f"{engine}/requests") as response:
        last = (await response.json())[-1]["body"]
    assert last.items() >= wishes.items()


async def test_reasoning_comes_through(official: openai.AsyncOpenAI) -> None:
    """What an engine says in `reasoning_content` arrives, streamed and whole."""
    events = ['{"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}', "[DONE]"]
    stream: Any = await official.chat.completions.create(
        model="seeing", messages=HELLO, stream=True, extra_body={"script": {"events": events}}
    )
    assert [chunk.choices[0].delta.reasoning_content async for chunk in stream] == ["hm"]
    body = '{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"a","reasoning_content":"hm"}}]}'
    whole: Any = await official.chat.completions.create(
        model="seeing", messages=HELLO, extra_body={"script": {"body": body}}
    )
    assert whole.choices[0].message.reasoning_content == "hm"


async def test_twenty_megabytes_of_images(
    official: openai.AsyncOpenAI, engine: str, client: aiohttp.ClientSession
) -> None:
    """Four images of 5 MB arrive whole."""
    url = "data:image/png;base64," + base64.b64encode(bytes(5_000_000)).decode()
    parts: Any = [{"type": "image_url", "image_url": {"url": url}}] * 4
    answer = await official.chat.completions.create(
        model="seeing", messages=[{"role": "user", "content": parts}], extra_body={"script": {"tokens": 1}}
    )
    assert answer.choices[0].message.content == " token"
    async with client.get(f"{engine}/largest") as response:
        assert (await response.json())["bytes"] > 26_000_000
