"""Opaque access tokens: the authority that made them is asked what they are (RFC 7662), and its answers are kept."""

import asyncio
import hashlib
import importlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp

from stream_core.errors import ConfigError, LocalError, NotAllowed, Unauthenticated
from stream_core.settings import read_secret
from stream_gateway.accounts.answers import ask, basic
from stream_gateway.accounts.claims import Claims, Told, check_demands, check_times, told
from stream_gateway.accounts.providers import Introspection


@dataclass(frozen=True, slots=True)
class Question:
    """What a plug-in gets to look at a token."""

    token: str
    """The token itself; it must go to the authority alone."""
    claims: Claims
    """The authority's answer: active, for us, and within its time."""
    settings: Introspection
    session: aiohttp.ClientSession
    """Trusts what the settings say."""
    authorization: str
    """The header with which this service speaks to the authority."""


class Extra(Protocol):
    """A plug-in that looks further than RFC 7662 does: groups, policies."""

    async def __call__(self, question: Question) -> Mapping[str, Any]:
        """Give claims that are laid over the authority's, e.g. {"groups": [...]}.

        Raises:
            NotAllowed: a policy forbids its bearer.
            UpstreamUnavailable: whom it asks is away.
        """
        ...


_Answer = Told | LocalError


class Introspector:
    """Asks about tokens, each once at a time, and remembers.

    Args:
        settings: of the authority.
        session: client that trusts it.
        clock: unix seconds.

    Raises:
        ConfigError: the secret or the plug-in can't be read.
    """

    def __init__(
        self, settings: Introspection, session: aiohttp.ClientSession, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._session = session
        self._clock = clock
        self._authorization = basic(settings.client_id, read_secret(settings.client_secret_file))
        self._extra = _plug_in(settings.extra) if settings.extra else None
        self._kept: OrderedDict[bytes, tuple[float, _Answer]] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[_Answer]] = {}
        self._places = asyncio.Semaphore(settings.max_questions)

    async def verify(self, token: str) -> Told:
        """Tell whom a token names.

        Raises:
            Unauthenticated: it is not valid, or not for this service.
            NotAllowed: its bearer may not use this service.
            UpstreamUnavailable: the authority does not answer, and nothing is remembered of the token.
        """
        digest = hashlib.sha256(token.encode()).digest()
        answer = self._remembered(digest)
        if answer is None:
            task = self._asking.get(digest)
            if task is None:
                task = self._asking[digest] = asyncio.create_task(self._ask(digest, token))
                task.add_done_callback(lambda done: self._over(digest, done))
            # Shielded, since others wait for the same answer when this client leaves.
            answer = await asyncio.shield(task)
        if isinstance(answer, LocalError):
            raise type(answer)(answer.message, param=answer.param)
        return answer

    def _over(self, digest: bytes, done: asyncio.Task[_Answer]) -> None:
        del self._asking[digest]
        if not done.cancelled():
            done.exception()  # whoever waits for it has it; nobody may be left

    def _remembered(self, digest: bytes) -> _Answer | None:
        until, answer = self._kept.get(digest, (0.0, None))
        if answer is not None and until <= self._clock():
            del self._kept[digest]
            return None
        return answer

    async def _ask(self, digest: bytes, token: str) -> _Answer:
        settings = self._settings
        answer: _Answer
        try:
            async with self._places:
                claims = await self._claims(token)
            now = self._clock()
            answer = told(claims, settings.issuer, settings.claims, now)
            end = claims.get("exp")
            until = min(now + settings.cache_s, end + settings.leeway_s if end is not None else float("inf"))
        except (Unauthenticated, NotAllowed) as error:
            answer, until = error.with_traceback(None), self._clock() + settings.refusal_cache_s
        self._kept[digest] = (until, answer)
        self._kept.move_to_end(digest)
        while len(self._kept) > settings.max_cached:
            self._kept.popitem(last=False)
        return answer

    async def _claims(self, token: str) -> Claims:
        settings = self._settings
        form = {**settings.parameters, "token": token, "token_type_hint": "access_token"}
        claims = await ask(self._session, settings.endpoint, form=form, authorization=self._authorization)
        if not isinstance(claims, dict) or claims.get("active") is not True:
            raise Unauthenticated("this token is unknown to its authority, expired or taken back")
        if claims.get("iss", settings.issuer) != settings.issuer:
            raise Unauthenticated("this token's issuer (iss) is not the one of this service")
        check_times(claims, self._clock(), settings.leeway_s, needs_end=False)
        if self._extra is not None:
            claims |= await self._extra(Question(token, claims, settings, self._session, self._authorization))
        check_demands(claims, settings)
        return claims


def _plug_in(name: str) -> Callable[[Question], Awaitable[Mapping[str, Any]]]:
    """Load "module:function".

    Raises:
        ConfigError: there is none.
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{name!r} can't be loaded: {error}", param="introspection.extra") from error
    if not callable(found):
        raise ConfigError(f"{name!r} is no function", param="introspection.extra")
    return found  # type: ignore[no-any-return]  # an operator's own: what it gives is checked as claims are
