"""Conversations written for this model: a text file of answers, and small facts put into many forms."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

from train.prose import Conversation, Turn, ask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SYSTEMS = (
    "You are a helpful assistant.",
    "You are a helpful assistant. Answer briefly.",
    "Answer in one sentence.",
    "You are a friendly teacher.",
    "You are an assistant for a university.",
    "Be concise.",
    "Answer in English.",
)
_CAPITALS = (
    "France:Paris Germany:Berlin Italy:Rome Spain:Madrid Portugal:Lisbon Austria:Vienna Belgium:Brussels Poland:Warsaw "
    "Greece:Athens Norway:Oslo Sweden:Stockholm Finland:Helsinki Denmark:Copenhagen Ireland:Dublin Hungary:Budapest "
    "Japan:Tokyo China:Beijing India:Delhi Thailand:Bangkok Egypt:Cairo Kenya:Nairobi Canada:Ottawa Cuba:Havana "
    "Peru:Lima Chile:Santiago Australia:Canberra Russia:Moscow Turkey:Ankara Iran:Tehran Iraq:Baghdad Ukraine:Kyiv"
)
_OPPOSITES = (
    "hot:cold big:small fast:slow old:new good:bad light:dark high:low long:short happy:sad early:late easy:hard "
    "open:closed full:empty strong:weak rich:poor clean:dirty wet:dry near:far loud:quiet thick:thin up:down left:right"
)
_COLOURS = "snow:white grass:green blood:red milk:white coal:black gold:yellow chocolate:brown rust:red ink:blue"
_SOUNDS = "dog:woof cat:meow cow:moo sheep:baa duck:quack pig:oink lion:roar frog:croak owl:hoot horse:neigh bee:buzz"
_NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def from_text(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """Yield (questions, answers) of each entry: lines `Q: a | b` then lines `A: ...`."""
    questions: list[str] = []
    answers: list[str] = []
    for line in [*text.splitlines(), "Q: "]:
        if line.startswith("Q: "):
            if answers:
                yield questions, answers
            questions, answers = [q.strip() for q in line[3:].split("|")], []
        elif line.startswith("A: "):
            answers.append(line[3:].strip())


def _pairs(table: str) -> list[tuple[str, str]]:
    return [(left, right) for left, _, right in (item.partition(":") for item in table.split())]


def _facts() -> Iterator[Conversation]:
    for country, city in _pairs(_CAPITALS):
        answer = f"The capital of {country} is {city}."
        for question in ("What is the capital of {}?", "Which city is the capital of {}?", "Name the capital of {}."):
            yield ask(question.format(country), answer)
        yield ask(f"Where is {city}?", f"{city} is in {country}. It is the capital of the country.")
    for word, opposite in _pairs(_OPPOSITES):
        for one, other in ((word, opposite), (opposite, word)):
            for question in ("What is the opposite of {}?", "Give me the opposite of {}.", "What is not {}?"):
                yield ask(question.format(one), f"The opposite of {one} is {other}.")
    for thing, colour in _pairs(_COLOURS):
        yield ask(f"What colour is {thing}?", f"The colour of {thing} is {colour}.")
        yield ask(f"What color is {thing}?", f"The colour of {thing} is {colour}.")
    for animal, sound in _pairs(_SOUNDS):
        yield ask(f"What does a {animal} say?", f"A {animal} says {sound}.")
        yield ask(f"What sound does a {animal} make?", f"A {animal} says {sound}.")
    for a, b in itertools.product(range(11), repeat=2):
        total = f"{a} + {b} = {a + b}."
        yield ask(f"What is {a} + {b}?", total)
        yield ask(f"What is {a} times {b}?", f"{a} times {b} is {a * b}.")
        if (a + b) % 3 == 0:
            yield ask(f"What is {a}+{b}?", total)
            yield ask(f"How much is {_NUMBERS[a]} plus {_NUMBERS[b]}?", total)


def _loose(talk: Conversation, rng: random.Random) -> Conversation:
    """Write the question as people in a hurry do: small letters, no mark at the end."""
    question, *rest = talk
    text = question.text.rstrip("?.!")
    return (Turn("user", text.lower() if rng.random() < 0.5 else text), *rest)


def load(path: Path, seed: int, repeat: int, facts: int, loose: float) -> list[Conversation]:
    """Return the written conversations with changing questions and frames.

    Args:
        path: the file of answers.
        seed: decides the choices.
        repeat: how often each question of the file is drawn.
        facts: how often each small fact is used.
        loose: share of questions in small letters or without a mark at the end, 0 to 1.
    """
    rng = random.Random(seed)  # noqa: S311  (a seed, so that training can be repeated)
    loosely = random.Random(seed + 1)  # noqa: S311
    entries = list(from_text(path.read_text(encoding="utf-8")))
    single = [ask(q, rng.choice(answers)) for questions, answers in entries for q in questions for _ in range(repeat)]
    single += [*_facts()] * facts
    found: list[Conversation] = []
    for talk in single:
        one = _loose(talk, loosely) if loosely.random() < loose else talk
        frame = rng.random()
        if frame < 0.15:
            found.append((Turn("system", rng.choice(_SYSTEMS)), *one))
        elif frame < 0.35:
            found.append((*rng.choice(single), *one))
        else:
            found.append(one)
    return found
