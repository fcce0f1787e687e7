"""The outcome data as rows: text in both forms, each tier's outcome, and which rows belong together."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from stream_judge.context import Turn, select
from stream_judge.features import Shape, extract, without_exam_format
from stream_judge.grams import grams

REFERENCES: Final = {
    "mmlu-pro": ("phi-3-mini-4k-instruct-3.8b", "llama-3.1-70b-instruct", "gemini-1.5-pro-002"),
    "gsm8k": ("phi-3.5-mini-instruct-3.8b", "llama-3.1-70b-instruct", "claude-3-5-sonnet-20241022"),
    "cruxeval-o": ("qwen2.5-3b-instruct", "qwen2.5-72b-instruct", "claude-3-5-sonnet-20241022"),
    "math-l5": ("qwen2.5-3b-instruct", "qwen2.5-72b-instruct", "claude-3-5-sonnet-20241022"),
}
"""Per source the reference model of local, hpc and cloud, as the data's README lists them."""
TIERS: Final = ("local", "hpc", "cloud")
_OPENING: Final = 110
"""Normalised characters; questions that share them belong together."""
_SHARED: Final = 0.4
"""So do those of which this share of 8-grams of words is the same."""
_GRAM: Final = 8
_COMMON: Final = 60
"""An 8-gram in more rows than this is a formula of the exam, not a copied question."""
_CRUX_FRAME = re.compile(r"^You are given a Python function.*?\n\n|\[/?PYTHON\]\n?", re.DOTALL)


@dataclass(frozen=True)
class View:
    """One form of a question, as the judge reads it."""

    text: str

    @cached_property
    def values(self) -> dict[str, float]:
        """Its features."""
        return dict(extract(select([Turn("user", self.text)]), Shape()))

    @cached_property
    def grams(self) -> Counter[int]:
        """Its words and pairs."""
        return grams(select([Turn("user", self.text)]).text)


@dataclass(frozen=True)
class Row:
    """A question with its outcomes."""

    id: str
    plain: View
    stripped: View
    """Without options, answer format and the frame of its source."""
    panel: float
    """Mean outcome of the small models."""
    outcomes: tuple[float, float, float]
    """Of the reference models of local, hpc and cloud."""
    others: Mapping[str, float]
    """Of all other models, by name."""
    suffices: float
    needed: int
    """0, 1 or 2: the smallest tier whose reference model is right."""
    domain: str
    source: str
    extra: bool = field(default=False)


def stripped(text: str) -> str:
    """Take exam formatting off a prompt."""
    return _CRUX_FRAME.sub("", without_exam_format(text)[0])


def read_rows(path: Path, *, extra: bool = False) -> list[Row]:
    """Read one file of queries."""
    with path.open(encoding="utf-8") as file:
        return [_row(json.loads(line), extra=extra) for line in file if line.strip()]


def _row(record: dict[str, Any], *, extra: bool) -> Row:
    local, hpc, cloud = (float(record["outcomes"][name]) for name in REFERENCES[record["source"]])
    return Row(
        id=record["id"],
        plain=View(record["prompt"]),
        stripped=View(stripped(record["prompt"])),
        panel=float(record["small_panel_mean"]),
        outcomes=(local, hpc, cloud),
        others={
            name: float(value) for name, value in record["outcomes"].items() if name not in REFERENCES[record["source"]]
        },
        suffices=float(record["local_suffices"]),
        needed=TIERS.index(record["tier_needed"]),
        domain=record["domain"],
        source=record["source"],
        extra=extra,
    )


def together(texts: Sequence[str]) -> list[int]:
    """Tell which texts are near-duplicates of each other.

    Returns:
        A number per text; equal numbers belong on one side of every split.
    """
    leader = list(range(len(texts)))

    def find(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    openings: dict[str, int] = {}
    holders: dict[str, list[int]] = defaultdict(list)
    sizes = []
    for index, text in enumerate(texts):
        words = re.findall(r"\w+", text.lower())
        first = openings.setdefault(" ".join(words)[:_OPENING], index)
        leader[find(index)] = find(first)
        pieces = {" ".join(words[at : at + _GRAM]) for at in range(len(words) - _GRAM + 1)}
        sizes.append(len(pieces))
        for piece in pieces:
            holders[piece].append(index)
    common: Counter[tuple[int, int]] = Counter()
    for held in holders.values():
        if 1 < len(held) < _COMMON:
            common.update((held[0], other) for other in held[1:])
    for (left, right), count in common.items():
        if count > _SHARED * min(sizes[left], sizes[right]):
            leader[find(left)] = find(right)
    # Which member leads depends on the order of a set, which differs from run to run; the smallest one does not.
    smallest: dict[int, int] = {}
    for index in range(len(texts)):
        smallest.setdefault(find(index), index)
    return [smallest[find(index)] for index in range(len(texts))]


def folds_of(rows: Sequence[Row], number: int) -> list[int]:
    """Put each row into one of `number` folds, near-duplicates together, evenly and the same each time."""
    groups = together([row.stripped.text for row in rows])
    sizes = Counter(groups)
    order = sorted(sizes, key=lambda group: (-sizes[group], rows[group].id[::-1]))
    place = {group: index % number for index, group in enumerate(order)}
    return [place[group] for group in groups]
