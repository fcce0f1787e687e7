"""A real engine (llama.cpp, the demo model, temperature 0): a continued answer is the undisturbed one, to the token."""

from collections.abc import Iterator
from typing import Any

import pytest
from gateway_hpc import lane
from gateway_hpc.crew import Crew, Hands, Read, crew, hands, read
from gateway_hpc.gate import gate

from stream_core.testing import programs

pytestmark = pytest.mark.process

ASK: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Tell me a long story about the sea."}],
    "temperature": 0,
    "stream_options": {"include_usage": True},
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> Iterator[str]:
    """The embedded engine: its base URL, without /v1."""
    empty = str(tmp_path_factory.mktemp("nothing"))
    env = {"STREAM_ENGINE__MODEL": "auto", "STREAM_MODELS_DIR": empty, "HF_HUB_CACHE": empty}
    with programs.start("stream_engine", env=env) as program:
        yield program.ready["base_url"].removesuffix("/v1")


@pytest.fixture(scope="module")
def workers(tmp_path_factory) -> Iterator[Hands]:
    """Broker and relay; workers as the tests need them."""
    with lane.parts(tmp_path_factory.mktemp("engine")) as running, hands(running) as made:
        yield made


async def undisturbed(made: Crew, **more: Any) -> Read:
    return await read(await made.ask(None, **ASK, **more))


@pytest.mark.parametrize(
    ("events", "more"),
    [(2, {}), (30, {"max_tokens": 40}), (20, {"max_tokens": 19}), (10, {"logprobs": True})],
    ids=["after one token", "with a limit", "at the limit", "with log-probabilities"],
)
async def test_continued_is_undisturbed(workers, engine, events, more):
    """Killed after so many events, the text, its end and its usage are those of an undisturbed answer."""
    spare = next((worker for _, worker in workers.alive.values()), None)
    spare = spare or await workers.add(engine={"url": engine})
    async with gate(engine, b"\n\n", events) as held, crew(workers) as made:
        mine = await workers.add(engine={"url": held.url})
        made.show(spare)
        expected = await undisturbed(made, **more)
        made.show(mine, spare)
        got = await read(await made.ask(None, **ASK, **more), killing=made, after=(events,))
    assert (got.text, got.usage) == (expected.text, expected.usage)
    assert finish(got) == finish(expected)
    assert got.mark == {"continued": 1}
    assert tokens(got) == tokens(expected)
    assert got.chunks[0]["id"] != expected.chunks[0]["id"]
    assert len({chunk["id"] for chunk in got.chunks}) == 1


async def test_only_usage_was_missing(workers, engine):
    """A worker that dies between the finish_reason and the usage: usage comes from a measurement, and says so."""
    spare = next((worker for _, worker in workers.alive.values()), None)
    spare = spare or await workers.add(engine={"url": engine})
    async with crew(workers) as made:
        made.show(spare)
        expected = await undisturbed(made, max_tokens=12)
        events = len(expected.events) - 2
        async with gate(engine, b"\n\n", events) as held:
            mine = await workers.add(engine={"url": held.url})
            made.show(mine, spare)
            got = await read(await made.ask(None, **ASK, max_tokens=12), killing=made, after=(events,))
    assert (got.text, got.usage) == (expected.text, expected.usage)
    assert got.chunks[-1]["stream"] == {"continued": 1, "usage": "estimated"}
    assert got.events[-1] == b"data: [DONE]\n\n"


def finish(got: Read) -> list[str]:
    return [c["finish_reason"] for chunk in got.chunks for c in chunk["choices"] if c["finish_reason"]]


def tokens(got: Read) -> list[str]:
    """The tokens that have log-probabilities."""
    choices = [choice for chunk in got.chunks for choice in chunk["choices"]]
    return [token["token"] for choice in choices for token in (choice.get("logprobs") or {}).get("content") or ()]
