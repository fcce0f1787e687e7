"""A real gateway whose hpc_dispatch says what a test wants: clusters, states, real workers of a sealed lane.

The gRPC server is real and speaks mutual TLS; only what it says is scripted. It writes down what it is asked for.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from gateway.stage import Gateway, Stage, chat, configure
from gateway_hpc import lane

from stream_core.envelope.keys import open_secret_of
from stream_core.grpc_server import serve_grpc
from stream_core.rpc import common_pb2, hpc_dispatch_pb2, hpc_dispatch_pb2_grpc
from stream_core.settings import TlsFiles
from stream_core.testing.programs import Program

MODEL = "scripted"
PATH = "/v1/chat/completions"
LIMIT = 12
"""Requests that may wait at once."""
READY = hpc_dispatch_pb2.WORKER_STATE_READY


class ScriptedDispatch(hpc_dispatch_pb2_grpc.HpcDispatchServicer):
    """Says what it was told to say."""

    def __init__(self) -> None:
        self.requests: list[hpc_dispatch_pb2.RequestWorkerRequest] = []
        """All RequestWorker so far."""
        self._pool = hpc_dispatch_pb2.Pool(revision=1)
        self._news = asyncio.Condition()
        self._states: dict[str, dict[str, Any]] = {}
        self._workers: dict[bytes, hpc_dispatch_pb2.Worker] = {}

    def forget(self) -> None:
        """Take everything back, with the next `say`."""
        self.requests.clear()
        self._states.clear()
        self._workers.clear()

    async def say(
        self, cluster: str, state: str, *workers: hpc_dispatch_pb2.Worker, in_s: float | None = None, **fields: Any
    ) -> None:
        """Publish how the model stands on a cluster, and its ready workers.

        Args:
            cluster: whose news it is.
            state: in one word.
            workers: all of this cluster.
            in_s: estimate of when one will be ready.
            fields: of `ModelState`.
        """
        if in_s is not None:
            fields["ready_unix_ms"] = int((time.time() + in_s) * 1000)
        self._states[cluster] = {"state": state, **fields}
        self._workers = {key: known for key, known in self._workers.items() if known.cluster != cluster}
        self._workers |= {worker.lease_id: worker for worker in workers}
        async with self._news:
            self._pool = hpc_dispatch_pb2.Pool(
                revision=self._pool.revision + 1,
                workers=self._workers.values(),
                models=[
                    hpc_dispatch_pb2.ModelState(id=MODEL, cluster=name, **said) for name, said in self._states.items()
                ],
            )
            self._news.notify_all()

    async def asked(self, check: Callable[[hpc_dispatch_pb2.RequestWorkerRequest], bool]) -> None:
        """Wait until a worker is asked for in such a way."""
        start = len(self.requests)
        async with asyncio.timeout(60), self._news:
            await self._news.wait_for(lambda: any(map(check, self.requests[start:])))

    async def WatchPool(self, request: Any, context: Any) -> AsyncIterator[hpc_dispatch_pb2.Pool]:  # noqa: N802  (the proto's name)
        """The pool, and each newer one."""
        pool: hpc_dispatch_pb2.Pool | None = None
        while True:
            async with self._news:
                while pool is self._pool:
                    await self._news.wait()
                pool = self._pool
            yield pool

    async def RequestWorker(self, request: Any, context: Any) -> hpc_dispatch_pb2.RequestWorkerReply:  # noqa: N802
        """Written down."""
        async with self._news:
            self.requests.append(request)
            self._news.notify_all()
        return hpc_dispatch_pb2.RequestWorkerReply()


@dataclass
class Scene:
    """A gateway, its dispatch, and the parts that workers need."""

    gateway: Gateway
    dispatch: ScriptedDispatch
    parts: lane.Parts
    client: aiohttp.ClientSession
    stack: contextlib.ExitStack
    programs: dict[bytes, Program] = field(default_factory=dict)
    """Workers by lease."""

    async def play(self, *clusters: dict[str, Any], tiers: tuple[dict[str, Any], ...] = ()) -> "Scene":
        """Give the gateway a tier of these clusters, without workers, and dearer tiers."""
        for program in self.programs.values():
            program.process.kill()
        self.programs.clear()
        self.dispatch.forget()
        for of in clusters:
            await self.dispatch.say(of["name"], "cold", reason="no worker runs")
        hpc = {"name": "hpc", "kind": "hpc", "privacy": "restricted"}
        await configure(self.gateway, hpc, *tiers, clusters=list(clusters))
        await self.told("/v1/models/hpc", lambda told: told["stream"]["state"] == "cold")
        return self

    async def hire(self, cluster: str, **job: Any) -> hpc_dispatch_pb2.Worker:
        """Start a worker; the gateway hears of it when dispatch says so."""
        running = self.parts.for_lease(lane.Lease())
        program = await asyncio.to_thread(self.stack.enter_context, lane.worker(running, **job))
        said = await lane.announcement(running)
        self.programs[running.lease.id] = program
        return hpc_dispatch_pb2.Worker(
            lease_id=running.lease.id,
            cluster=cluster,
            state=READY,
            models=[common_pb2.Model(id=model.id, context_window=model.context_window) for model in said.models],
            mlkem768_public=said.mlkem768,
            x25519_public=said.x25519,
            max_requests=said.max_requests,
            open_secret=open_secret_of(running.lease.secret, lease_id=running.lease.id),
        )

    def ask(self, model: str = "hpc", *, key: str = "all", **fields: Any) -> Any:
        """Ask for a chat completion."""
        return self.client.post(self.gateway.url + PATH, json=chat(model, **fields), headers=self.gateway.headers(key))

    async def get(self, path: str, *, key: str = "all") -> Any:
        """Get JSON."""
        async with self.client.get(self.gateway.url + path, headers=self.gateway.headers(key)) as response:
            assert response.status == 200
            return await response.json()

    async def told(self, path: str, check: Callable[[Any], bool], *, key: str = "all") -> Any:
        """Get JSON again and again until it is as wanted: the gateway hears of news a moment later."""
        return await until(lambda: self.get(path, key=key), check)


async def until(get: Callable[[], Awaitable[Any]], check: Callable[[Any], bool]) -> Any:
    """Look again and again until it is as wanted."""
    async with asyncio.timeout(60):
        while not check(found := await get()):  # noqa: ASYNC110  (another process tells nobody)
            await asyncio.sleep(0.02)
    return found


def cluster(name: str, **pool: Any) -> dict[str, Any]:
    """A cluster of the deployment with one pool of the model."""
    fields = {"max_workers": 2, "min_ready": 0, "cold_wait_s": 20, **pool}
    return {"name": name, "pools": [{"model": {"id": MODEL}, "engine_url": "http://127.0.0.1:9", **fields}]}


@contextlib.asynccontextmanager
async def scene(folder: Path, parts: lane.Parts, **settings: Any) -> AsyncIterator[Scene]:
    """Run a gateway until the block ends; `play` gives it clusters.

    Args:
        folder: for its files.
        parts: broker, relay, engine.
        settings: of the gateway.
    """
    stage = Stage(folder)
    stage.add_key("beta only", clusters=["beta"])
    tls = folder / "tls"
    files = TlsFiles(ca=tls / "ca.pem", certificate=tls / "hpc_dispatch.pem", key=tls / "hpc_dispatch.key")
    dispatch = ScriptedDispatch()

    def register(server: Any) -> None:
        hpc_dispatch_pb2_grpc.add_HpcDispatchServicer_to_server(dispatch, server)

    settings = {"heartbeat_s": 0.2, "grace_s": 2, **settings}
    async with serve_grpc("127.0.0.1:0", files, register, grace_s=0) as port, aiohttp.ClientSession() as client:
        with contextlib.ExitStack() as stack:
            run = stage.run(
                {"STREAM_GATEWAY__NATS__URL": parts.nats_url}, dispatch_target=f"127.0.0.1:{port}", **settings
            )
            gateway = await asyncio.to_thread(stack.enter_context, run)
            yield Scene(gateway, dispatch, parts, client, stack)
            await asyncio.to_thread(stack.close)
