"""What the ledger says of a request that has ended."""

from stream_core.audit.entries import Fields
from stream_gateway.accounts.principal import Principal
from stream_gateway.pipeline import Trail
from stream_gateway.stream import Outcome
from stream_gateway.telemetry import Stopwatch


def fields_of(
    request_id: str,
    principal: Principal,
    trail: Trail,
    outcome: Outcome,
    stopwatch: Stopwatch,
    *,
    ended: str,
    stream: bool,
    batch: bool = False,
) -> Fields:
    """Put it together.

    Args:
        request_id: hex.
        principal: who asked.
        trail: where it went.
        outcome: what was sent, and what it cost.
        stopwatch: begun when it arrived.
        ended: how.
        stream: whether a stream was asked for.
        batch: whether it was a line of one.
    """
    spent = outcome.spent
    tokens = spent.tokens
    return Fields(
        id=request_id,
        at=trail.at,
        key=principal.id,
        user=principal.user,
        project=principal.project,
        privacy=trail.privacy,
        tier=trail.tier,
        model=trail.model,
        cluster=trail.cluster,
        reason=trail.reason,
        condensed=bool(trail.context),
        stream=stream,
        batch=batch,
        status=outcome.status,
        ended=ended,
        prompt_tokens=tokens.prompt_tokens if tokens else 0,
        completion_tokens=tokens.completion_tokens if tokens else 0,
        counted=spent.counted,
        nanodollars=spent.amounts.nanodollars,
        gpu_ms=spent.amounts.gpu_ms,
        first_token_ms=stopwatch.first_token_ms,
        total_ms=stopwatch.total_ms,
    )
