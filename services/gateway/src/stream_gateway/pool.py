"""The gateway's view of the workers, as hpc_dispatch publishes it over mutual TLS: the only source of their keys.

When dispatch is away, the last known pool goes on: workers and keys do not depend on it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import grpc.aio
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PublicKey

from stream_core.envelope.keys import PublicKey
from stream_core.errors import SealError
from stream_core.grpc_client import open_channel
from stream_core.grpc_tracing import call_attributes
from stream_core.ids import to_hex
from stream_core.rpc import hpc_dispatch_pb2, hpc_dispatch_pb2_grpc
from stream_core.settings import TlsFiles
from stream_core.trace_context import metadata
from stream_core.tracing import Kind, step
from stream_gateway.backends.contract import OfferedModel

_log = logging.getLogger(__name__)
_REQUEST = "stream.v1.HpcDispatch/RequestWorker"
_RETRY_S = 0.3
_REQUEST_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class PooledWorker:
    """A worker that takes requests."""

    lease_id: bytes
    cluster: str
    models: dict[str, OfferedModel]
    engine_models: dict[str, str]
    key: MLKEM768X25519PublicKey
    open_secret: bytes = field(repr=False)
    """Proves to the worker that a request is a gateway's."""
    max_requests: int
    running: int = 0
    """Requests of all gateways, by its last status."""
    waiting: int = 0
    """Queued in its engine, likewise."""
    first_token_ms: float = 0.0
    """The engine's own, median of late; 0: none yet."""


@dataclass(frozen=True, slots=True)
class ModelNews:
    """What hpc_dispatch says of a model on a cluster."""

    state: str
    """"hot", "starting", "cold" or "offline"."""
    reason: str = ""
    queue_position: int = 0
    """0: not queued, or not known."""
    ready_unix_s: float = 0.0
    """Estimate; 0: not known, or hot."""
    starting: int = 0


@dataclass(frozen=True, slots=True)
class ClusterNews:
    """What hpc_dispatch says of a cluster."""

    online: bool = True
    reason: str = ""
    priority: int = 0
    failure_rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The pool at one moment."""

    workers: dict[bytes, PooledWorker]
    """Those that take requests, by lease id."""
    states: dict[tuple[str, str], ModelNews]
    """By cluster and model."""
    alive: frozenset[bytes]
    """Leases whose running requests go on: ready or draining."""
    clusters: dict[str, ClusterNews] = field(default_factory=dict)


EMPTY = Snapshot({}, {}, frozenset())

OnLost = Callable[[bytes], None]


class PoolWatch:
    """Keeps `snapshot` current.

    Args:
        target: of hpc_dispatch.
        tls: certificate files.
        gateway_id: this replica's.
    """

    def __init__(self, target: str, tls: TlsFiles, gateway_id: bytes) -> None:
        self._target = target
        self._tls = tls
        self._gateway_id = gateway_id
        self._task: asyncio.Task[None] | None = None
        self._asked: set[asyncio.Task[None]] = set()
        self._stub: hpc_dispatch_pb2_grpc.HpcDispatchStub | None = None
        self._keys: dict[tuple[bytes, bytes], MLKEM768X25519PublicKey] = {}
        self._known: dict[bytes, PooledWorker] = {}
        self.snapshot = EMPTY
        self.connected = False
        self.known = asyncio.Event()
        """Set by the first snapshot."""
        self.on_lost: list[OnLost] = []
        """Called with the id of each lease that is gone: its running answers will not be completed."""
        self.on_change: list[Callable[[], None]] = []
        """Called after each new snapshot."""

    async def start(self) -> None:
        """Begin to watch; returns at once."""
        self._task = asyncio.create_task(self._watch())

    async def aclose(self) -> None:
        """Stop watching."""
        for task in [*self._asked, *([self._task] if self._task else [])]:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def request_worker(self, model: str, cluster: str, waiting: int = 0) -> None:
        """Ask dispatch for a worker of a model that has none, or too few; the answer comes as a new snapshot.

        Args:
            model: the name users see.
            cluster: that is to start it.
            waiting: requests of this gateway that wait for it now.
        """
        task = asyncio.get_running_loop().create_task(self._request(model, cluster, waiting))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def _request(self, model: str, cluster: str, waiting: int) -> None:
        if self._stub is None:
            return
        request = hpc_dispatch_pb2.RequestWorkerRequest(
            model=model, cluster=cluster, waiting=waiting, gateway_id=to_hex(self._gateway_id)
        )
        try:
            with step(_REQUEST, kind=Kind.CLIENT, attributes=call_attributes(_REQUEST)):
                await self._stub.RequestWorker(request, timeout=_REQUEST_TIMEOUT_S, metadata=metadata())
        except grpc.aio.AioRpcError as error:
            _log.warning("no worker asked for: %s", error.details(), extra={"model": model})

    async def _watch(self) -> None:
        async with open_channel(self._target, self._tls) as channel:
            self._stub = hpc_dispatch_pb2_grpc.HpcDispatchStub(channel)  # type: ignore[no-untyped-call]  # generated
            while True:
                try:
                    watch = hpc_dispatch_pb2.WatchPoolRequest(gateway_id=to_hex(self._gateway_id), changes=True)
                    async for pool in self._stub.WatchPool(watch, wait_for_ready=True):
                        if not self.connected:
                            _log.info("watching the pool")
                        self.connected = True
                        self._take(pool)
                        self.known.set()
                except grpc.aio.AioRpcError as error:
                    if self.connected:
                        _log.warning("dispatch is away, the last known pool goes on: %s", error.details())
                self.connected = False
                await asyncio.sleep(_RETRY_S)

    def _take(self, pool: hpc_dispatch_pb2.Pool) -> None:
        """Take the whole pool, or what has changed of it."""
        before = self.snapshot
        if not pool.change:
            self._known = {}
        told = {*pool.gone, *(worker.lease_id for worker in pool.workers)}
        # Of a change, who is not named stays as he was; of a whole pool, nobody does.
        workers = {
            lease_id: worker for lease_id, worker in before.workers.items() if pool.change and lease_id not in told
        }
        alive = {lease_id for lease_id in before.alive if pool.change and lease_id not in told}
        for lease_id in pool.gone:
            self._known.pop(lease_id, None)
        for worker in pool.workers:
            if worker.state in {hpc_dispatch_pb2.WORKER_STATE_READY, hpc_dispatch_pb2.WORKER_STATE_DRAINING}:
                alive.add(worker.lease_id)
            known = self._learn(worker)
            if known is not None and worker.state == hpc_dispatch_pb2.WORKER_STATE_READY:
                workers[worker.lease_id] = known
        self._keys = {known: key for known, key in self._keys.items() if known[0] in self._known}
        self.snapshot = replace(before, workers=workers, alive=frozenset(alive))
        if not pool.states_told:
            states = {(state.cluster, state.id): _model_news(state) for state in pool.models}
            clusters = {state.name: _cluster_news(state) for state in pool.clusters}
            self.snapshot = replace(self.snapshot, states=states, clusters=clusters)
        self._tell(set(before.alive) - alive)

    def _tell(self, lost: set[bytes]) -> None:
        for lease_id in lost:
            for notify in self.on_lost:
                notify(lease_id)
        for tell in self.on_change:
            tell()

    def _learn(self, worker: hpc_dispatch_pb2.Worker) -> PooledWorker | None:
        """Know a worker's news; None while it has no keys, or none that can be used."""
        if worker.told:
            known = self._known.get(worker.lease_id)
        else:
            self._known.pop(worker.lease_id, None)
            known = self._read(worker)
        if known is not None:
            known = replace(known, running=worker.running, waiting=worker.waiting, first_token_ms=worker.first_token_ms)
            self._known[worker.lease_id] = known
        return known

    def _read(self, worker: hpc_dispatch_pb2.Worker) -> PooledWorker | None:
        if not worker.x25519_public:
            return None  # it has not announced itself
        identity = (worker.lease_id, worker.x25519_public)
        try:
            if identity not in self._keys:
                self._keys[identity] = PublicKey(worker.mlkem768_public, worker.x25519_public).load()
        except SealError as error:
            _log.error("worker left out: %s", error.message, extra={"lease": to_hex(worker.lease_id)})
            return None
        models = {
            model.id: OfferedModel(
                id=model.id,
                context_window=model.context_window,
                modalities=frozenset(model.modalities) | {"text"},
                capabilities=frozenset(model.capabilities),
                demo=model.demo,
            )
            for model in worker.models
        }
        return PooledWorker(
            lease_id=worker.lease_id,
            cluster=worker.cluster,
            models=models,
            engine_models={model.id: model.engine_model or model.id for model in worker.models},
            key=self._keys[identity],
            open_secret=worker.open_secret,
            max_requests=worker.max_requests,
        )


def _model_news(state: hpc_dispatch_pb2.ModelState) -> ModelNews:
    return ModelNews(
        state=state.state,
        reason=state.reason,
        queue_position=state.queue_position,
        ready_unix_s=state.ready_unix_ms / 1000,
        starting=state.starting,
    )


def _cluster_news(state: hpc_dispatch_pb2.ClusterState) -> ClusterNews:
    return ClusterNews(state.online, state.reason, state.priority, state.failure_rate)
