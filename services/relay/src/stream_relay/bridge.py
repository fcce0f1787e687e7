"""The driver around `routes`: WebSocket messages onto NATS and back.

It holds no keys and keeps no state that a reconnect does not rebuild.

Backpressure: what workers send waits in one queue for the broker; past `pause_bytes` their sockets are not read
until it is half empty again. What gateways send is small; a worker that no longer reads is closed.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial

from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)

from stream_core import gen_ai, health, tracing
from stream_core.broker_client import Client, Msg, NatsError, Subscription
from stream_core.ids import new_id, to_hex
from stream_core.telemetry import Once
from stream_core.tickets import verify
from stream_core.trace_context import TRACEPARENT
from stream_core.wire import subjects
from stream_relay.routes import Admit, Close, Phase, Publish, WorkerRoute, goaway, welcome
from stream_relay.settings import RelaySettings

_log = logging.getLogger(__name__)
PATH = "/v1/worker"
_METRICS = "/metrics"


@dataclass(slots=True)
class Traffic:
    """What went through."""

    messages_up: int = 0
    """Towards gateways."""
    bytes_up: int = 0
    messages_down: int = 0
    """Towards workers."""
    bytes_down: int = 0


class Bridge:
    """All sockets of one relay.

    Args:
        settings: the relay's.
        ticket_public_key: PEM.
        bus: connected.
    """

    def __init__(self, settings: RelaySettings, ticket_public_key: str, bus: Client) -> None:
        self.settings = settings
        self.bus = bus
        self.relay_id = to_hex(new_id())
        self.faults = Once(_log)
        self.draining = False
        self.serving: dict[bytes, WorkerSocket] = {}
        self.unauthenticated = 0
        self.verify_ticket = partial(_verify, ticket_public_key)
        self._outbox: deque[Publish] = deque()
        self._outbox_bytes = 0
        self._outbox_filled = asyncio.Event()
        self._outbox_empty = asyncio.Event()
        self._outbox_empty.set()
        self._paused: set[WorkerSocket] = set()
        self._left = asyncio.Event()
        self.traffic = Traffic()

    @property
    def backlog(self) -> int:
        """Bytes that wait for the broker."""
        return self._outbox_bytes

    @property
    def paused(self) -> int:
        """Workers that are not read because of that."""
        return len(self._paused)

    def ready(self) -> str | None:
        """None when workers may connect, else why not."""
        if self.draining:
            return "draining"
        return None if self.bus.is_connected else "no broker"

    def accept(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        """Answer an HTTP request: a worker's upgrade, or a probe."""
        path = request.path.decode("ascii", "replace").partition("?")[0]
        if path == _METRICS and not self._open_here(request):
            return _plain(404, b"not here: the relay's metrics_port has it\n")
        if path != PATH:
            status, body = health.respond(path, self.ready)
            return _plain(status, body)
        if self.draining or self.unauthenticated >= self.settings.max_unauthenticated:
            self.faults.note("refused", "draining" if self.draining else "too many sockets without HELLO")
            return _plain(503, b"try another relay\n")
        # The time, so that `stream-worker doctor` can compare clocks; RFC 9110 asks for it, too.
        dated = WSUpgradeResponse.create_101_response({"Date": formatdate(usegmt=True)})
        return WSUpgradeResponseWithListener(dated, WorkerSocket(self))

    def publish(self, item: Publish, source: "WorkerSocket") -> None:
        """Queue frames for the broker; past the limit their source is no longer read."""
        self._outbox.append(item)
        self._outbox_bytes += len(item.payload)
        self.traffic.messages_up += 1
        self.traffic.bytes_up += len(item.payload)
        self._outbox_filled.set()
        self._outbox_empty.clear()
        if self._outbox_bytes > self.settings.pause_bytes and source not in self._paused:
            self._paused.add(source)
            source.pause()

    def _open_here(self, request: WSUpgradeRequest) -> bool:
        settings = self.settings
        return health.open_here(settings.host, settings.metrics_port, (name.lower() for name in request.headers))

    async def pump(self) -> None:
        """Move frames to the broker, for ever."""
        while True:
            await self._outbox_filled.wait()
            self._outbox_filled.clear()
            while self._outbox:
                item = self._outbox.popleft()
                try:
                    await self.bus.publish(item.subject, item.payload)
                except NatsError as error:
                    # Lost frames are noticed by the gateway and sent again by the worker.
                    self.faults.note("broker", f"{type(error).__name__}: {error}")
                self._outbox_bytes -= len(item.payload)
                if self._paused and self._outbox_bytes <= self.settings.pause_bytes // 2:
                    for socket in self._paused:
                        socket.unpause()
                    self._paused.clear()
            self._outbox_empty.set()
            # The client writes when this task yields; waiting for it bounds what it holds when the broker is slow.
            if self._outbox_bytes == 0 and self.bus.pending_data_size > self.settings.pause_bytes:
                await self.bus.flush()

    async def broker_back(self) -> None:
        """Tell the workers that frames may have been lost while the broker was away: WELCOME again."""
        for socket in list(self.serving.values()):
            socket.greet()

    async def drain(self) -> None:
        """Send every worker elsewhere and wait until they have left, at most `drain_s`."""
        self.draining = True
        for socket in list(self.serving.values()):
            socket.send(goaway("relay is draining"))
        try:
            async with asyncio.timeout(self.settings.drain_s):
                while self.serving:
                    self._left.clear()
                    await self._left.wait()
                await self._outbox_empty.wait()
        except TimeoutError:
            _log.warning("workers still connected after the drain", extra={"workers": len(self.serving)})
        for socket in list(self.serving.values()):
            socket.end(Close("draining", "relay is draining"))

    def left(self, socket: "WorkerSocket") -> None:
        """Forget a socket that is gone."""
        self._paused.discard(socket)
        if self.serving.get(socket.route.lease_id) is socket:
            del self.serving[socket.route.lease_id]
        self._left.set()


class WorkerSocket(WSListener):
    """One worker's WebSocket."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        settings = bridge.settings
        self._bridge = bridge
        self._transport: WSTransport | None = None
        self._subscription: Subscription | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._deadline: asyncio.TimerHandle | None = None
        self._waiting_for_hello = False
        self._backlog_full = False
        self._trace = ""
        self.route = WorkerRoute(
            bridge.verify_ticket, max_frame=settings.max_frame, max_frames_per_s=settings.max_frames_per_s
        )

    def on_ws_connected(self, transport: WSTransport) -> None:
        """A socket is open: it has `hello_timeout_s` to say who it is."""
        self._transport = transport
        transport.underlying_transport.set_write_buffer_limits(high=self._bridge.settings.max_worker_backlog)
        self._bridge.unauthenticated += 1
        self._waiting_for_hello = True
        timeout = self._bridge.settings.hello_timeout_s
        late = Close("hello_timeout", f"no HELLO within {timeout:g} s")
        self._deadline = asyncio.get_running_loop().call_later(timeout, self.end, late)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """A message came."""
        if frame.msg_type is WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
            return
        if transport.is_close_frame_sent:
            return  # closed by us, or by the library for a message past its limit: what follows is the rest of that
        if frame.msg_type is not WSMsgType.BINARY or not frame.fin:
            self.end(self.route.close("malformed", f"{frame.msg_type.name} message, only whole BINARY ones are spoken"))
            return
        for action in self.route.receive(frame.get_payload_as_bytes(), now=time.time()):
            match action:
                case Publish():
                    self._bridge.publish(action, self)
                case Admit():
                    self._said_hello()
                    self._spawn(self._serve(action))
                case Close():
                    self.end(action)

    def pause_writing(self) -> None:
        """The worker does not read what waits for it."""
        self._backlog_full = True
        limit = self._bridge.settings.max_worker_backlog
        self.end(Close("backlog", f"more than {limit:,} bytes wait for this worker"))

    def on_ws_disconnected(self, transport: WSTransport) -> None:  # noqa: ARG002  (the signature is the library's)
        """The socket is gone."""
        self._said_hello()
        self.route.close("gone", "")
        self._bridge.left(self)
        self._unsubscribe()

    def send(self, frames: bytes) -> None:
        """Send whole frames to the worker."""
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send(WSMsgType.BINARY, frames)

    def greet(self) -> None:
        """Say WELCOME."""
        settings = self._bridge.settings
        self.send(
            welcome(
                self._bridge.relay_id,
                max_frame=settings.max_frame,
                max_message=settings.max_message,
                trace=self._trace,
            )
        )

    def end(self, close: Close) -> None:
        """Close the socket and say why."""
        self._bridge.faults.note(close.kind, close.reason)
        self.route.close(close.kind, close.reason)
        if self._transport is not None and not self._transport.is_disconnected:
            going = close.kind in {"draining", "replaced"}
            code = WSCloseCode.GOING_AWAY if going else WSCloseCode.POLICY_VIOLATION
            self._transport.send_close(code, close.reason.encode()[:120])
            self._transport.disconnect(graceful=not self._backlog_full)

    def pause(self) -> None:
        """Stop reading this worker: the broker is behind."""
        if self._transport is not None:
            self._transport.underlying_transport.pause_reading()

    def unpause(self) -> None:
        """Read on."""
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.underlying_transport.resume_reading()

    def _unsubscribe(self) -> None:
        if self._subscription is not None and not self._bridge.bus.is_closed:
            cleanup = asyncio.get_running_loop().create_task(_unsubscribe(self._subscription))
            _background.add(cleanup)
            cleanup.add_done_callback(_background.discard)
            self._subscription = None

    def _closed(self) -> bool:
        return self.route.phase is Phase.CLOSED

    async def _serve(self, admitted: Admit) -> None:
        if self._closed():
            return
        previous = self._bridge.serving.get(admitted.lease_id)
        self._bridge.serving[admitted.lease_id] = self
        if previous is not None:
            previous.end(Close("replaced", "the lease has connected again"))
        # Subscribed and confirmed before WELCOME: from then on no frame for this worker is missed.
        self._subscription = await self._bridge.bus.subscribe(subjects.lease_in(admitted.lease_id), cb=self._forward)
        await self._bridge.bus.flush()
        if self._closed():
            # It left meanwhile. Cancelling this task instead would leave a PONG behind that nobody waits for.
            self._unsubscribe()
            return
        self._trace = _session_trace(self._bridge.relay_id, admitted.lease_id)
        self.greet()
        _log.info("worker connected", extra={"lease": to_hex(admitted.lease_id), "software": admitted.software})

    async def _forward(self, message: Msg) -> None:
        if self.route.phase is Phase.SERVING:
            traffic = self._bridge.traffic
            traffic.messages_down += 1
            traffic.bytes_down += len(message.data)
            self.send(message.data)

    def _said_hello(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self._waiting_for_hello:
            self._waiting_for_hello = False
            self._bridge.unauthenticated -= 1

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.end(Close("broker", f"{type(error).__name__}: {error}"))


def _session_trace(relay_id: str, lease_id: bytes) -> str:
    """Record that a worker was admitted; requests that come through this socket link to that. Empty: not traced.

    The link is all that a trace knows of a relay, and its ids are random: a frame tells the relay nothing more for it.
    """
    facts = {gen_ai.RELAY: relay_id, gen_ai.LEASE: to_hex(lease_id)}
    span = tracing.alone("worker session", kind=tracing.Kind.SERVER, attributes=facts)
    span.end()
    return span.context.headers()[TRACEPARENT] if span.context is not None else ""


_background: set[asyncio.Task[None]] = set()


async def _unsubscribe(subscription: Subscription) -> None:
    try:
        await subscription.unsubscribe()
    except NatsError as error:
        _log.debug("unsubscribe: %s", error)


def _plain(status: int, body: bytes) -> WSUpgradeResponseWithListener:
    headers = {"Content-Type": health.PLAIN}
    if status == 200:  # noqa: PLR2004  (HTTP's own number)
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_ok_response(body, headers), None)
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(status, body, headers), None)


def _verify(public_key: str, ticket: str, now: float) -> bytes:
    return verify(public_key, ticket, now=now)
