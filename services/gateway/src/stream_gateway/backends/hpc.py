"""A tier behind the sealed channel: picks a worker, seals the request to it, brings the answer back."""

import secrets
import time
from dataclasses import replace

import orjson

from stream_core import gen_ai
from stream_core.deployment import ClusterConfig, TierConfig
from stream_core.errors import (
    RemoteError,
    StreamBroken,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
    WorkerNotReady,
    WorkerRefused,
)
from stream_core.ids import new_id
from stream_core.openai.requests import OUTSIDE
from stream_core.trace_context import outgoing
from stream_core.tracing import Kind, step
from stream_gateway.backends.clusters import Clusters
from stream_gateway.backends.continued import ContinuedAnswer, Persistence
from stream_gateway.backends.contract import Answer, Call, OfferedModel, offered
from stream_gateway.channel import Channel
from stream_gateway.choice import best, to_wake
from stream_gateway.pool import PooledWorker, PoolWatch
from stream_gateway.sealed_answer import SealedAnswer
from stream_gateway.sealed_call import SealedCall
from stream_gateway.standing import Standing, overall
from stream_gateway.waiting import Waiting, Wish

_MAX_ERROR_BODY = 256 * 1024
_WAKE_S = 1.0


class HpcBackend:
    """One tier of kind hpc.

    Args:
        tier: its configuration.
        clusters: those that serve this tier.
        channel: shared by all hpc tiers of this replica.
        pool: likewise.
        waiting: likewise.
        persistence: of answers whose worker is lost.
    """

    def __init__(
        self,
        tier: TierConfig,
        clusters: list[ClusterConfig],
        channel: Channel,
        pool: PoolWatch,
        waiting: Waiting,
        persistence: Persistence | None = None,
    ) -> None:
        self._persistence = persistence or Persistence()
        self.echoes: dict[tuple[str, str], bool] = {}
        self.name = tier.name
        self._tier = tier
        pools = [pool.model for cluster in clusters for pool in cluster.pools]
        self._configured = {model.id: offered(model) for model in [*tier.models, *pools]}
        self._privacy: dict[str, frozenset[str]] = {}
        for model in [*tier.models, *pools]:
            # On several clusters a model may see what each of them may: an answer may move from one to another.
            self._privacy[model.id] = self._privacy.get(model.id, frozenset()) | offered(model).privacy
        self._clusters = Clusters(clusters, channel, pool)
        self._channel = channel
        self._pool = pool
        self._waiting = waiting
        self._woken: dict[tuple[str, str], float] = {}

    async def start(self) -> None:
        """Nothing of its own: channel, pool and waiting are started by who made them."""

    async def aclose(self) -> None:
        """Nothing of its own."""

    def models(self) -> list[OfferedModel]:
        """Configured models, then those that only a worker announced; what a worker says of a model is the truth."""
        models = dict(self._configured)
        for worker in self._clusters.announced():
            models |= worker.models
        return [replace(model, privacy=self._privacy.get(id_, frozenset())) for id_, model in models.items()]

    def unavailable(self, model: str) -> str | None:
        """None when a worker of this model is ready."""
        if not self._channel.connected:
            return "the broker is away"
        standing = self.standing(model, None)
        return None if standing.hot else standing.reason or f"no worker of {model} is ready"

    def standings(self, model: str) -> dict[str, Standing]:
        """How a model stands, by cluster."""
        return self._clusters.standings(model)

    def standing(self, model: str, clusters: frozenset[str] | None) -> Standing:
        """How it stands over these clusters."""
        return overall(self._clusters.standings(model, clusters))

    def places(self, model: str, clusters: frozenset[str] | None) -> int:
        """Requests that ready workers of these clusters would take now."""
        return sum(option.places for option in self._clusters.options(model, clusters))

    def cluster_to_wake(self, model: str, clusters: frozenset[str] | None) -> str | None:
        """The cluster that should start a worker, or one more."""
        return to_wake(self._clusters.standings(model, clusters), self._clusters.priorities())

    def request(self, model: str, cluster: str, waiting: int) -> None:
        """Ask dispatch for a worker on this cluster."""
        self._pool.request_worker(model, cluster, waiting)

    def wake(self, model: str, clusters: frozenset[str] | None) -> None:
        """Ask dispatch for a worker where one can be started, at most once a second."""
        cluster, now = self.cluster_to_wake(model, clusters), time.monotonic()
        if cluster is not None and now - self._woken.get((cluster, model), float("-inf")) >= _WAKE_S:
            self._woken[cluster, model] = now
            self.request(model, cluster, 0)

    def note(self) -> str:
        """Say when the pool is the last known one."""
        return "" if self._pool.connected else "dispatch away, last known pool"

    async def open(self, call: Call) -> Answer:
        """Try the ready workers, the best first, until one accepts; wait for one where none has a place."""
        wish = Wish(self, call.model, call.clusters)
        if call.tell is None or not self._waiting.has(wish):
            try:
                return await self._open_now(call)
            except (WorkerRefused, WorkerNotReady):
                if call.tell is None or not self.standing(call.model, call.clusters).comes:
                    self.wake(call.model, call.clusters)
                    raise
        # Who comes while others wait for the same goes to the end of the line.
        return await self._waiting.wait(wish, call.tell, lambda: self._open_now(call))

    async def _open_now(self, call: Call) -> Answer:
        """Ask the ready workers.

        Raises:
            WorkerNotReady: there is none.
            WorkerRefused: none has a place.
            UpstreamUnavailable: those that could be asked failed.
        """
        # New requests may hide behind a busy event loop: the best worker is chosen anew for each attempt.
        call.phases.lap("queue")
        tried: set[bytes] = set()
        failure: UpstreamUnavailable | None = None
        while worker := self.choose(call, tried):
            tried.add(worker.lease_id)
            try:
                answer = await self.open_on(call, worker)
                return ContinuedAnswer(answer, worker, call, self, self._persistence)
            except WorkerRefused as error:
                self._clusters.refused(worker)
                failure = error
            except UpstreamUnavailable as error:
                failure = failure if isinstance(failure, WorkerRefused) else error
        standing = self.standing(call.model, call.clusters)
        if failure is not None and standing.hot:
            raise type(failure)(f"{self.name}: {failure.message}") from failure
        # Also where those that were there are gone: a successor counts for as much as a first one.
        message = f"{self.name}: {standing.reason or f'no worker of {call.model} is ready'}"
        if standing.comes:
            raise WorkerNotReady(message, retry_after_s=standing.ready_in_s) from failure
        self.wake(call.model, call.clusters)
        raise UpstreamUnavailable(message) from failure

    def choose(self, call: Call, without: set[bytes]) -> PooledWorker | None:
        """Find the best ready worker that may answer a call, without these leases."""
        options = self._clusters.options(call.model, call.clusters)
        found = best(option for option in options if option.lease_id not in without)
        return self._pool.snapshot.workers[found.lease_id] if found else None

    def lost(self, worker: PooledWorker) -> None:
        """A worker did not finish an answer: it, and its cluster, come after the others for a while."""
        self._clusters.unreached(worker)

    def is_ready(self, lease_id: bytes) -> bool:
        """Whether a worker takes requests."""
        return lease_id in self._pool.snapshot.workers

    async def open_on(self, call: Call, worker: PooledWorker) -> SealedAnswer:
        """Open a call on this very worker; errors as of `open`."""
        sealed = SealedCall(
            lease_id=worker.lease_id,
            worker_key=worker.key,
            open_secret=worker.open_secret,
            request_id=new_id(),
            gateway_id=self._channel.gateway_id,
            secret=secrets.token_bytes(32),
        )
        facts = {gen_ai.LEASE: worker.lease_id.hex(), gen_ai.CLUSTER: worker.cluster}
        with step("worker", kind=Kind.CLIENT, attributes=facts):
            return await self._send(call, worker, sealed)

    async def _send(self, call: Call, worker: PooledWorker, sealed: SealedCall) -> SealedAnswer:
        body = orjson.dumps({**call.request, "model": worker.engine_models[call.model]})
        frames = sealed.open_frames(
            body,
            path=call.path if call.path in OUTSIDE else f"/v1{call.path}",
            opened_at_ms=time.time_ns() // 1_000_000,
            headers={**call.headers, **outgoing(), "x-request-id": call.request_id.hex()},
        )
        began = time.monotonic()
        try:
            answer = await self._channel.open(
                sealed,
                frames,
                first_token_timeout_s=self._tier.first_token_timeout_s,
                idle_timeout_s=self._tier.idle_timeout_s,
                phases=call.phases,
            )
        except WorkerRefused:
            raise
        except (StreamBroken, UpstreamUnavailable) as error:
            # Before the first byte a broken stream is a worker that could not do it: another one may.
            self._clusters.unreached(worker)
            raise UpstreamUnavailable(error.message) from error
        answer.cluster = worker.cluster
        if answer.head is not None and answer.head.status == 200:  # noqa: PLR2004  (HTTP's own number)
            answer.tell_first(lambda at: self._clusters.measured(worker.cluster, call.model, (at - began) * 1000))
            return answer
        raise await _refusal(answer)


async def _refusal(answer: SealedAnswer) -> RemoteError:
    """Read the engine's own error, bounded, and say what kind it is."""
    status = answer.head.status if answer.head else 502
    body = b""
    try:
        async for batch in answer:
            body += b"".join(batch)
            if len(body) > _MAX_ERROR_BODY:
                break
    except (StreamBroken, UpstreamTimeout) as error:
        return UpstreamUnavailable(error.message)
    finally:
        await answer.aclose()
    message = f"the engine answered {status}"
    if 400 <= status < 500:  # noqa: PLR2004  (HTTP's own classes)
        return UpstreamRejected(message, status=status, body=body, content_type=answer.content_type)
    return UpstreamUnavailable(message)
