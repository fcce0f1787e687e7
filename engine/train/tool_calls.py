"""Conversations with function calls, in the form of the chat template; llama.cpp's grammar does the rest."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from train.prose import Conversation, Turn
from train.tokens import TOOLS_HEAD, TOOLS_TAIL

if TYPE_CHECKING:
    from collections.abc import Iterator

_CITIES = [
    "Paris",
    "Berlin",
    "London",
    "Rome",
    "Madrid",
    "Vienna",
    "Tokyo",
    "Oslo",
    "Lima",
    "Cairo",
    "Chicago",
    "Boston",
]
_PLACES = ["office", "library", "station", "airport", "school", "hospital", "museum", "park"]
_TOPICS = ["Python", "history", "music", "physics", "cooking", "football", "weather", "chemistry"]


@dataclass(frozen=True)
class Function:
    """A function, how users ask for it, and how its result reads in a sentence."""

    name: str
    description: str
    argument: str
    questions: tuple[str, ...]
    values: tuple[str, ...]
    results: tuple[str, ...]
    answer: str


_FUNCTIONS = (
    Function(
        "get_weather",
        "Get the current weather",
        "city",
        ("What is the weather in {}?", "Weather in {}?", "Is it warm in {} today?", "How is the weather in {}?"),
        tuple(_CITIES),
        ("sunny", "rainy", "cloudy", "windy", "cold", "warm"),
        "The weather in {} is {}.",
    ),
    Function(
        "get_time",
        "Get the local time",
        "city",
        ("What time is it in {}?", "Tell me the time in {}.", "Time in {}?"),
        tuple(_CITIES),
        ("08:15", "10:30", "12:00", "17:45", "21:20"),
        "In {} it is {} now.",
    ),
    Function(
        "search",
        "Search the web",
        "query",
        ("Search for {}.", "Look up {} please.", "Find something about {}."),
        tuple(_TOPICS),
        ("three pages", "one article", "a long list", "a short guide"),
        "For {} I found {}.",
    ),
    Function(
        "find_place",
        "Find a place nearby",
        "kind",
        ("Where is the nearest {}?", "Find a {} near me.", "How do I get to the {}?"),
        tuple(_PLACES),
        ("two streets away", "around the corner", "next to the bridge"),
        "The {} is {}.",
    ),
)


def definition(function: Function) -> str:
    """Return a function as the JSON that a request carries."""
    schema = {
        "type": "object",
        "properties": {function.argument: {"type": "string"}},
        "required": [function.argument],
    }
    body = {"name": function.name, "description": function.description, "parameters": schema}
    return json.dumps({"type": "function", "function": body})


def conversations(seed: int, count: int) -> Iterator[Conversation]:
    """Yield conversations in which the assistant calls a function and, in half of them, reads its result."""
    rng = random.Random(seed)  # noqa: S311  (a seed, so that training can be repeated)
    for _ in range(count):
        offered = rng.sample(_FUNCTIONS, rng.randint(1, 2))
        function = rng.choice(offered)
        value, result = rng.choice(function.values), rng.choice(function.results)
        system = "\n".join([TOOLS_HEAD, *map(definition, offered), TOOLS_TAIL])
        arguments = json.dumps({function.argument: value})
        call = f'<tool_call>\n{{"name": "{function.name}", "arguments": {arguments}}}\n</tool_call>'
        question = rng.choice(function.questions).format(value)
        turns = [Turn("system", system), Turn("user", question), Turn("assistant", call)]
        if rng.random() < 0.5:
            turns += [Turn("tool", result), Turn("assistant", function.answer.format(value, result))]
        yield tuple(turns)
