"""A tier behind the sealed channel: picks a worker, seals the request to it, brings the answer back."""

import secrets
import time

import orjson

from stream_core.deployment import ClusterConfig, ModelConfig, TierConfig
from stream_core.errors import RemoteError, StreamBroken, UpstreamRejected, UpstreamTimeout, UpstreamUnavailable
from stream_core.ids import new_id
from stream_gateway.backends.continued import ContinuedAnswer, Persistence
from stream_gateway.backends.contract import Answer, Call, OfferedModel
from stream_gateway.channel import Channel, SealedAnswer
from stream_gateway.pool import PooledWorker, PoolWatch
from stream_gateway.sealed_call import SealedCall

_MAX_ERROR_BODY = 256 * 1024


class HpcBackend:
    """One tier of kind hpc.

    Args:
        tier: its configuration.
        clusters: those that serve this tier.
        channel: shared by all hpc tiers of this replica.
        pool: likewise.
        persistence: of answers whose worker is lost.
    """

    def __init__(
        self,
        tier: TierConfig,
        clusters: list[ClusterConfig],
        channel: Channel,
        pool: PoolWatch,
        persistence: Persistence | None = None,
    ) -> None:
        self._persistence = persistence or Persistence()
        self.echoes: dict[tuple[str, str], bool] = {}
        self._tier = tier
        self._clusters = frozenset(cluster.name for cluster in clusters)
        pools = [pool.model for cluster in clusters for pool in cluster.pools]
        self._configured = {model.id: _offered(model) for model in [*tier.models, *pools]}
        self._channel = channel
        self._pool = pool

    async def start(self) -> None:
        """Nothing of its own: channel and pool are started by who made them."""

    async def aclose(self) -> None:
        """Nothing of its own."""

    def models(self) -> list[OfferedModel]:
        """Configured models, then those that only a worker announced; what a worker says of a model is the truth."""
        models = dict(self._configured)
        for worker in self._workers():
            models |= worker.models
        return list(models.values())

    def unavailable(self, model: str) -> str | None:
        """None when a worker of this model is ready."""
        if not self._channel.connected:
            return "the broker is away"
        if any(model in worker.models for worker in self._workers()):
            return None
        reasons = [
            reason
            for (cluster, id_), reason in self._pool.snapshot.states.items()
            if id_ == model and cluster in self._clusters and reason
        ]
        return "; ".join(reasons) or f"no worker of {model} is ready"

    def note(self) -> str:
        """Say when the pool is the last known one."""
        return "" if self._pool.connected else "dispatch away, last known pool"

    async def open(self, call: Call) -> Answer:
        """Try the ready workers, the least busy first, until one accepts; see the contract."""
        # New requests may hide behind a busy event loop: the least busy worker is chosen anew for each attempt.
        tried: set[bytes] = set()
        reason = self.unavailable(call.model)
        while worker := self.choose(call.model, tried):
            tried.add(worker.lease_id)
            try:
                answer = await self.open_on(call, worker)
                return ContinuedAnswer(answer, worker, call, self, self._persistence)
            except UpstreamUnavailable as error:
                reason = error.message
        if not tried:
            self._pool.request_worker(call.model)
        raise UpstreamUnavailable(f"{self._tier.name}: {reason}")

    def _workers(self) -> list[PooledWorker]:
        return [worker for worker in self._pool.snapshot.workers.values() if worker.cluster in self._clusters]

    def choose(self, model: str, without: set[bytes]) -> PooledWorker | None:
        """Find the least busy ready worker of a model, without these leases."""
        candidates = [worker for worker in self._workers() if model in worker.models and worker.lease_id not in without]

        def load(worker: PooledWorker) -> float:
            return self._channel.running_on(worker.lease_id) / max(1, worker.max_requests)

        return min(candidates, key=load, default=None)

    def is_ready(self, lease_id: bytes) -> bool:
        """Whether a worker takes requests."""
        return lease_id in self._pool.snapshot.workers

    def request(self, model: str) -> None:
        """Ask dispatch for a worker."""
        self._pool.request_worker(model)

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
        body = orjson.dumps({**call.request, "model": worker.engine_models[call.model]})
        frames = sealed.open_frames(
            body,
            path=f"/v1{call.path}",
            opened_at_ms=time.time_ns() // 1_000_000,
            headers={**call.headers, "x-request-id": call.request_id.hex()},
        )
        try:
            answer = await self._channel.open(
                sealed,
                frames,
                first_token_timeout_s=self._tier.first_token_timeout_s,
                idle_timeout_s=self._tier.idle_timeout_s,
            )
        except StreamBroken as error:
            # Before the first byte a broken stream is a worker that could not do it: another one may.
            raise UpstreamUnavailable(error.message) from error
        if answer.head is not None and answer.head.status == 200:  # noqa: PLR2004  (HTTP's own number)
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


def _offered(model: ModelConfig) -> OfferedModel:
    return OfferedModel(
        id=model.id,
        context_window=model.context_window,
        modalities=frozenset(model.modalities) | {"text"},
        capabilities=frozenset(model.capabilities),
        demo=model.demo,
    )
