"""The gateway's end of the data plane: one NATS subscription, all sealed answers of this replica demultiplexed here.

Once a second every answer is looked at: a silent worker is asked to send again, then given up; a lost CREDIT or RESUME
is so healed by itself.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable

from stream_core import bus
from stream_core.broker_client import Client, Msg, NatsError
from stream_core.errors import ConfigError, FrameError, StreamBroken, UpstreamUnavailable
from stream_core.settings import NatsSettings
from stream_core.telemetry import Once
from stream_core.wire import subjects
from stream_core.wire.frames import join, split
from stream_core.wire.window import Budget, Limits, Window
from stream_gateway.phases import Phases
from stream_gateway.sealed_answer import Patience, SealedAnswer
from stream_gateway.sealed_call import SealedCall

_log = logging.getLogger(__name__)
_MAX_MESSAGE = 960 * 1024
_RETRY_S = 1.0


class Channel:
    """All sealed answers of one gateway replica.

    Args:
        nats: the broker.
        gateway_id: return address of this replica, 16 bytes.
        patience: with silence.
        limits: of the answers' windows.
    """

    def __init__(
        self,
        nats: NatsSettings,
        gateway_id: bytes,
        patience: Patience | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.patience = patience or Patience()
        self._limits = limits or Limits()
        self.budget = Budget(self._limits.budget)
        self._nats = nats
        self.gateway_id = gateway_id
        self.faults = Once(_log)
        self._answers: dict[bytes, SealedAnswer] = {}
        self._running: dict[bytes, int] = {}
        self._client: Client | None = None
        self._connected = asyncio.Event()
        self._outbox: deque[tuple[bytes, bytes]] = deque()
        self._outbox_filled = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.on_free: list[Callable[[], None]] = []
        """Called whenever a worker has one answer less."""

    @property
    def connected(self) -> bool:
        """Whether the broker is there."""
        return self._client is not None and self._client.is_connected

    async def wait_connected(self) -> None:
        """Wait until the broker has been reached once."""
        await self._connected.wait()

    def running_on(self, lease_id: bytes) -> int:
        """Answers of this replica that a worker has open."""
        return self._running.get(lease_id, 0)

    async def start(self) -> None:
        """Begin to connect; returns at once."""
        self._tasks = [asyncio.create_task(work) for work in (self._connect(), self._pump(), self._watch())]

    async def aclose(self) -> None:
        """Cancel what is open and disconnect."""
        for answer in list(self._answers.values()):
            await answer.aclose()
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._client is not None:
            await self._flush(self._client)
            await bus.close(self._client)

    async def open(
        self,
        call: SealedCall,
        frames: list[bytes],
        *,
        first_token_timeout_s: float,
        idle_timeout_s: float,
        phases: Phases | None = None,
    ) -> SealedAnswer:
        """Send a request and wait until the engine answers; `phases` is told when the worker has accepted it.

        Raises:
            UpstreamUnavailable: the worker can't be reached or refuses; another may be tried.
            UpstreamTimeout: accepted, but no answer within the limit.
            RemoteError: the worker failed.
        """
        answer = SealedAnswer(self, call, idle_timeout_s, Window(call.window, self._limits.most, self.budget))
        self._answers[call.request_id] = answer
        self._running[call.lease_id] = self._running.get(call.lease_id, 0) + 1
        try:
            await self._until_accepted(answer, frames)
            if phases is not None:
                phases.lap("network")
            await answer.wait_head(first_token_timeout_s)
        except BaseException:
            await answer.aclose()
            raise
        return answer

    def send(self, lease_id: bytes, frame: bytes) -> None:
        """Queue a frame for a worker; those of one turn of the event loop leave together."""
        self._outbox.append((lease_id, frame))
        self._outbox_filled.set()

    def forget(self, answer: SealedAnswer) -> None:
        """Drop an answer: frames that still come for it are counted and dropped."""
        if self._answers.pop(answer.call.request_id, None) is not None:
            lease_id = answer.call.lease_id
            self._running[lease_id] -= 1
            if not self._running[lease_id]:
                del self._running[lease_id]
            for tell in self.on_free:
                tell()

    def lost(self, lease_id: bytes) -> None:
        """A worker is gone: its answers will not be completed."""
        for answer in list(self._answers.values()):
            if answer.call.lease_id == lease_id:
                answer.fail(StreamBroken("the worker was lost"))

    async def _until_accepted(self, answer: SealedAnswer, frames: list[bytes]) -> None:
        # A broker delivers at most once: OPEN is sent again, as the same bytes, until the worker shows that it has it.
        for wait_s in self.patience.resend_open:
            for frame in frames:
                self.send(answer.call.lease_id, frame)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await answer.accepted.wait()
                return
        limit = sum(self.patience.resend_open)
        raise UpstreamUnavailable(f"the worker did not accept within {limit:g} s: not reachable, or its clock is wrong")

    async def _receive(self, message: Msg) -> None:
        try:
            frames = split(message.data)
        except FrameError as error:
            self.faults.note(error.code, error.message)
            return
        for frame in frames:
            answer = self._answers.get(frame.request_id)
            if answer is None:
                # Often only the tail of an answer whose client has left.
                self.faults.count("unknown_request")
            else:
                answer.feed(frame)

    async def _connect(self) -> None:
        while True:
            try:
                client = await bus.connect(self._nats, name="gateway", on_reconnect=self._reconnected)
                await client.subscribe(
                    subjects.gateway_in(self.gateway_id),
                    cb=self._receive,
                    pending_msgs_limit=-1,
                    pending_bytes_limit=-1,  # bounded by the windows of the open requests, and these by the budget
                )
                await client.flush()
            except (ConfigError, NatsError, TimeoutError) as error:
                self.faults.note("broker", str(error))
                await asyncio.sleep(_RETRY_S)
            else:
                self._client = client
                self._connected.set()
                self._outbox_filled.set()
                return

    async def _reconnected(self) -> None:
        for answer in self._answers.values():
            answer.ask_again()

    async def _pump(self) -> None:
        while True:
            await self._outbox_filled.wait()
            self._outbox_filled.clear()
            if self._client is not None:
                await self._flush(self._client)

    async def _flush(self, client: Client) -> None:
        by_lease: dict[bytes, list[bytes]] = {}
        while self._outbox:
            lease_id, frame = self._outbox.popleft()
            by_lease.setdefault(lease_id, []).append(frame)
        for lease_id, frames in by_lease.items():
            for message in join(frames, _MAX_MESSAGE):
                try:
                    await client.publish(subjects.lease_in(lease_id), message)
                except NatsError as error:
                    self.faults.note("broker", f"{type(error).__name__}: {error}")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.patience.tick)
            now = time.monotonic()
            for answer in list(self._answers.values()):
                answer.tick(now)
