"""What the engine answers over HTTP, with the real llama.cpp and the demo model."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from stream_core.testing.programs import Program, start

from .conftest import Chat

pytestmark = pytest.mark.process

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


async def events(response: aiohttp.ClientResponse) -> list[str]:
    """Return the data of every SSE event."""
    return [line[6:].decode().strip() async for line in response.content if line.startswith(b"data: ")]


async def test_ready_file_and_probes_tell_what_is_served(engine: Program, http: aiohttp.ClientSession) -> None:
    """The ready file names model, ports and window, and both probes answer 200 on the port that it names."""
    ready = engine.ready
    assert ready["model"] == "stream-demo"
    assert (ready["demo"], ready["source"]) == (True, "demo")
    assert (ready["context"], ready["parallel"]) == (8192, 4)
    assert {"chat", "stream", "usage", "logprobs", "json_schema", "seed", "tools"} <= set(ready["capabilities"])
    for probe in ("livez", "readyz"):
        async with http.get(f"http://127.0.0.1:{ready['health_port']}/{probe}") as response:
            assert response.status == 200
    async with http.get(f"{ready['base_url']}/models") as response:
        assert [model["id"] for model in (await response.json())["data"]] == ["stream-demo"]


async def test_answer_is_english_and_ends_by_itself(chat: Chat) -> None:
    """The demo model answers a question in words and stops with `finish_reason: stop`."""
    answer = await chat("What is the capital of France?", max_tokens=200, temperature=0)
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "stop"
    assert "Paris" in choice["message"]["content"]
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]


async def test_stream_carries_the_same_text_usage_and_done(
    engine: Program, http: aiohttp.ClientSession, chat: Chat
) -> None:
    """A streamed answer is the unstreamed one in pieces, then a usage chunk without choices, then `[DONE]`."""
    fields: dict[str, Any] = {"temperature": 0, "max_tokens": 24}
    whole = await chat("How can I save money?", **fields)
    body = {
        "messages": [{"role": "user", "content": "How can I save money?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        **fields,
    }
    async with http.post(f"{engine.ready['base_url']}/chat/completions", json=body) as response:
        assert response.content_type == "text/event-stream"
        found = await events(response)
    assert found[-1] == "[DONE]"
    *chunks, usage = [json.loads(data) for data in found[:-1]]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert text == whole["choices"][0]["message"]["content"]
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]


async def test_logprobs_are_given_for_every_token(chat: Chat) -> None:
    """`logprobs` gives one entry per generated token, with as many alternatives as asked for, likeliest first."""
    answer = await chat("Hello!", logprobs=True, top_logprobs=3, max_tokens=5, ignore_eos=True)
    entries = answer["choices"][0]["logprobs"]["content"]
    assert len(entries) == answer["usage"]["completion_tokens"] == 5
    for entry in entries:
        likely = [alternative["logprob"] for alternative in entry["top_logprobs"]]
        assert len(likely) == 3
        assert likely == sorted(likely, reverse=True)
        assert entry["logprob"] <= 0


async def test_json_schema_binds_the_answer(chat: Chat) -> None:
    """`response_format: json_schema` makes even the demo model answer with JSON of that schema."""
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}, "w": {"enum": ["a", "b"]}},
        "required": ["n", "w"],
        "additionalProperties": False,
    }
    shape = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    answer = await chat("Give me a number.", response_format=shape, max_tokens=200)
    value = json.loads(answer["choices"][0]["message"]["content"])
    assert set(value) == {"n", "w"}
    assert 0 <= value["n"] <= 99
    assert value["w"] in {"a", "b"}


async def test_seed_decides_the_answer(chat: Chat) -> None:
    """At a high temperature the same seed gives the same text, and other seeds give others."""
    fields: dict[str, Any] = {"temperature": 1.5, "max_tokens": 24, "ignore_eos": True}
    texts = [(await chat("Tell me a story.", seed=s, **fields))["choices"][0]["message"]["content"] for s in (5, 5, 6)]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


async def test_required_tool_call_has_the_form_of_its_definition(chat: Chat) -> None:
    """With `tool_choice: required` the answer is a call of the given function with arguments of its schema."""
    question = "What is the weather in Paris?"
    answer = await chat(question, tools=[WEATHER], tool_choice="required", temperature=0, max_tokens=200)
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert isinstance(json.loads(call["function"]["arguments"])["city"], str)


async def test_tool_result_is_accepted_as_a_turn(chat: Chat) -> None:
    """A conversation with a call and its result goes through the template and is answered in words."""
    call = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    messages = [
        {"role": "user", "content": "What is the weather in Paris?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
    ]
    answer = await chat(messages, tools=[WEATHER], temperature=0, max_tokens=40)
    assert answer["choices"][0]["message"]["content"]


async def test_last_assistant_message_is_continued(chat: Chat) -> None:
    """A final assistant message is taken up: the answer repeats it, goes on, and counts it as prompt."""
    question = {"role": "user", "content": "What is the capital of France?"}
    given = "The capital of"
    whole = await chat([question], temperature=0, max_tokens=60)
    answer = await chat([question, {"role": "assistant", "content": given}], temperature=0, max_tokens=60)
    assert whole["choices"][0]["message"]["content"].startswith(given)
    assert answer["choices"][0]["message"] == whole["choices"][0]["message"]
    assert answer["usage"]["prompt_tokens"] > whole["usage"]["prompt_tokens"]


async def test_too_long_a_prompt_is_refused_with_both_numbers(engine: Program, http: aiohttp.ClientSession) -> None:
    """A prompt beyond the window is a 400 that prints its tokens and the window."""
    body = {"messages": [{"role": "user", "content": "word " * 12_000}], "max_tokens": 1}
    async with http.post(f"{engine.ready['base_url']}/chat/completions", json=body) as response:
        assert response.status == 400
        error = (await response.json())["error"]
    assert error["type"] == "exceed_context_size_error"
    assert error["n_ctx"] == 8192 < error["n_prompt_tokens"]


async def test_running_prompts_cannot_be_listed(engine: Program, http: aiohttp.ClientSession) -> None:
    """llama.cpp's `/slots`, which shows prompts, is off."""
    async with http.get(engine.ready["base_url"].removesuffix("/v1") + "/slots") as response:
        assert response.status == 501


async def test_prompts_stay_out_of_the_log(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """Even at log level DEBUG neither a prompt nor an answer appears in the log, however bad the request."""
    env = {"STREAM_ENGINE__MODEL": "demo", "STREAM_ENGINE__LOG_LEVEL": "DEBUG", "STREAM_HOME": str(tmp_path)}
    secret = "Xylophon"
    good = {"messages": [{"role": "user", "content": f"Repeat {secret}."}], "max_tokens": 20}
    schema = {"type": "object", "properties": {secret: {"type": "string", "pattern": "^(" + secret}}}
    bad: list[dict[str, Any]] = [
        {"messages": secret},
        {**good, "tools": secret},
        {**good, "grammar": f"root ::= {secret}"},
        {**good, "response_format": {"type": "json_schema", "json_schema": {"name": secret, "schema": schema}}},
        {**good, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": secret}}]}]},
        {**good, "temperature": secret},
    ]
    with start("stream_engine", env=env) as program:
        url = f"{program.ready['base_url']}/chat/completions"
        async with http.post(url, json=good) as response:
            answer = (await response.json())["choices"][0]["message"]["content"]
        bodies = [*map(json.dumps, bad), f'{{"messages": ["{secret}']
        statuses = []
        for body in bodies:
            async with http.post(url, data=body, headers={"Content-Type": "application/json"}) as response:
                statuses.append(response.status)
        log = program.log()
    assert sum(status >= 400 for status in statuses) >= len(bad)
    assert "serving" in log
    assert secret not in log
    assert answer not in log


async def test_key_is_demanded(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """With a key file, a wrong key and no key get 401, the right one gets an answer; the key stays out of the log."""
    key_file = tmp_path / "key"
    key_file.write_text("right-key\n")
    env = {"STREAM_ENGINE__MODEL": "demo", "STREAM_ENGINE__API_KEY_FILE": str(key_file)}
    body = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 1}
    with start("stream_engine", env=env) as program:
        statuses = []
        for key in ("Bearer right-key", "Bearer wrong-key", ""):
            headers = {"Authorization": key} if key else {}
            url = f"{program.ready['base_url']}/chat/completions"
            async with http.post(url, json=body, headers=headers) as response:
                statuses.append(response.status)
        log = program.log()
    assert statuses == [200, 401, 401]
    assert "right-key" not in log
