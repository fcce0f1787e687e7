"""What the ledger says of a request that has ended."""

from typing import Final

import msgspec

from stream_core.audit.entries import Fields
from stream_gateway.accounts.principal import Principal
from stream_gateway.pipeline import Trail
from stream_gateway.stream import MOST_KEPT, Outcome
from stream_gateway.telemetry import Stopwatch

_MOST_WRITTEN: Final = 384 * 1024
"""Bytes of a content as JSON; a message of the broker has a megabyte at most."""


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
    prompt: bytes | None = None,
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
        prompt: the request's body, where the project wants contents in the ledger.
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
        prompt=None if prompt is None else _text(prompt),
        answer=None if outcome.kept is None else _text(outcome.kept),
    )


def _text(content: bytes | bytearray) -> str:
    """Make a text of the begin of a content, short enough also where JSON writes each of its characters as six."""
    text = bytes(content[:MOST_KEPT]).decode("utf-8", "replace")
    return text if len(msgspec.json.encode(text)) <= _MOST_WRITTEN else text[: MOST_KEPT // 6]
