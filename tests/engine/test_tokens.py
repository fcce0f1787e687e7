"""Exact token counts: the demo model's tokenizer files say what the running engine counts."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

import stream_engine
from stream_core.testing.programs import Program

from .conftest import Chat
from .test_api import WEATHER

pytestmark = pytest.mark.process

DEMO = Path(stream_engine.__file__).parent / "demo"
CALL = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Zürich"}'}}


def user(content: Any) -> dict[str, Any]:
    """Return a user message."""
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, Any]:
    """Return an assistant message."""
    return {"role": "assistant", "content": content}


def render(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
    """Render the chat template of `tokenizer_config.json` as a client of the tokenizer would."""
    config = json.loads((DEMO / "tokenizer_config.json").read_text(encoding="utf-8"))
    environment = ImmutableSandboxedEnvironment()
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    template = environment.from_string(config["chat_template"])
    return template.render(messages=messages, tools=tools, bos_token=config["bos_token"], add_generation_prompt=True)


CONVERSATIONS = {
    "one word": [user("Hello")],
    "system": [{"role": "system", "content": "Be brief.\nAnswer in English."}, user("What is the sea?")],
    "turns": [user("Hi"), assistant("Hello! How can I help?"), user("Tell me more."), assistant("More."), user("And?")],
    "unicode": [user("Grüße aus Zürich, 東京 и Москва 👩‍👩‍👧‍👦 \u202eabc\u0301 \t\r\n\n  end  ")],
    "code": [user("def f(x):\n    return {'a': [1, 22, 333]}  # don't\n\n\n")],
    "parts": [user([{"type": "text", "text": "One "}, {"type": "text", "text": "two."}])],
    "marks in the text": [user("What does <|end|><|assistant|> mean?")],
    "empty": [user("")],
    "long": [user("The quick brown fox, 12 times. " * 60)],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_count_is_exact(name: str, engine: Program, http: aiohttp.ClientSession, chat: Chat) -> None:
    """Template and tokenizer files give the engine's own prompt text and its `usage.prompt_tokens`."""
    messages = CONVERSATIONS[name]
    text = render(messages, None)
    root = engine.ready["base_url"].removesuffix("/v1")
    async with http.post(f"{root}/apply-template", json={"messages": messages}) as response:
        assert (await response.json())["prompt"] == text
    tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    expected = len(tokenizer.encode(text, add_special_tokens=False).ids)
    answer = await chat(messages, max_tokens=1)
    assert answer["usage"]["prompt_tokens"] == expected


async def test_count_is_exact_with_tools(chat: Chat) -> None:
    """Tool definitions, a call and its result are counted exactly too."""
    call = {**CALL, "function": {**CALL["function"], "arguments": '{"city": "Zürich"}'}}  # type: ignore[dict-item]
    messages = [user("Weather?"), {"role": "assistant", "content": None, "tool_calls": [call]}]
    messages += [{"role": "tool", "tool_call_id": "1", "content": "sunny"}]
    tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    expected = len(tokenizer.encode(render(messages, [WEATHER]), add_special_tokens=False).ids)
    answer = await chat(messages, tools=[WEATHER], max_tokens=1)
    assert answer["usage"]["prompt_tokens"] == expected


def test_demo_files_keep_their_limits() -> None:
    """The demo model has at most 8,000,000 bytes, and its files agree on vocabulary and context window."""
    assert (DEMO / "demo.gguf").stat().st_size <= 8_000_000
    config = json.loads((DEMO / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["model_max_length"] == 8192
    tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    ends = [tokenizer.token_to_id(config[name]) for name in ("bos_token", "eos_token", "pad_token")]
    assert None not in ends
    assert len(set(ends)) == 3
