"""What the throttle looks at: who waits here, who says so elsewhere, how full the workers are."""

import time
from typing import Final

from stream_core.broker_client import Client, Msg, NatsError
from stream_gateway.backends.registry import Registry
from stream_gateway.batches.attended import AttendedPipeline
from stream_gateway.batches.streams import PREFIX
from stream_gateway.batches.throttle import Load, pressed

PRESSED: Final = f"{PREFIX}.pressed"
"""A replica whose interactive requests wait says so, since another one may run the lines that they wait for."""
_LASTS_S: Final = 1.0


class Gauge:
    """The eyes of one replica.

    Args:
        client: of the broker.
        registry: the tiers.
        attended: the way of interactive requests.
    """

    def __init__(self, client: Client, registry: Registry, attended: AttendedPipeline) -> None:
        self._client = client
        self._registry = registry
        self._attended = attended
        self._pressed_until = float("-inf")

    async def start(self) -> None:
        """Listen to the other replicas."""
        await self._client.subscribe(PRESSED, cb=self._on_pressed)

    async def read(self, *, refusals: int, running: int) -> Load:
        """Take one reading, and tell the others when it is bad.

        Args:
            refusals: lines that nobody had room for, since the last one.
            running: lines that ran at once since then, at most.
        """
        load = Load(
            waited_s=self._attended.waited_s(),
            pressed_elsewhere=time.monotonic() < self._pressed_until,
            busy=self._busy(),
            refusals=refusals,
            running=running,
        )
        if pressed(load):
            try:
                await self._client.publish(PRESSED, b"")
            except (NatsError, OSError):
                return load  # alone, then
        return load

    def _busy(self) -> float:
        """Share of the workers' places that are in use, what their engines have queued included."""
        hpc = self._registry.hpc
        if hpc is None:
            return 0.0
        channel, pool = hpc
        workers = pool.snapshot.workers.values()
        places = sum(worker.max_requests for worker in workers)
        used = sum(max(channel.running_on(worker.lease_id), worker.running) + worker.waiting for worker in workers)
        return used / places if places else 0.0

    async def _on_pressed(self, _message: Msg) -> None:
        self._pressed_until = time.monotonic() + _LASTS_S
