"""The pool as gateways see it: plan and leases in, one `Pool` message out. Pure."""

from collections.abc import Callable
from typing import Final

from stream_core.envelope.keys import open_secret_of
from stream_core.rpc import common_pb2, hpc_dispatch_pb2
from stream_core.wire.payloads import ModelOffer
from stream_hpc_dispatch import reasons
from stream_hpc_dispatch.leases import Lease
from stream_hpc_dispatch.plan import Phase, Pilot, PoolState, State

LeaseOf = Callable[[int], Lease]
OffersOf = Callable[[PoolState], list[ModelOffer]]

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
        models=[model_state(pool, stopping=state.stopping) for pool in state.pools],
    )


def model_state(pool: PoolState, *, stopping: bool = False) -> hpc_dispatch_pb2.ModelState:
    """Say in one word and one sentence whether a pool can answer now.

    The words hold no clock, so that they change only when something did.
    """
    word, reason = _availability(pool, stopping=stopping)
    key = pool.spec.key
    return hpc_dispatch_pb2.ModelState(id=key.model, cluster=key.cluster, state=word, reason=reason)


def _availability(pool: PoolState, *, stopping: bool) -> tuple[str, str]:
    phases = [pilot.phase for pilot in pool.pilots if not pilot.stopping]
    ready = phases.count(Phase.READY)
    if stopping:
        return "offline", "the dispatch service is stopping"
    if ready:
        return "hot", f"{ready} of {len(pool.pilots)} workers ready"
    if pool.failures:
        tries = "the last start failed" if pool.failures == 1 else f"{pool.failures} starts in a row failed"
        now = "another try is under way" if Phase.STARTING in phases else "the next try waits a little longer each time"
        again = pool.spec.min_ready > 0 or pool.requested or Phase.STARTING in phases
        return "offline", f"{tries}: {pool.reason}; {now if again else 'a request starts the next try'}"
    if Phase.STARTING in phases:
        return "starting", _starting(pool)
    if Phase.LOST in phases:
        return "offline", "no sign of life from its workers"
    if pool.pilots:
        return "starting", "the last worker is on its way out, its successor follows"
    if pool.spec.min_ready or pool.requested:
        return "starting", "a worker is about to be started"
    return "cold", "no worker runs; a request starts one"


def _starting(pool: PoolState) -> str:
    notes = [pilot.note for pilot in pool.pilots if pilot.phase is Phase.STARTING and pilot.note]
    return f"a worker is starting: {reasons.quote(notes[0])}" if notes else "a worker is starting"


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
        open_secret=open_secret_of(lease.bootstrap_secret, lease_id=lease.id),
        max_requests=announcement.max_requests if announcement else 0,
        running=pilot.running,
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
