"""The pool as gateways see it: plan and leases in, one `Pool` message out. Pure."""

from collections.abc import Callable
from typing import Final

from stream_core.rpc import common_pb2, hpc_dispatch_pb2
from stream_core.wire.payloads import ModelOffer
from stream_hpc_dispatch import failures, reasons
from stream_hpc_dispatch.clocks import ready_estimate, usual_start_s
from stream_hpc_dispatch.leases import Lease
from stream_hpc_dispatch.states import ClusterState, Phase, Pilot, PoolState, State

LeaseOf = Callable[[int], Lease]
OffersOf = Callable[[PoolState], list[ModelOffer]]

_HOPELESS_FAILURES: Final = 4
"""Failed starts in a row after which no request waits for the next one: each has failed the same way."""
_STATES: Final = {
    Phase.STARTING: hpc_dispatch_pb2.WORKER_STATE_STARTING,
    Phase.READY: hpc_dispatch_pb2.WORKER_STATE_READY,
    Phase.DRAINING: hpc_dispatch_pb2.WORKER_STATE_DRAINING,
    Phase.LOST: hpc_dispatch_pb2.WORKER_STATE_LOST,
}


def snapshot(state: State, lease_of: LeaseOf, offers_of: OffersOf) -> hpc_dispatch_pb2.Pool:
    """Draw the whole pool; its revision is left to who publishes it.

    Args:
        state: the plan's.
        lease_of: a pilot's lease, by its number.
        offers_of: the models of a pool as the deployment says; a worker's own announcement goes before it.
    """
    return hpc_dispatch_pb2.Pool(
        workers=[
            _worker(pool, pilot, lease_of(pilot.number), offers_of(pool))
            for pool in state.pools
            for pilot in pool.pilots
        ],
        models=[model_state(state, pool) for pool in state.pools],
        clusters=[_cluster_state(state, cluster) for cluster in state.clusters],
    )


def model_state(state: State, pool: PoolState) -> hpc_dispatch_pb2.ModelState:
    """Say in one word and one sentence whether a pool can answer now, and when it will.

    Words and estimates hold no clock, so that they change only when something did.
    """
    word, reason = _availability(state, pool)
    starting = [pilot for pilot in pool.pilots if pilot.phase is Phase.STARTING and not pilot.stopping]
    positions = [pilot.position for pilot in starting if pilot.position is not None]
    ready_at = ready_estimate(pool) if word == "starting" else _next_try(state, pool)
    key = pool.spec.key
    return hpc_dispatch_pb2.ModelState(
        id=key.model,
        cluster=key.cluster,
        state=word,
        reason=reason,
        queue_position=max(0, min(positions, default=0)),
        ready_unix_ms=0 if ready_at is None else int(ready_at) * 1000,
        ready=_ready(pool),
        starting=len(starting),
    )


def _next_try(state: State, pool: PoolState) -> float | None:
    """When a worker will probably be ready after a failed start, so that requests may wait for it; None: not soon."""
    gives_up = pool.failures >= min(pool.spec.max_failures, _HOPELESS_FAILURES) or bool(pool.blocked)
    if not pool.failures or gives_up or state.stopping or not state.cluster(pool.spec.key.cluster).online:
        return None
    return pool.retry_at + usual_start_s(pool)


def _ready(pool: PoolState) -> int:
    return sum(pilot.phase is Phase.READY and not pilot.stopping for pilot in pool.pilots)


def _availability(state: State, pool: PoolState) -> tuple[str, str]:
    phases = [pilot.phase for pilot in pool.pilots if not pilot.stopping]
    ready, starting = _ready(pool), Phase.STARTING in phases
    cluster = state.cluster(pool.spec.key.cluster)
    if state.stopping:
        return "offline", "the dispatch service is stopping"
    if ready:
        words = f"{ready} of {len(pool.pilots)} workers ready"
        return "hot", f"{words}; no further one is started: {pool.blocked}" if pool.blocked else words
    if not cluster.online:
        return "offline", cluster.reason
    if pool.failures:
        return "offline", _failing(pool, starting=starting)
    if starting:
        return "starting", _starting(pool)
    if Phase.LOST in phases:
        return "offline", "no sign of life from its workers"
    if pool.blocked:
        return "offline", pool.blocked
    if pool.pilots:
        return "starting", "the last worker is on its way out, its successor follows"
    if pool.spec.min_ready or pool.requested:
        return "starting", "a worker is about to be started"
    return "cold", "no worker runs; a request starts one"


def _failing(pool: PoolState, *, starting: bool) -> str:
    tries = "the last start failed" if pool.failures == 1 else f"{pool.failures} starts in a row failed"
    if starting:
        next_try = "another try is under way"
    elif pool.failures >= pool.spec.max_failures:
        next_try = f"no further try before {reasons.clock_of(pool.retry_at)}"
    elif pool.spec.min_ready > 0 or pool.requested:
        next_try = "the next try waits a little longer each time"
    else:
        next_try = "a request starts the next try"
    return f"{tries}: {pool.reason}; {next_try}"


def _starting(pool: PoolState) -> str:
    starting = [pilot for pilot in pool.pilots if pilot.phase is Phase.STARTING and not pilot.stopping]
    if all(pilot.queued for pilot in starting):
        words = next((pilot.words for pilot in starting if pilot.words), "")
        return "a worker waits in its cluster's queue" + (f": {reasons.quote(words)}" if words else "")
    notes = [pilot.note for pilot in starting if pilot.note]
    return f"a worker is starting: {reasons.quote(notes[0])}" if notes else "a worker is starting"


def _cluster_state(state: State, cluster: ClusterState) -> hpc_dispatch_pb2.ClusterState:
    name = cluster.spec.name
    blocked = [pool.blocked for pool in state.pools if pool.spec.key.cluster == name and pool.blocked]
    return hpc_dispatch_pb2.ClusterState(
        name=name,
        online=cluster.online,
        reason=cluster.reason or next(iter(blocked), ""),
        priority=cluster.spec.priority,
        failure_rate=round(failures.rate(state, name), 3),
    )


def _worker(pool: PoolState, pilot: Pilot, lease: Lease, configured: list[ModelOffer]) -> hpc_dispatch_pb2.Worker:
    announcement = lease.announcement
    leaving = pilot.stopping and pilot.phase is not Phase.LOST
    return hpc_dispatch_pb2.Worker(
        lease_id=lease.id,
        cluster=pool.spec.key.cluster,
        state=hpc_dispatch_pb2.WORKER_STATE_DRAINING if leaving else _STATES[pilot.phase],
        models=[_model(offer) for offer in (announcement.models if announcement else configured)],
        mlkem768_public=announcement.mlkem768 if announcement else b"",
        x25519_public=announcement.x25519 if announcement else b"",
        open_secret=lease.open_secret,
        max_requests=announcement.max_requests if announcement else 0,
        running=pilot.running,
        waiting=pilot.waiting,
        first_token_ms=pilot.first_token_ms or 0.0,
        expires_unix_ms=int(pilot.expires * 1000),
    )


def _model(offer: ModelOffer) -> common_pb2.Model:
    return common_pb2.Model(
        id=offer.id,
        context_window=offer.context_window,
        modalities=offer.modalities,
        capabilities=offer.capabilities,
        demo=offer.demo,
        engine_model=offer.engine_model,
    )
