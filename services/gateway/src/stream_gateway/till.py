"""What a request costs, from its being let in to its end: the caller's limits, the cloud's budget and the ledger."""

from typing import TYPE_CHECKING

from stream_core.audit.entries import Fields
from stream_core.deployment import CLOUD, PolicyConfig
from stream_core.ids import to_hex
from stream_core.openai.chunks import Usage
from stream_gateway.accounts.principal import Subject
from stream_gateway.backends.registry import Entry, Generation
from stream_gateway.ledger.writer import Ledger
from stream_gateway.limits.account import NANO, Levels
from stream_gateway.limits.estimate import Rates, Size, reserve, size_of
from stream_gateway.limits.meter import Meter, Spent
from stream_gateway.limits.rates import rates_of
from stream_gateway.routing import Candidate
from stream_gateway.spending import Spending

if TYPE_CHECKING:
    from stream_gateway.pipeline import Asked, Trail


class Till:
    """See the module.

    Args:
        spending: what the gateway knows of the cloud's cost.
        meter: the callers' limits.
        ledger: is told of a request before an engine is.
    """

    def __init__(self, spending: Spending, meter: Meter, ledger: Ledger) -> None:
        self._spending = spending
        self._meter = meter
        self._ledger = ledger

    async def admit(self, asked: "Asked", generation: Generation) -> Levels:
        """Let a request begin; `ended` must follow. Errors as of `Meter.admit`."""
        return await self._meter.admit(asked.request_id, asked.principal, _size(asked, generation))

    async def charge(self, asked: "Asked", candidate: Candidate, entry: Entry, trail: "Trail") -> None:
        """Reserve what a candidate costs before it is asked, and begin to write that down.

        Raises:
            QuotaExceeded: not this one.
            SumUnknown: the broker is away.
        """
        model, principal = candidate.model, asked.principal
        size, rates = _size_at(asked, entry, model.context_window), _rates(entry, model.id)
        await self._meter.charge(asked.request_id, principal, size, rates)
        most = reserve(size, rates)
        if candidate.tier == CLOUD and rates.price is not None:
            self._spending.begin(asked.request_id, most.nanodollars / NANO)
        intent = Fields(
            id=to_hex(asked.request_id),
            at=trail.at,
            key=principal.id,
            user=principal.user,
            project=principal.project,
            privacy=trail.privacy,
            tier=candidate.tier,
            model=model.id,
            reason=candidate.reason,
            stream=asked.chat.stream,
            prompt_tokens=size.prompt,
            completion_tokens=size.output,
            counted="reserve",
            nanodollars=most.nanodollars,
            gpu_ms=most.gpu_ms,
        )
        self._ledger.intend(asked.request_id, intent)

    def failed(self, request_id: bytes) -> None:
        """A candidate did not answer, and costs nothing."""
        self._spending.end(request_id, 0.0)
        self._meter.failed(request_id)

    async def begun(self, request_id: bytes, entry: Entry, model: str, cluster: str) -> None:
        """A candidate answers: wait until the broker knows of it, since from now on there is something to lose.

        Args:
            request_id: of the request.
            entry: the candidate's tier.
            model: its id.
            cluster: whose worker it is.
        """
        self._meter.begun(request_id, _rates(entry, model, cluster))
        await self._ledger.intended(request_id)

    def moved(self, request_id: bytes, entry: Entry, model: str, cluster: str | None) -> None:
        """An answer has lost its worker (None), or goes on at another cluster's; the rest as of `begun`."""
        self._meter.moved(request_id, None if cluster is None else _rates(entry, model, cluster))

    def ended(self, request_id: bytes, usage: Usage | None, events: int, *, bytes_out: int, again: bool) -> Spent:
        """Settle a request; see `Pipeline.ended`."""
        spent = self._meter.ended(request_id, usage=usage, events=events, bytes_out=bytes_out, again=again)
        self._spending.end(request_id, spent.dollars)
        return spent

    async def limited(self, asked: "Asked", generation: Generation, candidate: Candidate | None) -> str:
        """Say which limit a request would meet now that goes to a candidate; empty: none. Nothing is reserved."""
        entry = generation.entries[candidate.tier] if candidate else None
        rates = _rates(entry, candidate.model.id) if entry and candidate else Rates()
        return await self._meter.peek(asked.principal, _size(asked, generation), rates)

    def pace(self, budget: float) -> float:
        """Tell by how much the cloud's share is to be changed; see `Spending.pace`."""
        return self._spending.pace(budget)

    def closed(self, asked: "Asked", generation: Generation) -> dict[str, str]:
        """The cloud, when this request might cost more than is left for the month."""
        policy: PolicyConfig = generation.deployment.policy
        budget, entry = policy.cloud_budget, generation.entries.get(CLOUD)
        if budget is None or entry is None:
            return {}
        needs = [
            reserve(_size_at(asked, entry, model.context_window), _rates(entry, model.id)).nanodollars / NANO
            for model in entry.tier.models
        ]
        words = self._spending.closed(budget, max(needs, default=0.0))
        return {CLOUD: words} if words else {}


def tightest_prompt(asked: "Asked", generation: Generation) -> tuple[int, Subject] | None:
    """Find the limit of a prompt's tokens that a request might exceed; None: it can't."""
    subjects = asked.principal.subjects
    limited = [(most, each) for each in subjects if (most := each.limits.prompt_tokens) is not None]
    least = min(limited, key=lambda found: found[0], default=None)
    return least if least is not None and _size(asked, generation).prompt > least[0] else None


def _size(asked: "Asked", generation: Generation) -> Size:
    """Bound a request's tokens, whoever answers it."""
    allowed = asked.principal.tiers
    entries = [entry for name, entry in generation.entries.items() if allowed is None or name in allowed]
    reserved = max((entry.tier.reserved_output for entry in entries), default=0)
    return size_of(asked.chat, asked.body_bytes, reserved)


def _size_at(asked: "Asked", entry: Entry, window: int) -> Size:
    size = size_of(asked.chat, asked.body_bytes, entry.tier.reserved_output)
    return Size(min(size.prompt, window), size.output)


def _rates(entry: Entry, model: str, cluster: str = "") -> Rates:
    return rates_of(entry.tier, entry.clusters, model, cluster)
