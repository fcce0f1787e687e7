"""Counts against a real engine: llama.cpp with the demo model says what a prompt costs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import stream_engine
from stream_core.testing.programs import Program, start
from stream_summarizer.fitting import Fitting
from stream_summarizer.policy import Budget, as_json
from stream_summarizer.tokens import Counter

from .building import answering, calling, conversation, counter_of, long_talk, said

pytestmark = pytest.mark.process

DEMO = Path(stream_engine.__file__).parent / "demo"
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look a word up.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    },
}
CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]] | None]] = {
    "one word": ([said("user", "Hello")], None),
    "empty": ([said("user", "")], None),
    "system": ([said("system", "Be brief.\nAnswer in English."), said("user", "What is the sea?")], None),
    "developer": ([said("developer", "Be brief."), said("user", "What is the sea?")], None),
    "turns": ([said("user", "Hi"), said("assistant", " Hello! "), said("user", "\n More. \n")], None),
    "unicode": ([said("user", "Grüße aus Zürich, 東京 и Москва 👩‍👩‍👧‍👦 \u202eabc\u0301 \t\r\n\n  end  \x00")], None),
    "parts": ([said("user", [{"type": "text", "text": "One "}, {"type": "text", "text": "two."}])], None),
    "marks in the text": ([said("user", "What does <|end|><|assistant|> mean? <|pad|>")], None),
    "no content": ([said("user", "a"), said("assistant", None), said("user", "b")], None),
    "tools": ([said("user", "What is a tide?")], [TOOL]),
    "call and result": ([said("user", "Tide?"), calling("c1"), answering("c1"), said("user", "And now?")], [TOOL]),
    "calls without tools": ([said("user", "Tide?"), calling("c1", "c2"), answering("c1"), answering("c2")], None),
    "long": (long_talk(3), None),
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    empty = str(tmp_path_factory.mktemp("nothing"))
    env = {"STREAM_ENGINE__MODEL": "demo", "STREAM_MODELS_DIR": empty, "HF_HUB_CACHE": empty}
    with start("stream_engine", env=env) as program:
        yield program


@pytest.fixture(scope="module")
def counter() -> Counter:
    return counter_of(DEMO)


async def prompt_tokens(engine: Program, **body: Any) -> int:
    """Ask the engine what it counted."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
        session.post(
            f"{engine.ready['base_url']}/chat/completions", json={"model": "m", "max_tokens": 1} | body
        ) as response,
    ):
        assert response.status == 200, await response.text()
        usage = (await response.json())["usage"]
    return int(usage["prompt_tokens"])


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_count_is_the_engines(name: str, engine: Program, counter: Counter) -> None:
    """Each conversation: the count is exact, and is the engine's own `usage.prompt_tokens`."""
    messages, tools = CONVERSATIONS[name]
    talk = conversation(messages, tools)
    count = counter.prompt(talk.messages, talk.tools)
    assert count.exact
    assert count.tokens == await prompt_tokens(engine, messages=messages, **({"tools": tools} if tools else {}))


async def test_started_answer(engine: Program, counter: Counter) -> None:
    """A last message by the assistant is continued differently by engines: not exact, and not too low."""
    messages = [said("user", "Hi"), said("assistant", "The")]
    count = counter.prompt(conversation(messages).messages, b"")
    assert not count.exact
    assert count.tokens >= await prompt_tokens(engine, messages=messages)


async def test_fitted_is_within_the_engines_count(engine: Program, counter: Counter) -> None:
    """The engine's count of a fitted conversation is what the fit promised, and within the budget."""
    talk = conversation(long_talk(12))
    fitted = Fitting(talk, counter, Budget(1000, 200, 0.02)).extracted(lambda _key, make: make())
    async with aiohttp.ClientSession() as session:
        body = b'{"model": "m", "max_tokens": 1, "messages": ' + as_json(fitted.messages) + b"}"
        url = f"{engine.ready['base_url']}/chat/completions"
        async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as response:
            assert response.status == 200, await response.text()
            counted = (await response.json())["usage"]["prompt_tokens"]
    assert counted == fitted.count.tokens <= 800
