"""Asking a model to condense: one call to an OpenAI-compatible server, within a deadline, checked afterwards."""

import asyncio
import contextlib
import importlib
import json
import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from stream_core.deployment import Deployment
from stream_core.errors import ConfigError
from stream_core.settings import read_secret
from stream_summarizer import prompts
from stream_summarizer.checking import check
from stream_summarizer.settings import SummarizerSettings

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES: Final = 1024 * 1024
FAILURES_BEFORE_REST: Final = 3
REST_S: Final = 30.0
PROMPT_TOKENS: Final = 400
"""What instruction and frame take of the model's window, rounded up."""


class Answer(msgspec.Struct, frozen=True):
    """What came of asking: a text, or the reason why there is none."""

    text: str = ""  # checked against the source
    reason: str = ""  # in words, ASCII, without content; empty when there is a text
    dropped: int = 0  # sentences that the source did not support
    silent: bool = False  # it answered in time, and nothing of it can be used: asking again would not help


class _Refused(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Completion(msgspec.Struct):
    choices: list[_Choice]


class Backend:
    """A model that condenses. After repeated failures it rests, so that nobody waits for a dead engine."""

    def __init__(self, url: str, model: str, key: str, *, clock: Any = time.monotonic) -> None:
        self._url = f"{url}/chat/completions"
        self.model = model
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._opening = asyncio.Lock()
        self._failures = 0
        self._failed_at = float("-inf")
        self._rests_until = float("-inf")
        self._awaited = 0
        self._calm = asyncio.Event()
        self._calm.set()

    @property
    def resting(self) -> str:
        """Why the model is not asked at the moment; empty when it is."""
        left = self._rests_until - self._clock()
        return f"the model failed {FAILURES_BEFORE_REST} times and rests for {left:.0f} s" if left > 0 else ""

    async def open(self) -> "aiohttp.ClientSession":
        """Prepare the connection pool; the first request needs not wait for it then."""
        async with self._opening:
            if self._session is None:
                aiohttp = await asyncio.to_thread(importlib.import_module, "aiohttp")
                self._session = aiohttp.ClientSession(headers=self._headers)
            return self._session

    async def close(self) -> None:
        """Close the connection pool."""
        if self._session is not None:
            await self._session.close()

    async def calm(self) -> None:
        """Wait until no request waits for the model."""
        await self._calm.wait()

    @contextlib.contextmanager
    def awaited(self) -> Iterator[None]:
        """Say that a request waits for the model while the block runs: what nobody waits for is asked later."""
        self._awaited += 1
        self._calm.clear()
        try:
            yield
        finally:
            self._awaited -= 1
            if not self._awaited:
                self._calm.set()

    async def condense(self, source: str, max_tokens: int, deadline_s: float) -> Answer:
        """Ask for a summary.

        Args:
            source: the transcript.
            max_tokens: of the summary.
            deadline_s: seconds from now.

        Returns:
            The checked text, or why there is none. Never raises for what the other side does.
        """
        if self.resting:
            return Answer(reason=self.resting)
        began = self._clock()
        try:
            async with asyncio.timeout(max(deadline_s, 0)):
                answer = await self._ask(source, max_tokens)
        except TimeoutError:
            answer = self._failed(f"the model took longer than {max(deadline_s, 0) * 1000:.0f} ms", began)
        except _Refused as error:
            answer = self._failed(f"the model answered HTTP {error.status}", began)
        except OSError as error:  # aiohttp's connection errors are
            answer = self._failed(f"the model can't be reached ({type(error).__name__})", began)
        except Exception as error:  # noqa: BLE001  (whatever a foreign server provokes, extraction answers)
            answer = self._failed(f"the model's answer is unusable ({type(error).__name__})", began)
        else:
            self._failures = 0
        if answer.reason:
            log.warning("no summary by the model: %s", answer.reason)
        return answer

    def _failed(self, reason: str, began: float) -> Answer:
        if began < self._failed_at:
            return Answer(reason=reason)  # it was under way when another one failed: that is the same failure
        self._failed_at = self._clock()
        self._failures += 1
        if self._failures >= FAILURES_BEFORE_REST:
            self._failures = 0
            self._rests_until = self._clock() + REST_S
        return Answer(reason=reason)

    async def _ask(self, source: str, max_tokens: int) -> Answer:
        session = await self.open()
        body = json.dumps(
            {
                "model": self.model,
                "messages": prompts.condense(source, max_tokens),
                "temperature": 0,
                "max_tokens": max_tokens,
                "stream": False,
            }
        ).encode()
        async with session.post(self._url, data=body, allow_redirects=False) as response:
            if response.status != 200:  # noqa: PLR2004  (HTTP's OK)
                raise _Refused(response.status)
            data = bytearray()
            async for chunk in response.content.iter_any():
                data += chunk
                if len(data) > MAX_ANSWER_BYTES:
                    return Answer(reason=f"the model's answer is longer than {MAX_ANSWER_BYTES:,} bytes")
        completion = msgspec.json.decode(data, type=_Completion)
        text = (completion.choices[0].message.content or "").strip()
        if not text:
            return Answer(reason="the model's summary is empty", silent=True)
        checked = await asyncio.to_thread(check, text, source)
        if not checked.text:
            reason = f"nothing in the model's summary is supported ({checked.dropped} sentences)"
            return Answer(reason=reason, dropped=checked.dropped, silent=True)
        return Answer(text=checked.text, dropped=checked.dropped)


def make_backend(settings: SummarizerSettings, deployment: Deployment) -> tuple[Backend | None, str]:
    """Decide whether a model is asked to condense.

    Returns:
        The backend, or None and the reason in words.

    Raises:
        ConfigError: url without model or the other way round; a class that the policy does not know; key file not
            readable.
    """
    if not settings.backend_url and not settings.backend_model:
        return None, "no model is configured to condense"
    if not settings.backend_url or not settings.backend_model:
        missing = "BACKEND_URL" if not settings.backend_url else "BACKEND_MODEL"
        raise ConfigError(
            "backend_url and backend_model are set together or not at all", param=f"STREAM_SUMMARIZER__{missing}"
        )
    if settings.backend_privacy not in deployment.policy.classes:
        words = f"{settings.backend_privacy!r} is not among {', '.join(deployment.policy.classes)}"
        raise ConfigError(f"backend_privacy: {words}", param="STREAM_SUMMARIZER__BACKEND_PRIVACY")
    key = read_secret(settings.backend_key_file) if settings.backend_key_file else ""
    if is_demo(deployment, settings.backend_url, settings.backend_model):
        return None, "the demo model is not asked to condense"
    return Backend(settings.backend_url, settings.backend_model, key), ""


def is_demo(deployment: Deployment, url: str, model: str) -> bool:
    """Tell whether a backend is the demo model, by its name or because its server offers nothing else."""
    offered = [(tier.base_url.rstrip("/"), config) for tier in deployment.tiers for config in tier.models]
    offered += [("", pool.model) for cluster in deployment.clusters for pool in cluster.pools]
    named = any(config.demo and model in {config.id, config.engine_model} for _, config in offered)
    there = [config.demo for base_url, config in offered if base_url == url.rstrip("/")]
    return named or (bool(there) and all(there))
