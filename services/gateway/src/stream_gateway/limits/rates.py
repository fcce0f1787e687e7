"""What a candidate costs besides tokens, by the deployment. Pure."""

from collections.abc import Sequence

from stream_core.cluster_config import ClusterConfig, ModelConfig, PoolConfig, Price
from stream_core.deployment import TierConfig
from stream_gateway.limits.estimate import GpuShare, Rates


def rates_of(tier: TierConfig, clusters: Sequence[ClusterConfig], model: str, cluster: str = "") -> Rates:
    """Find what a model costs.

    Args:
        tier: that offers it.
        clusters: of the tier.
        model: its id.
        cluster: whose worker answers; empty while that is open: the dearest one counts.
    """
    listed = next((each for each in tier.models if each.id == model), None)
    shares = [
        _pool_share(place, pool)
        for place in clusters
        for pool in place.pools
        if pool.model.id == model and cluster in {"", place.name}
    ]
    if listed is not None and listed.gpus and not shares:
        shares = [GpuShare(listed.gpus, listed.gpu_shared_by or 1.0)]
    dearest = max(shares, key=lambda share: share.gpus / share.shared_by, default=None)
    return Rates(_price(listed, clusters, model), dearest if dearest and dearest.gpus else None)


def _price(listed: ModelConfig | None, clusters: Sequence[ClusterConfig], model: str) -> Price | None:
    models = [*([listed] if listed else []), *(p.model for c in clusters for p in c.pools if p.model.id == model)]
    return next((each.price for each in models if each.price is not None), None)


def _pool_share(cluster: ClusterConfig, pool: PoolConfig) -> GpuShare:
    model = pool.model
    gpus = model.gpus
    if gpus is None:
        gpus = float(pool.nodes * cluster.parsl.gpus_per_node) if cluster.parsl else 0.0
    return GpuShare(gpus, model.gpu_shared_by or max(1.0, pool.max_requests * pool.target_load))
