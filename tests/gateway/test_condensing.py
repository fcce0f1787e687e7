"""A real model condenses: client, gateway, summarizer and the embedded engine, each a process of its own."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from gateway.stage import Gateway, Stage, chat, tier, tls_env, until

from stream_core.testing import programs
from stream_core.testing.programs import Program
from stream_summarizer.checking import check
from stream_summarizer.fitting import QUOTED
from stream_summarizer.policy import MARK

pytestmark = pytest.mark.process
MODEL = "condenser"
WINDOW = 2048
BLOCKS = 3
"""Into which the conversation is cut."""
SAID = (
    "It sounds like a question about engineering. Keep a safe distance from every limit of the material.",
    "It sounds like a question about physics or chemistry. Energy and mass are conserved: a good place to begin.",
    "This belongs to people and society. Ask who is involved, what they want, and what they expect of each other.",
    "Write down what you earn and what you spend. Put a fixed sum aside at the beginning of each month.",
)
"""What the demo model says when it is asked of bridges, the sea and money: so it has something to repeat."""
_TOLD = re.compile(r"^messages (\d+)-(\d+): ", re.MULTILINE)
_NOTHING = re.compile("nothing in the model's summary is supported|the model's summary is empty")


@dataclass
class Road:
    """What is running."""

    gateway: Gateway
    summarizer: Program
    engine: str
    """The scripted one, which answers and remembers what it was sent."""

    async def ask(self, client: aiohttp.ClientSession, talk: list[dict[str, str]]) -> tuple[str, list[dict[str, Any]]]:
        """Ask the small tier; return the header x-stream-context and the messages that its engine got."""
        body = chat("local", stream=False) | {"messages": talk}
        url = f"{self.gateway.url}/v1/chat/completions"
        async with client.post(url, json=body, headers=self.gateway.headers()) as response:
            assert response.status == 200, await response.text()
            context = response.headers["x-stream-context"]
        async with client.get(f"{self.engine}/requests") as seen:
            return context, (await seen.json())[-1]["body"]["messages"]


@contextlib.contextmanager
def road(stage: Stage, engine: str, condenser: Program, deadline_ms: int) -> Iterator[Road]:
    """Run a summarizer that asks this model, and a gateway in front of it."""
    env = {
        "STREAM_CONFIG": str(stage.folder / "stream.yaml"),
        "STREAM_SUMMARIZER__BACKEND_URL": condenser.ready["base_url"],
        "STREAM_SUMMARIZER__BACKEND_MODEL": MODEL,
        "STREAM_SUMMARIZER__BACKEND_CONTEXT": "2048",
        "STREAM_SUMMARIZER__SUMMARY_TOKENS": "128",
        "STREAM_SUMMARIZER__DEADLINE_MS": str(deadline_ms),
        **tls_env("summarizer", stage.folder / "tls", "summarizer"),
    }
    with programs.start("stream_summarizer", env=env) as summarizer:
        target = f"127.0.0.1:{summarizer.ready['port']}"
        with stage.run(summarizer_target=target, fit_deadline_ms=60_000) as gateway:
            yield Road(gateway, summarizer, engine)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Stage:
    small = [{"id": "small", "upstream": "scripted", "context_window": WINDOW}]
    return Stage(tmp_path_factory.mktemp("condensing"), {"tiers": [tier("local", engine, models=small)]})


@pytest.fixture(scope="module")
def condenser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The embedded engine with the demo model under another name: under its own it would not be asked."""
    empty = str(tmp_path_factory.mktemp("nothing"))
    env = {"STREAM_ENGINE__MODEL": "demo", "STREAM_ENGINE__ALIAS": MODEL, "STREAM_HOME": empty}
    with programs.start("stream_engine", env=env) as program:
        yield program


def conversation() -> list[dict[str, str]]:
    """Talk about things of which the demo model has sentences, too long for the small window."""
    talk = []
    for turn in range(30):
        asked = ("a bridge", "the sea", "a town", "money")[turn % 4]
        talk.append({"role": "user", "content": f"Tell me about {asked}, part {turn}."})
        talk.append({"role": "assistant", "content": SAID[turn % 4]})
    return [*talk, {"role": "user", "content": "What did you say about the bridge?"}]


def summarised(context: str, sent: list[dict[str, Any]], talk: list[dict[str, str]]) -> list[str]:
    """Check what a model's summaries say against the turns that they stand for, and return them.

    On another processor the model may write nothing that its source supports: then there are none, by extraction.
    """
    summary = next(message["content"] for message in sent if message["content"].startswith(MARK))
    assert "bridge" in summary
    if "; by a model;" not in context:
        assert "; by extraction;" in context
        return []
    _, *told = _TOLD.split(summary.partition(f"\n{QUOTED}\n")[0])
    for first, last, words in zip(told[::3], told[1::3], told[2::3], strict=True):
        source = "\n".join(message["content"] for message in talk[int(first) : int(last) + 1])
        assert check(words, source).dropped == 0
    assert told
    return told[2::3]


async def test_a_real_model_condenses(
    stage: Stage, engine: str, condenser: Program, client: aiohttp.ClientSession
) -> None:
    """The engine writes the summary, and each sentence that is sent on is supported by the turns it stands for."""
    talk = conversation()
    with road(stage, engine, condenser, deadline_ms=60_000) as running:
        context, sent = await running.ask(client, talk)
        said = running.summarizer.log()
    assert sent[-1] == talk[-1]
    assert summarised(context, sent, talk) or _NOTHING.search(said)


async def test_a_real_model_that_is_too_slow(
    stage: Stage, engine: str, condenser: Program, client: aiohttp.ClientSession
) -> None:
    """In a tenth of a second no model reads the blocks: extraction answers; it reads them later, for the next turn."""
    talk = conversation()
    with road(stage, engine, condenser, deadline_ms=100) as running:
        context, sent = await running.ask(client, talk)
        assert "; by extraction;" in context
        assert sent[-1] == talk[-1]
        assert summarised(context, sent, talk) == []
        await until(lambda: running.summarizer.log().count("block written ahead") == BLOCKS)
        context, sent = await running.ask(client, talk)
        assert summarised(context, sent, talk) or _NOTHING.search(running.summarizer.log())
