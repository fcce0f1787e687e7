"""Exam questions of the project's data folder, answered with the field they belong to and a hint.

A model this small cannot answer them. It can learn to tell the field, to say something sensible, and to send the
reader to a larger model.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

from train.prose import Conversation, ask

if TYPE_CHECKING:
    from pathlib import Path

_LIMIT = 320
_FIELDS = {
    "mathematics": (
        "mathematics",
        "Write down what is given, name the unknown, and solve one step at a time.",
        "A small example or a drawing often shows the way.",
        "Check the result by putting it back into the question.",
    ),
    "statistics_ml": (
        "statistics",
        "Ask first what was measured and how the sample was taken.",
        "Look at the data in a picture before you compute anything.",
        "A larger sample makes the estimate more certain.",
    ),
    "physics_chemistry": (
        "physics or chemistry",
        "Write down the quantities with their units and find the law that connects them.",
        "Energy and mass are conserved, and this is a good place to begin.",
        "Check that the units of the result are right.",
    ),
    "engineering": (
        "engineering",
        "Make a drawing, mark the known values, and choose a formula that fits.",
        "Begin with a simple model and add the losses later.",
        "Keep a safe distance from every limit of the material.",
    ),
    "life_sciences": (
        "biology or medicine",
        "Think about what the cell or the organ needs and what it does with it.",
        "Please ask a doctor when it is about your own health.",
        "Compare the healthy state with the changed one.",
    ),
    "cs_software": (
        "computers and programs",
        "Follow the program line by line and write down each value.",
        "Try it with a very small input first.",
        "Read the documentation of the function and test one change at a time.",
    ),
    "philosophy_ethics": (
        "philosophy",
        "Say first what the words mean, and then look at both sides.",
        "Ask which reasons would convince somebody who does not agree.",
        "A good argument names its assumptions.",
    ),
    "social_sciences": (
        "people and society",
        "Ask who is involved, what they want, and what they expect of each other.",
        "Compare several groups before you draw a conclusion.",
        "Two things that occur together need not cause each other.",
    ),
    "history_culture": (
        "history or culture",
        "Ask when and where it took place, and who wrote about it.",
        "Compare two sources before you believe one of them.",
        "It helps to draw a line of the most important years.",
    ),
    "law_business": (
        "law or business",
        "Read the exact words of the rule and compare them with the case.",
        "List the costs and the benefits of each choice.",
        "A lawyer or an accountant should check the answer.",
    ),
    "hpc": (
        "high performance computing",
        "Measure first where the time goes, and change one thing at a time.",
        "Look at memory, network and processors, since one of them is the limit.",
        "Ask the support team of your cluster for an example job.",
    ),
}
_OPENINGS = (
    "This is a question about {}.",
    "This belongs to {}.",
    "That is a hard question about {}.",
    "It sounds like a question about {}.",
)
_CLOSINGS = (
    "I am only a tiny demo model, so please ask a larger one.",
    "A larger model can answer this better than I can.",
    "I am too small to know the answer.",
    "Please do not rely on me for the result.",
)


def stem(prompt: str) -> str:
    """Return a question without its answer options."""
    return " ".join(prompt.split("\nA. ", maxsplit=1)[0].split("\n[follow-up turn]", maxsplit=1)[0].split())


def load(paths: list[Path], seed: int, *, share_alike: bool = True) -> list[Conversation]:
    """Read JSON-lines files with `prompt`, `domain` and `licence`, and return questions with generic answers."""
    rng = random.Random(seed)  # noqa: S311  (a seed, so that training can be repeated)
    found: list[Conversation] = []
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            question = stem(row["prompt"])
            free = share_alike or "CC-BY-SA" not in row["licence"]
            if free and row["domain"] in _FIELDS and len(question) <= _LIMIT:
                topic, *hints = _FIELDS[row["domain"]]
                parts = [rng.choice(_OPENINGS).format(topic), rng.choice(hints), rng.choice(_CLOSINGS)]
                found.append(ask(question, " ".join(parts)))
    return found
