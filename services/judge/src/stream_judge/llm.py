"""A language model as judge, alone or behind the learned scorer.

The model sees the question that `context` chose and the few turns before it, never more, and nothing that is more
confidential than its class. It gets `deadline_s`; then, or when it fails or answers something else, the learned verdict
stands in and is not remembered.
"""

import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Final

import aiohttp
import orjson

from stream_core.errors import ConfigError
from stream_core.privacy import may_see
from stream_judge.classify import LearnedBackend, Verdict
from stream_judge.context import Question, ends, tail
from stream_judge.grading import grading_request, read_grades, standard_probabilities
from stream_judge.query import Query
from stream_judge.score import Reason
from stream_judge.settings import LlmSettings

_log = logging.getLogger("stream_judge")
_MOST_BYTES: Final = 256 * 1024
"""Of the model's answer to one token."""
_UNSEEN: Final = "\0unseen"
"""No tail of a conversation."""


class LlmBackend:
    """Asks the model about every question."""

    name = "llm"

    def __init__(
        self,
        session: aiohttp.ClientSession,
        settings: LlmSettings,
        learned: LearnedBackend,
        prompt: str,
        classes: Sequence[str],
    ) -> None:
        self._session = session
        self._classes = classes
        self._settings = settings
        self._learned = learned
        self._prompt = prompt
        asked = f"{settings.base_url}\n{settings.model}\n{prompt}\n{settings.fields}\n{settings.characters}"
        self.version = f"{self.name}-{hashlib.sha256(asked.encode()).hexdigest()[:12]}-{learned.version}"

    async def score(self, question: Question, query: Query) -> Verdict:
        """Score one question."""
        verdict = self._learned.score_now(question, query)
        if not self._sees(query):
            beyond = f"the judging model sees text up to '{self._settings.privacy}' only"
            reasons = (Reason("llm", 0.0, beyond), *verdict.score.reasons)
            return replace(verdict, score=replace(verdict.score, reasons=reasons))
        try:
            grades = await self._ask(question, query)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            _log.warning("the judging model failed, the learned score answers: %s", type(error).__name__)
            return replace(verdict, keep=False)
        if grades is None:
            _log.warning("the judging model named no grade, the learned score answers")
            return replace(verdict, keep=False)
        standard = standard_probabilities(grades)
        graded = self._learned.rescored(verdict.score, standard, query)
        letter = "ABC"[max(range(3), key=grades.__getitem__)]
        reason = Reason("llm", 0.0, f"graded {letter} by {self._settings.model} ({max(grades):.2f})")
        graded = replace(graded, reasons=(reason, *graded.reasons))
        return replace(verdict, score=graded, backend=self.name, version=self.version)

    def reads(self, query: Query) -> str:
        """What else a verdict depends on: the conversation's tail, where the model may see it."""
        return tail(query.turns) if self._sees(query) else _UNSEEN

    def _sees(self, query: Query) -> bool:
        return may_see(self._classes, self._settings.privacy, query.privacy)

    async def _ask(self, question: Question, query: Query) -> tuple[float, float, float] | None:
        settings = self._settings
        text = ends(question.text, settings.characters)
        body = grading_request(settings.model, self._prompt, text, settings.fields, tail(query.turns))
        async with self._session.post(f"{settings.base_url.rstrip('/')}/chat/completions", json=body) as response:
            response.raise_for_status()
            data = await response.content.read(_MOST_BYTES)
        return read_grades(orjson.loads(data))


class CascadeBackend:
    """Asks the model only where the learned scorer stands near the threshold."""

    name = "cascade"

    def __init__(self, learned: LearnedBackend, llm: LlmBackend, *, good_enough: float, band: float) -> None:
        self.version = f"{self.name}-{good_enough:g}-{band:g}-{llm.version}"
        self._learned = learned
        self._llm = llm
        self._good_enough = good_enough
        self._band = band

    def reads(self, query: Query) -> str:
        """As the language model."""
        return self._llm.reads(query)

    async def score(self, question: Question, query: Query) -> Verdict:
        """Score one question."""
        verdict = self._learned.score_now(question, query)
        if abs(verdict.score.probabilities[0] - self._good_enough) <= self._band:
            verdict = await self._llm.score(question, query)
        return replace(verdict, version=self.version)


@contextlib.asynccontextmanager
async def open_llm(
    settings: LlmSettings, learned: LearnedBackend, *, prompt: str, key: str, classes: Sequence[str]
) -> AsyncIterator[LlmBackend]:
    """Open the HTTP client until the block ends.

    Args:
        settings: where the model is.
        learned: whose verdict stands in.
        prompt: the system prompt.
        key: its API key; empty for none.
        classes: the policy's, the least confidential first.

    Raises:
        ConfigError: the model's own class is none of them.
    """
    if settings.privacy not in classes:
        raise ConfigError(f"llm.privacy: {settings.privacy!r} is not among {', '.join(classes)}", param="llm.privacy")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    timeout = aiohttp.ClientTimeout(total=settings.deadline_s)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, trust_env=False) as session:
        yield LlmBackend(session, settings, learned, prompt, classes)
