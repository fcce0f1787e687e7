"""One request to the judge, from query to verdict: what is judged, the cache, the backend that speaks.

A backend is anything with a name, a version and `score`: `LearnedBackend` here, `LlmBackend` and `CascadeBackend` in
`llm`. Everything here is in memory; the cache holds digests and scores, never text.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from stream_judge.cache import BoundedCache
from stream_judge.calibration import NONE, Calibration
from stream_judge.context import Question, select
from stream_judge.curves import STANDARD_POSITIONS
from stream_judge.features import extract
from stream_judge.grams import grams
from stream_judge.output_length import expected_tokens
from stream_judge.query import Query
from stream_judge.score import Score, rescored, score
from stream_judge.weights import Weights


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a query."""

    score: Score
    expected_output_tokens: int
    backend: str
    version: str
    cached: bool = False
    keep: bool = True
    """False: a stopgap (the LLM was away), not to be remembered."""


class Backend(Protocol):
    """What scores a question; it may wait (a model behind HTTP), but never blocks the event loop."""

    name: str
    version: str

    def reads(self, query: Query) -> str:
        """What a verdict depends on beside the question and the query's shape: it names the verdict in the cache."""
        ...

    async def score(self, question: Question, query: Query) -> Verdict:
        """Score one question."""
        ...


class LearnedBackend:
    """The fitted scorer over features and words: a fraction of a millisecond of computing, no waiting."""

    name = "learned"

    def __init__(
        self,
        weights: Weights,
        *,
        known: Mapping[str, float] = STANDARD_POSITIONS,
        calibration: Calibration = NONE,
    ) -> None:
        self.version = "-".join(filter(None, (self.name, weights.version, calibration.version)))
        self._weights = weights
        self._known = known
        self._calibration = calibration

    def reads(self, query: Query) -> str:  # noqa: ARG002  (the protocol's)
        """Nothing else."""
        return ""

    async def score(self, question: Question, query: Query) -> Verdict:
        """Score one question."""
        return self.score_now(question, query)

    def score_now(self, question: Question, query: Query) -> Verdict:
        """Score one question at once."""
        values = extract(question, query.shape)
        result = score(
            values,
            grams(question.text),
            query.tiers,
            self._weights,
            known=self._known,
            calibration=self._calibration,
        )
        expected = expected_tokens(values, question.text, query.shape.max_output_tokens)
        return Verdict(result, expected, backend=self.name, version=self.version)

    def rescored(self, before: Score, standard: tuple[float, float, float], query: Query) -> Score:
        """Put another judge's chances in the place of the learned ones, with the same positions and calibration."""
        return rescored(before, standard, query.tiers, self._weights, known=self._known, calibration=self._calibration)


class Classifier:
    """Answers queries; equal questions in one scope are scored once."""

    def __init__(self, backend: Backend, *, cache_entries: int) -> None:
        self._backend = backend
        self._cache = BoundedCache[Verdict](cache_entries)

    async def classify(self, query: Query) -> Verdict:
        """Score a query, or remember its verdict."""
        question = select(query.turns)
        key = digest(question, query, self._backend.version, self._backend.reads(query))
        remembered = self._cache.get(key)
        if remembered is not None:
            return replace(remembered, cached=True)
        verdict = await self._backend.score(question, query)
        if verdict.keep:
            self._cache.put(key, verdict)
        return verdict


def digest(question: Question, query: Query, version: str, more: str = "") -> bytes:
    """Name everything that a verdict depends on, in 32 bytes.

    It is a cryptographic digest over framed fields: no two texts collide, and no field can pose as another.
    """
    shape = query.shape
    hasher = hashlib.blake2b(digest_size=32)
    for text in _fields(question, query, version, more):
        data = text.encode("utf-8", "surrogatepass")
        hasher.update(len(data).to_bytes(8, "big"))
        hasher.update(data)
    numbers = (
        question.length,
        int(question.inherited),
        question.depth,
        shape.tool_count,
        int(shape.structured_output),
        shape.max_output_tokens,
    )
    hasher.update(",".join(map(str, numbers)).encode())
    return hasher.digest()


def _fields(question: Question, query: Query, version: str, more: str) -> Iterable[str]:
    yield version
    yield more
    yield query.cache_scope
    yield question.text
    yield str(len(query.tiers))
    yield from query.tiers
    yield from sorted(query.shape.modalities)
