"""Long conversations stay on the cheap tier, and what was said in them is still there."""

import contextlib
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from gateway.stage import Gateway, Stage, chat, tier, tls_env

from stream_core.testing import programs

pytestmark = pytest.mark.process
WINDOW = 4096
TURNS = 40
FACTS = [
    ("We are moving to Utrecht in June.", "Which town are we moving to?", "Utrecht"),
    ("My dog is called Biscuit.", "What is my dog called?", "Biscuit"),
    ("The rent is $1,340 a month.", "How much is the rent?", "$1,340"),
    ("The dentist sees me on March 14 at 9:20.", "When do I see the dentist?", "March 14"),
    ("Please always answer in metric units.", "How tall is a door usually?", "metric units"),
    ("The library card has the number 77-4410.", "What number does my library card have?", "77-4410"),
    ("My sister Ramona plays the cello.", "What does my sister play?", "cello"),
    ("The function is named parse_tide_table.", "What is the function named?", "parse_tide_table"),
]
CORRECTED = [
    (
        "We are moving to Utrecht in June.",
        "Actually, we are moving to Leiden in June.",
        FACTS[0][1],
        "Utrecht",
        "Leiden",
    ),
    ("The rent is $1,340 a month.", "The rent is $1,425 a month.", FACTS[2][1], "$1,340", "$1,425"),
    ("The dentist sees me on March 14.", "Please change March 14 to March 20.", FACTS[3][1], "March 14", "March 20"),
    ("My library card has the number 77-4410.", "Sorry, I meant 77-4140.", FACTS[5][1], "77-4410", "77-4140"),
]
"""What is said, what takes it back, the question, the value that no longer holds, and the one that does."""
TOPICS = ["the garden", "the weather", "a film", "bread", "old maps", "cycling", "the sea", "chess"]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Gateway]:
    """A gateway with the real judge and summarizer, a small local model and a large cloud one."""
    small = [{"id": "small", "upstream": "scripted", "context_window": WINDOW}]
    large = [{"id": "large", "upstream": "scripted", "context_window": 131_072}]
    tiers = [tier("local", engine, models=small), tier("cloud", engine, models=large)]
    stage = Stage(tmp_path_factory.mktemp("retention"), {"tiers": tiers})
    with contextlib.ExitStack() as stack:
        targets = {}
        for name in ("judge", "summarizer"):
            env = {"STREAM_CONFIG": str(stage.folder / "stream.yaml"), **tls_env(name, stage.folder / "tls", name)}
            program = stack.enter_context(programs.start(f"stream_{name}", env=env))
            targets[f"{name}_target"] = f"127.0.0.1:{program.ready['port']}"
        yield stack.enter_context(stage.run(**targets, judge_deadline_ms=5_000, fit_deadline_ms=15_000))


def conversation(said: dict[int, str], question: str, number: int = 0) -> list[dict[str, str]]:
    """Forty turns of small talk with something else said in some of them, and a question at the end.

    Args:
        said: by turn.
        question: the last message.
        number: of the conversation; it shifts the topics.
    """
    messages = []
    for turn in range(TURNS):
        topic = TOPICS[(turn + number) % len(TOPICS)]
        user = f"Tell me something about {topic}, please, part {turn}."
        if turn in said:
            user = f"{said[turn]} But now something about {topic}."
        answer = f"About {topic} there is much to say, and in part {turn} we look at how people see it. " * 6
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    return [*messages, {"role": "user", "content": question}]


async def stays_local(
    gateway: Gateway, engine: str, client: aiohttp.ClientSession, messages: list[dict[str, str]]
) -> str:
    """Ask `auto`: the small tier answers, with the last message as it is; return the rest of what it was sent."""
    body: dict[str, Any] = chat("auto", stream=False) | {"messages": messages}
    async with client.post(f"{gateway.url}/v1/chat/completions", json=body, headers=gateway.headers()) as response:
        assert response.status == 200, await response.text()
        assert response.headers["x-stream-tier"] == "local", response.headers["x-stream-reason"]
        assert response.headers["x-stream-context"].startswith("condensed ")
    async with client.get(f"{engine}/requests") as response:
        sent = (await response.json())[-1]["body"]["messages"]
    assert sent[-1] == messages[-1]
    return str(sent[:-1])


@pytest.mark.parametrize("number", range(2 * len(FACTS)))
async def test_forty_turns_stay_local_with_their_facts(
    number: int, gateway: Gateway, engine: str, client: aiohttp.ClientSession
) -> None:
    """Each row: 40 turns that exceed the small window and a simple last question: `local` answers, and has the fact."""
    fact, question, answer = FACTS[number % len(FACTS)]
    said = {3 + number % 5: fact}
    if number >= len(FACTS):
        said[30] = "By the way, about what I said before: it stays as it is."
    assert answer in await stays_local(gateway, engine, client, conversation(said, question, number))


@pytest.mark.parametrize(("first", "then", "question", "stale", "valid"), CORRECTED)
async def test_the_later_one_wins(
    first: str,
    then: str,
    question: str,
    stale: str,
    valid: str,
    gateway: Gateway,
    engine: str,
    client: aiohttp.ClientSession,
) -> None:
    """Each row: a fact, and its correction 19 turns later: that one is sent, the older one with a note at most."""
    sent = await stays_local(gateway, engine, client, conversation({3: first, 22: then}, question))
    assert valid in sent
    assert (stale in sent.replace(then, "")) <= ("[corrected in 44]" in sent)


async def test_what_the_question_points_at(gateway: Gateway, engine: str, client: aiohttp.ClientSession) -> None:
    """A message that the question names by its place is sent, although it shares no word with the question."""
    first = "Our old boiler makes a humming noise at night, and nobody in the house knows whom to call for that."
    others = {turn: f"My message of day {turn} was about Anna, Oslo and {turn * 37} euros." for turn in range(1, TURNS)}
    talk = conversation({0: first, **others}, "What was it about, in my first message?")
    assert "humming noise" in await stays_local(gateway, engine, client, talk)
