"""What differs between two pools: the messages that follow the first one of a gateway's watch. Pure.

A worker's keys and models take 1.4 kB and never change, its load takes 40 bytes and changes every two seconds; what a
hundred gateways are told of a thousand workers is so a thirtieth of the whole.
"""

from stream_core.rpc import hpc_dispatch_pb2

_Worker = hpc_dispatch_pb2.Worker


def changes(old: hpc_dispatch_pb2.Pool, new: hpc_dispatch_pb2.Pool) -> hpc_dispatch_pb2.Pool:
    """Say how one whole pool becomes another one.

    Returns:
        A pool with `change` set, of the new one's revision.
    """
    told = {worker.lease_id: worker for worker in old.workers}
    workers = [_change(told.pop(worker.lease_id, None), worker) for worker in new.workers]
    same = old.models == new.models and old.clusters == new.clusters
    return hpc_dispatch_pb2.Pool(
        revision=new.revision,
        change=True,
        workers=[worker for worker in workers if worker is not None],
        gone=list(told),
        models=[] if same else new.models,
        clusters=[] if same else new.clusters,
        states_told=same,
    )


def _change(old: _Worker | None, new: _Worker) -> _Worker | None:
    """What there is to say of a worker; None: nothing."""
    if old == new:
        return None
    if old is None or _fixed(old) != _fixed(new):
        return new
    return hpc_dispatch_pb2.Worker(
        lease_id=new.lease_id,
        state=new.state,
        running=new.running,
        waiting=new.waiting,
        first_token_ms=new.first_token_ms,
        expires_unix_ms=new.expires_unix_ms,
        told=True,
    )


def _fixed(worker: _Worker) -> tuple[object, ...]:
    """All that a worker keeps while it lives under one announcement."""
    keys = (worker.mlkem768_public, worker.x25519_public, worker.open_secret)
    return (worker.cluster, worker.max_requests, *keys, list(worker.models))
