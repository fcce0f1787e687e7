"""What would become of a conversation at each candidate: who takes it whole, who condensed, who not at all."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from stream_gateway.fitting import Fitted, Unfit
from stream_gateway.routing import Candidate, Exclusion, Plan, Why

Measure = Callable[[Candidate], Awaitable[Fitted | Unfit]]
"""Tells whether a candidate takes the request as it is; condenses nothing."""
MOST: Final = 8
"""Candidates that are measured: of more the first ones, which are what would be tried."""


async def foresee(plan: Plan, measure: Measure, *, whole: bool) -> Plan:
    """Look at the candidates' windows as an attempt would.

    Args:
        plan: by the policy, which knows nothing of lengths.
        measure: one candidate at a time.
        whole: nothing may be condensed.

    Returns:
        The plan without those that can't take the conversation, each with its numbers; where it would be condensed the
        reason says so.
    """
    able: list[Candidate] = []
    unable: list[Exclusion] = []
    for candidate in plan.candidates[:MOST]:
        found = await measure(candidate)
        if isinstance(found, Fitted):
            able.append(candidate)
        elif whole or found.summarizer_away:
            words = replace(found, forbidden=whole).words(f"{candidate.tier}/{candidate.model.id}")
            unable.append(Exclusion(candidate.tier, candidate.model.id, Why.CONTEXT, words, "messages"))
        else:
            about = "" if found.exact else "about "
            words = f"condensed, {about}{found.tokens:,} tokens for a window of {found.window:,}"
            able.append(replace(candidate, reason=f"{candidate.reason}; {words}"))
    return replace(plan, candidates=(*able, *plan.candidates[MOST:]), excluded=(*plan.excluded, *unable))
