"""One job as the driver follows it: what it knows of it, what it writes down, how it waits for its end."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from stream_core.ids import to_hex
from stream_hpc_dispatch.clusters.base import Cluster, Ended, JobHandle
from stream_hpc_dispatch.jobs import Pool
from stream_hpc_dispatch.leases import Lease
from stream_hpc_dispatch.records import Record
from stream_hpc_dispatch.states import Pilot, PoolKey


@dataclass(slots=True)
class Running:
    """One job, from when it is to be submitted until its end is known."""

    key: PoolKey
    expires: float
    cluster: Cluster
    handle: JobHandle | None = None
    stop_asked: bool = False
    stop_asked_at: float = 0.0
    heard_at: float = 0.0
    """When its worker last spoke; 0: never."""
    silent: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when its worker counts as ended by its silence."""
    kept: tuple[object, ...] = ()
    """What was last written down of it."""
    kept_at: float = 0.0


def record_of(pilot: Pilot, running: Running, lease: Lease, pool: Pool) -> Record:
    """Draw what another run must know of a job to go on with it."""
    return Record(
        lease=lease.id,
        bootstrap_secret=lease.bootstrap_secret,
        cluster=running.key.cluster,
        backend=running.cluster.backend,
        model=running.key.model,
        fingerprint=pool.fingerprint,
        expires=running.expires,
        handle=running.handle or "",
        phase=pilot.phase.value,
        stopping=pilot.stopping,
        announcement=lease.announcement,
        given_up=lease.given_up,
        last_sequence=lease.last_sequence,
        seen=pilot.seen,
        ran_from=pilot.ran_from,
    )


async def first_of(observing: Coroutine[Any, Any, Ended], *others: asyncio.Event) -> Ended | None:
    """Wait for a job's end; None when one of the events comes first."""
    job = asyncio.ensure_future(observing)
    waiting = [asyncio.ensure_future(event.wait()) for event in others]
    try:
        await asyncio.wait({job, *waiting}, return_when=asyncio.FIRST_COMPLETED)
        return job.result() if job.done() else None
    finally:
        for task in (job, *waiting):
            task.cancel()
        await asyncio.gather(job, *waiting, return_exceptions=True)


def facts(key: PoolKey, lease: Lease) -> dict[str, object]:
    """Say in a log line which job it is."""
    return {"lease": to_hex(lease.id), "cluster": key.cluster, "model": key.model}
