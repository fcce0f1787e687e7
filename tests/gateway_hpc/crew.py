"""Several workers of one model on a sealed lane, each a process that can be killed, and the gateway's backend here.

The backend's pool is told of deaths as hpc_dispatch's watch tells it; dispatch itself has its own tests.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from gateway_hpc import lane

from stream_core.deployment import ClusterConfig, TierConfig
from stream_core.ids import new_id
from stream_core.settings import TlsFiles
from stream_core.testing.programs import Program
from stream_gateway.backends.continued import Persistence
from stream_gateway.backends.contract import Answer, Call
from stream_gateway.backends.hpc import HpcBackend
from stream_gateway.channel import Channel
from stream_gateway.pool import PooledWorker, PoolWatch, Snapshot
from stream_gateway.waiting import Waiting

TIER = TierConfig(name="hpc", kind="hpc", idle_timeout_s=30, first_token_timeout_s=30)
CLUSTERS = [ClusterConfig(name="test", tier="hpc"), ClusterConfig(name="other", tier="hpc")]
MODEL = "scripted"


@dataclass
class Hands:
    """Workers that are alive, over several tests."""

    parts: lane.Parts
    stack: contextlib.ExitStack
    alive: dict[bytes, tuple[Program, PooledWorker]] = field(default_factory=dict)

    async def hire(self, count: int) -> None:
        """Start workers until there are so many."""
        await asyncio.gather(*(self.add() for _ in range(count - len(self.alive))))

    async def add(self, **job: Any) -> PooledWorker:
        """Start one more."""
        running = self.parts.for_lease(lane.Lease())
        program = await asyncio.to_thread(self.stack.enter_context, lane.worker(running, **job))
        worker = await lane.announced(running)
        self.alive[worker.lease_id] = program, worker
        return worker


@contextlib.contextmanager
def hands(parts: lane.Parts) -> Iterator[Hands]:
    """End all workers with the block."""
    with contextlib.ExitStack() as stack:
        yield Hands(parts, stack)


@dataclass
class Crew:
    """The gateway's side of it."""

    hands: Hands
    channel: Channel
    pool: PoolWatch
    backend: HpcBackend
    killed: asyncio.Event = field(default_factory=asyncio.Event)
    """A worker was killed, and the pool knows."""

    def show(self, *workers: PooledWorker, capabilities: frozenset[str] = frozenset()) -> None:
        """Make these, in this order, the pool; without any, all that are alive."""
        shown = {}
        for worker in workers or [worker for _, worker in self.hands.alive.values()]:
            models = {name: replace(model, capabilities=capabilities) for name, model in worker.models.items()}
            shown[worker.lease_id] = replace(worker, models=models)
        self.pool.snapshot = Snapshot(shown, {}, frozenset(shown))

    def busy(self) -> bytes:
        """The worker that has an answer open."""
        (lease_id,) = [lease_id for lease_id in self.hands.alive if self.channel.running_on(lease_id)]
        return lease_id

    async def kill(self, lease_id: bytes) -> None:
        """`kill -9` a worker, and let the pool notice."""
        program, _ = self.hands.alive.pop(lease_id)
        program.process.kill()
        await asyncio.to_thread(program.process.wait)
        workers = {key: worker for key, worker in self.pool.snapshot.workers.items() if key != lease_id}
        self.pool.snapshot = Snapshot(workers, {}, frozenset(workers))
        self.channel.lost(lease_id)
        self.killed.set()

    async def ask(
        self, script: dict[str, Any] | None = None, *, clusters: frozenset[str] | None = None, **request: Any
    ) -> Answer:
        """Ask the tier; streamed unless the request says otherwise."""
        body = {"messages": [{"role": "user", "content": "count"}], "stream": True, **request}
        if script is not None:
            body["script"] = script
        stream = body["stream"]
        return await self.backend.open(
            Call(new_id(), "/chat/completions", MODEL, body, stream=stream, clusters=clusters)
        )


@contextlib.asynccontextmanager
async def crew(hands: Hands, persistence: Persistence | None = None) -> AsyncIterator[Crew]:
    """A backend whose pool is what `show` says."""
    async with lane.channel(hands.parts.nats_url) as channel:
        pool = PoolWatch("unused", TlsFiles.model_construct(), new_id())
        backend = HpcBackend(TIER, CLUSTERS, channel, pool, Waiting(), persistence)
        yield Crew(hands, channel, pool, backend)
        await pool.aclose()


@dataclass
class Read:
    """What a client read."""

    events: list[bytes] = field(default_factory=list)

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """All but "[DONE]"."""
        return [json.loads(event[6:]) for event in self.events if event != b"data: [DONE]\n\n"]

    @property
    def text(self) -> str:
        """All deltas."""
        return "".join(c["delta"].get("content") or "" for chunk in self.chunks for c in chunk["choices"])

    @property
    def usage(self) -> dict[str, int] | None:
        """The last one."""
        found = [chunk["usage"] for chunk in self.chunks if chunk.get("usage")]
        return found and {name: count for name, count in found[-1].items() if name.endswith("_tokens")}

    @property
    def mark(self) -> dict[str, Any] | None:
        """The metadata of the chunk with the finish_reason."""
        (last,) = [chunk for chunk in self.chunks if chunk["choices"] and chunk["choices"][0]["finish_reason"]]
        return last.get("stream")


async def read(answer: Answer, *, killing: Crew | None = None, after: tuple[int, ...] = ()) -> Read:
    """Read an answer; as soon as so many events came, kill the worker that gives it.

    Args:
        answer: that has begun.
        killing: whose workers.
        after: counts of events, one for each kill.
    """
    got = Read()
    left = list(after)
    async with contextlib.aclosing(answer):
        async for batch in answer:
            got.events += batch
            if killing and left and len(got.events) >= left[0]:
                del left[0]
                await killing.kill(killing.busy())
    assert not left, "the answer ended before the worker could be killed"
    return got
