"""The way of a request, from a valid body to an answer that has begun.

Authenticated and parsed, a request is shown to those tiers alone that may see it: the judge scores them, the policy
orders them, the conversation is made to fit the candidate, the stream is opened. A candidate that fails before its
first bytes is replaced by the next one; who may see the prompt is asked again before every attempt.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import orjson

from stream_core.deployment import CLOUD, PolicyConfig, TierConfig
from stream_core.errors import (
    ContextLengthExceeded,
    NotAllowed,
    RemoteError,
    StreamBroken,
    StreamError,
    UpstreamRejected,
    UpstreamUnavailable,
)
from stream_core.ids import to_hex
from stream_core.openai.chunks import Usage
from stream_core.openai.models import ChatRequest
from stream_gateway import retention
from stream_gateway.accounts.principal import Principal
from stream_gateway.adapting import CloudShare
from stream_gateway.attempts import Attempts
from stream_gateway.backends.contract import Answer, Call, Moved, Tell
from stream_gateway.backends.registry import Entry, Generation
from stream_gateway.fetching.fetcher import Fetcher
from stream_gateway.fetching.links import Link
from stream_gateway.fitting import Fitted, Fitting, Unfit
from stream_gateway.foresight import foresee
from stream_gateway.judging import Judge, Verdict
from stream_gateway.limits.account import Levels
from stream_gateway.limits.meter import Spent
from stream_gateway.limits.refusals import LargerThanLimit, QuotaExceeded, prompt_refusal
from stream_gateway.phases import Phases
from stream_gateway.routing import (
    CHAT_TASK,
    Ask,
    Candidate,
    Plan,
    TierView,
    Why,
    barred,
    permitted,
    refusal,
    request_class,
    resolve,
    route,
    unseen,
)
from stream_gateway.settings import FetchSettings
from stream_gateway.till import Till, tightest_prompt

_ABOUT_THE_TIER = frozenset({404, 405, 413, 429})
"""Statuses with which an engine refuses what another one may take: not there, too large for it, busy."""
TASKS: Final = {"/embeddings": "embeddings", "/moderations": "moderations"}
"""What kind of request a path of the engine's API is, where that is not chat."""


@dataclass(slots=True)
class Trail:
    """What happened to a request: for the response headers and the log line. Never content."""

    tier: str = ""
    model: str = ""
    cluster: str = ""
    """Whose worker answers, on a tier with clusters."""
    certain: bool = False
    """Whether no other tier or model can answer any more."""
    context: str = ""
    """How the conversation was condensed; empty when it was sent whole."""
    privacy: str = ""
    """The request's class, whoever or whatever set it; empty until it is known."""
    choice: str = ""
    """Why this tier and model."""
    notes: list[str] = field(default_factory=list)
    """What else befell the request."""
    at: float = field(default_factory=time.time)
    """Unix seconds of its begin."""
    levels: Levels = field(default_factory=Levels)
    """What is left of the caller's limits of a minute."""

    @property
    def reason(self) -> str:
        """All of it in a few words."""
        return "; ".join([self.choice, *self.notes] if self.choice else self.notes)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that is authenticated, parsed and valid."""

    request_id: bytes
    principal: Principal
    chat: ChatRequest
    body_bytes: int
    privacy: str | None
    """What the header x-stream-privacy says."""
    trace: Mapping[str, str]
    tell: Tell | None
    """Gets words for the client while the request waits for a worker; None: it does not wait, it comes again."""
    phases: Phases = field(default_factory=Phases)
    """Told where the time to the first token goes."""
    whole: bool = False
    """Whether the header x-stream-context forbids condensing; the key may, too."""


@dataclass(frozen=True, slots=True)
class Begun:
    """An answer of which the first batch has arrived; close it whatever happens."""

    answer: Answer
    first: list[bytes]
    rest: AsyncIterator[list[bytes]]
    hides_usage: bool = False
    """Whether the event with the usage is not for the client, who did not ask for it."""


class Pipeline:
    """Judge, policy, summarizer and backends in their order."""

    def __init__(self, judge: Judge, fitting: Fitting, till: Till, fetcher: Fetcher | None = None) -> None:
        """Use these services.

        Args:
            judge: scores tiers.
            fitting: makes conversations fit.
            till: limits, budget and ledger.
            fetcher: of images; None fetches nothing.
        """
        self._fetcher = fetcher or Fetcher(FetchSettings())
        self._judge = judge
        self._fitting = fitting
        self._till = till
        self._cloud_share = CloudShare(CLOUD)
        self._attempts = Attempts()

    async def begin(self, asked: Asked, generation: Generation, trail: Trail) -> Begun:
        """Go the way of a request until its answer has begun.

        Args:
            asked: the request.
            generation: held by the caller until the answer has ended.
            trail: written as it goes, also when this raises.

        Raises:
            StreamError: nobody answers it, with the reason.
        """
        tiers = generation.view()
        ask = await _ask(asked, generation, tiers, trail)
        links = self._fetcher.check(asked.chat.body, generation.deployment.policy.classes, ask.privacy)
        trail.levels = await self._till.admit(asked, generation)
        asked.phases.lap("auth")
        plan = await self._plan(asked, ask, generation, tiers, trail)
        if not plan.candidates:
            raise refusal(plan)
        await self._demand_short_prompt(asked, plan.candidates[0], generation)
        asked.phases.lap("judge")
        named = ask.pin.tier is not None
        retention.chosen(plan.candidates[0].tier, named=named)
        asked = await self._inlined(asked, links)
        for waking in plan.waking:
            generation.entries[waking.tier].backend.wake(waking.model, ask.allowed_clusters)
        failures: list[StreamError] = []
        for candidate in plan.candidates:
            entry = generation.entries[candidate.tier]
            policy = generation.deployment.policy
            if out := barred(ask, candidate.tier, entry.tier.privacy, policy) or unseen(
                ask, candidate.tier, candidate.model, policy
            ):
                raise NotAllowed(out.words)
            trail.tier, trail.model = candidate.tier, candidate.model.id
            trail.certain = candidate is plan.candidates[-1]
            fitted = await self._fit(asked, candidate, entry, ask.privacy, whole=asked.whole or asked.principal.whole)
            asked.phases.lap("summarise")
            if isinstance(fitted, Unfit):
                words = fitted.words(f"{candidate.tier}/{candidate.model.id}")
                failures.append(ContextLengthExceeded(words, param="messages"))
                trail.notes.append(f"{candidate.tier}: conversation too long")
                continue
            self._attempts.begin(asked.request_id, asked.chat.path, candidate.tier, candidate.model.id)
            try:
                await self._till.charge(asked, candidate, entry, trail)
                moved = partial(self._moved, asked.request_id, entry, candidate.model.id, trail)
                call = _call(asked, ask, candidate, fitted, entry.tier, moved)
                begun = await _open(entry.backend.open(call), hides_usage=call.usage_for_us)
            except (RemoteError, QuotaExceeded) as error:
                self._attempts.failed(asked.request_id, error)
                asked.phases.lap("retry")
                self._till.failed(asked.request_id)
                if _is_final(error, ask):
                    raise
                failures.append(error)
                trail.notes.append(f"{candidate.tier} failed ({error.code})")
                continue
            asked.phases.lap("prefill")
            retention.answered(candidate.tier, named=named, first=candidate is plan.candidates[0])
            await self._till.begun(asked.request_id, entry, candidate.model.id, begun.answer.cluster)
            _tell(asked, candidate, entry, fitted, begun, trail)
            return begun
        raise _outcome(failures)

    def ended(
        self, request_id: bytes, usage: Usage | None, events: int, *, bytes_out: int = 0, again: bool = False
    ) -> Spent:
        """Settle a request of which an answer has begun, or may have; every request is told once it is over.

        Args:
            request_id: its.
            usage: as the engine told it.
            events: of its stream; 0: it was none.
            bytes_out: that were sent.
            again: it comes again by itself, and counts then.
        """
        self._attempts.ended(request_id, usage)
        return self._till.ended(request_id, usage, events, bytes_out=bytes_out, again=again)

    def _moved(self, request_id: bytes, entry: Entry, model: str, trail: Trail, cluster: str | None) -> None:
        """An answer has lost its worker (None), or goes on at another one."""
        self._till.moved(request_id, entry, model, cluster)
        if cluster is not None and trail.cluster:
            trail.notes.append(f"continued on {cluster}")

    async def explain(self, asked: Asked, generation: Generation, trail: Trail | None = None) -> tuple[Plan, Verdict]:
        """Tell what `begin` would try and why, and what the judge says; nothing is sent to a model or learned from."""
        ask = await _ask(asked, generation, generation.view(), trail or Trail())
        plan, verdict = await self._judged(asked, ask, generation)

        def measure(candidate: Candidate) -> Awaitable[Fitted | Unfit]:
            return self._fit(asked, candidate, generation.entries[candidate.tier], ask.privacy, whole=True)

        return await foresee(plan, measure, whole=asked.whole or asked.principal.whole), verdict

    async def _judged(self, asked: Asked, ask: Ask, generation: Generation) -> tuple[Plan, Verdict]:
        """Judge and route without learning from it."""
        tiers, policy = generation.view(), generation.deployment.policy
        self._fetcher.check(asked.chat.body, policy.classes, ask.privacy)
        seeing = [tier.name for tier in permitted(ask, tiers, policy)]
        verdict = await self._judge.score(
            asked.chat,
            seeing,
            request_id=to_hex(asked.request_id),
            privacy=ask.privacy,
            cache_scope="" if ask.privacy == policy.classes[0] else asked.principal.id,
        )
        scores = {} if ask.pin.tier is not None else verdict.scores
        closed = self._till.closed(asked, generation)
        return route(ask, tiers, self._cloud_share.adapted(policy), scores, closed), verdict

    async def limited(self, asked: Asked, generation: Generation, plan: Plan) -> str:
        """Say which limit `begin` would meet now; empty: none. Nothing is reserved."""
        first = plan.candidates[0] if plan.candidates else None
        try:
            if first is not None:
                await self._demand_short_prompt(asked, first, generation)
        except LargerThanLimit as error:
            return error.message
        return await self._till.limited(asked, generation, first)

    async def count(self, asked: Asked, generation: Generation) -> int:
        """Count a request's tokens for the model that `begin` would try first; nothing is sent to a model.

        Raises:
            StreamError: nobody would answer it.
        """
        ask = await _ask(asked, generation, generation.view(), Trail())
        plan, _ = await self._judged(asked, ask, generation)
        if not plan.candidates:
            raise refusal(plan)
        first = plan.candidates[0]
        tier = generation.entries[first.tier].tier
        return await self._fitting.count(asked.chat, tier, first.model, request_id=to_hex(asked.request_id))

    async def _plan(self, asked: Asked, ask: Ask, generation: Generation, tiers: list[TierView], trail: Trail) -> Plan:
        policy = generation.deployment.policy
        if ask.pin.tier is not None:
            return route(ask, tiers, policy, {})
        trail.choice = "auto"
        if ask.task != CHAT_TASK:
            # Nothing to be judged: the cheapest one that does it.
            return route(ask, tiers, policy, dict.fromkeys((tier.name for tier in tiers), 1.0))
        seeing = [tier.name for tier in permitted(ask, tiers, policy)]
        verdict = await self._judge.score(
            asked.chat,
            seeing,
            request_id=to_hex(asked.request_id),
            privacy=ask.privacy,
            # Equal questions of several keys share a score only where anybody may see them.
            cache_scope="" if ask.privacy == policy.classes[0] else asked.principal.id,
        )
        if verdict.note:
            trail.notes.append(verdict.note)
        if CLOUD not in generation.entries:
            trail.notes.append("cloud is off")
        closed = self._till.closed(asked, generation)
        plan = route(ask, tiers, self._cloud_share.adapted(policy), verdict.scores, closed)
        self._cloud_share.observe(plan, self._wanted(policy))
        trail.notes += list(closed.values())
        trail.notes += [
            f"{tier} is away"
            for tier in dict.fromkeys(out.tier for out in plan.excluded if out.why is Why.HEALTH)
            if all(candidate.tier != tier for candidate in plan.candidates)
        ]
        trail.notes += [
            f"{waking.tier} is {waking.state}, a worker is asked for"
            for waking in plan.waking
            if waking.state != "offline"
        ]
        return plan

    async def _fit(
        self, asked: Asked, candidate: Candidate, entry: Entry, privacy: str, *, whole: bool
    ) -> Fitted | Unfit:
        return await self._fitting.fit(
            asked.chat,
            asked.body_bytes,
            entry.tier,
            candidate.model,
            request_id=to_hex(asked.request_id),
            cache_scope=asked.principal.id,
            privacy=privacy,
            whole=whole,
        )

    async def _inlined(self, asked: Asked, links: list[Link]) -> Asked:
        """Fetch what a request names by its address, and put it in."""
        if not links:
            return asked
        body = await self._fetcher.inlined(asked.chat.body, links)
        more = len(orjson.dumps(body)) - len(orjson.dumps(asked.chat.body))
        chat = replace(asked.chat, body=body, media_bytes=asked.chat.media_bytes + more)
        return replace(asked, chat=chat, body_bytes=asked.body_bytes + more)

    def _wanted(self, policy: PolicyConfig) -> float | None:
        """The cloud's share, changed so that the budget lasts for the month."""
        if policy.cloud_share is None or policy.cloud_budget is None:
            return policy.cloud_share
        return min(1.0, policy.cloud_share * self._till.pace(policy.cloud_budget))

    async def _demand_short_prompt(self, asked: Asked, first: Candidate, generation: Generation) -> None:
        """Refuse a prompt that is longer than the caller may send, as the first candidate's tokenizer counts it."""
        limit = tightest_prompt(asked, generation)
        if limit is None:
            return
        tier = generation.entries[first.tier].tier
        request_id = to_hex(asked.request_id)
        tokens = await self._fitting.count(asked.chat, tier, first.model, request_id=request_id)
        if tokens > limit[0]:
            raise prompt_refusal(limit[1], tokens)


def _tell(asked: Asked, candidate: Candidate, entry: Entry, fitted: Fitted, begun: Begun, trail: Trail) -> None:
    """Write down who answers, and what a client should know of it."""
    trail.choice, trail.cluster, trail.context = candidate.reason, begun.answer.cluster, fitted.context
    on = f"on {trail.cluster}" if trail.cluster else ""
    trail.notes += [note for note in (on, fitted.note, entry.backend.note()) if note]
    if asked.chat.body.get("reasoning_effort") and "reasoning" not in candidate.model.capabilities:
        trail.notes.append("reasoning_effort passed on to a model not known to reason")
    if asked.chat.unknown:
        trail.notes.append(f"{asked.chat.unknown} fields passed on that only the engine may know")
    if candidate.model.demo:
        trail.notes.append("demo model, not to be believed")


async def _ask(asked: Asked, generation: Generation, tiers: list[TierView], trail: Trail) -> Ask:
    principal, chat = asked.principal, asked.chat
    pin = resolve(chat.model, tiers, principal.tiers, principal.clusters)
    trail.privacy = request_class(generation.deployment.policy, principal.privacy, asked.privacy)
    found = await generation.detector.raised(chat.body, trail.privacy)
    if found is not None:
        trail.privacy = found.privacy
        trail.notes.append(f"raised to {found.privacy}: {found.words}")
    return Ask(
        pin=pin,
        privacy=trail.privacy,
        raised=found.words if found else "",
        tiers=principal.tiers,
        modalities=chat.modalities,
        max_output=chat.max_output,
        clusters=principal.clusters,
        models=principal.models,
        demands=chat.demands,
        task=TASKS.get(chat.path, CHAT_TASK),
    )


def _call(asked: Asked, ask: Ask, candidate: Candidate, fitted: Fitted, tier: TierConfig, moved: Moved) -> Call:
    request = fitted.body
    options = request.get("stream_options") or {}
    for_us = asked.chat.stream and tier.asks_usage and not options.get("include_usage")
    if for_us:
        request = {**request, "stream_options": {**options, "include_usage": True}}
    return Call(
        request_id=asked.request_id,
        path=asked.chat.path,
        model=candidate.model.id,
        request=request,
        stream=asked.chat.stream,
        usage_for_us=for_us,
        headers=asked.trace,
        phases=asked.phases,
        clusters=ask.allowed_clusters,
        tell=asked.tell if candidate.waits else None,
        moved=moved,
    )


async def _open(opening: Awaitable[Answer], *, hides_usage: bool) -> Begun:
    """Wait for an answer and its first batch: until then the candidate can still be replaced."""
    answer = await opening
    rest = aiter(answer)
    try:
        return Begun(answer, await anext(rest), rest, hides_usage)
    except StopAsyncIteration:
        await answer.aclose()
        raise UpstreamUnavailable("the engine's answer was empty") from None
    except BaseException:
        await answer.aclose()
        raise


def _is_final(error: StreamError, ask: Ask) -> bool:
    """Whether an error is the client's answer: about the request itself, or of the tier that the caller named."""
    return isinstance(error, UpstreamRejected) and (ask.pin.tier is not None or error.status not in _ABOUT_THE_TIER)


def _outcome(failures: list[StreamError]) -> StreamError:
    """All candidates failed: a single one's error as it is, several in one sentence."""
    if all(isinstance(error, ContextLengthExceeded) for error in failures):
        return ContextLengthExceeded("; ".join(error.message for error in failures), param="messages")
    away = [error for error in failures if not isinstance(error, ContextLengthExceeded)]
    if all(isinstance(error, QuotaExceeded) for error in away):
        return away[0]
    if len(away) == 1:
        error = away[0]
        return UpstreamUnavailable(error.message) if isinstance(error, StreamBroken | UpstreamRejected) else error
    return UpstreamUnavailable("no tier could answer: " + "; ".join(error.message for error in away))
