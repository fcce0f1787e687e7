"""Keeping the cloud's share of the traffic where the operator wants it, while the traffic drifts. Pure.

The policy sends a request to the cloud when nothing cheaper reaches `good_enough`. After each request that could have
gone either way the threshold moves a little, up when it stayed off the cloud and down when it went there:

    threshold += RATE * (wanted - went)        went: 1 or 0

This is online quantile tracking (the gradient of the pinball loss; I. Gibbs and E. Candes, 2021): over T requests the
share misses the wanted one by at most (1 + RATE) / (RATE * T), whatever the traffic does, as long as the threshold can
still move. Only the threshold moves: who may see a request, and what its caller named, is decided before and without
it. Each gateway keeps its own share; equal shares of replicas make an equal share of all.
"""

from typing import Final

from stream_core.deployment import PolicyConfig
from stream_gateway.routing import Plan

RATE: Final = 0.02
"""How far one request moves the threshold: a drift is followed within about a hundred requests."""
LOWEST, HIGHEST = 0.0, 1.0


class CloudShare:
    """The threshold at this moment."""

    def __init__(self, cloud: str = "cloud") -> None:
        """Watch the tier of this name."""
        self._cloud = cloud
        self._started_from: tuple[float, float | None] | None = None
        self._threshold = 0.0

    def adapted(self, policy: PolicyConfig) -> PolicyConfig:
        """Give the policy with the threshold of this moment; the policy itself when no share is wanted.

        A policy that was edited starts from its own threshold again.
        """
        start = (policy.good_enough, policy.cloud_share)
        if start != self._started_from:
            self._started_from, self._threshold = start, policy.good_enough
        if policy.cloud_share is None:
            return policy
        return policy.model_copy(update={"good_enough": self._threshold})

    def observe(self, plan: Plan, wanted: float | None) -> None:
        """Learn from a plan of a request that named no tier.

        Args:
            plan: as the adapted policy made it. One that could not choose teaches nothing.
            wanted: the policy's `cloud_share`.
        """
        tiers = {candidate.tier for candidate in plan.candidates}
        if wanted is None or self._cloud not in tiers or len(tiers) == 1:
            return
        went = plan.candidates[0].tier == self._cloud
        self._threshold = min(HIGHEST, max(LOWEST, self._threshold + RATE * (wanted - went)))
