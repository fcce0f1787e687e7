"""One worker's life with its requests: frames from the uplink to the desk, answers of the engine to the uplink."""

import asyncio
import contextlib
import logging
import re
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import aiohttp

from stream_core import gen_ai, trace_context, tracing
from stream_core.envelope.keys import WorkerKey, sign_announcement
from stream_core.envelope.session import Opener, Sealer, status_key, stop_key
from stream_core.errors import RemoteError, SealError
from stream_core.openai.sse import EventSplitter
from stream_core.telemetry import Once
from stream_core.trace_context import CURRENT, TraceContext
from stream_core.tracing import Kind, Span, step
from stream_core.wire import payloads
from stream_core.wire.frames import Frame, FrameType, encode
from stream_core.wire.sender import Chunk, SenderState
from stream_worker.desk import Abort, Desk, Dropped, Request, Send, Start, Wake
from stream_worker.engine import Engine, post
from stream_worker.first_tokens import FirstTokens
from stream_worker.settings import WorkerSettings
from stream_worker.uplink import Uplink

_log = logging.getLogger(__name__)
# No parents, no query, no host; and not what engines keep beside their models, as /v1/load_lora_adapter.
_PATH: Final = re.compile(r"/tokenize|/v1/(?!(un)?load)[a-z_-]{1,32}(/[a-z_-]{1,32})?")
_REQUEST_ID: Final = "x-request-id"
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e]{1,1024}")
_MAX_ID: Final = 64
_READ_BYTES: Final = 64 * 1024
_TICK_S: Final = 1.0
_ERROR_EVENT: Final = b'data: {"error"'
_ACKNOWLEDGED_S: Final = 2.0
"""How long a drained worker stays for its gateways to acknowledge the last frames: they might ask for one again."""
_OK: Final = 200
_DRAINING: Final = payloads.Failure(
    code="worker_draining", message="this worker takes no new requests", retryable=True, status=503
)


class Service:
    """Serves the requests of one lease.

    Args:
        desk: the requests' state machine.
        settings: the worker's.
        only_one: it takes a single request in its life.

    Attributes:
        served: requests begun.
        stalls: how often an answer waited for credit.
        spent: set when the single request has ended, however it did.
    """

    def __init__(self, desk: Desk, settings: WorkerSettings, *, only_one: bool = False) -> None:
        self.desk = desk
        self.served = 0
        self.stalls = 0
        self.spent = asyncio.Event()
        self.first_tokens = FirstTokens()
        self.faults = Once(_log)
        self.engine: Engine | None = None
        self.session: aiohttp.ClientSession | None = None
        self.uplink: Uplink | None = None
        self.introduce: Callable[[], list[bytes]] = list
        self.hear_stop: Callable[[Frame], None] = lambda _: None
        self._settings = settings
        self._only_one = only_one
        self._closed = False
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self._windows: dict[bytes, asyncio.Event] = {}
        self._spoke: dict[bytes, float] = {}
        self._spans: dict[bytes, Span] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._acknowledged = asyncio.Event()

    @property
    def connects(self) -> int:
        """How often a relay has welcomed this worker."""
        return self.uplink.connects if self.uplink is not None else 0

    def admit(self, refusal: payloads.Failure | None) -> None:
        """Take new requests, or refuse them with that; a worker that drains, or had its only one, takes none again."""
        if not self._closed:
            self.desk.refuse_new = refusal

    # The uplink's handler

    def on_connected(self, *, resend: bool) -> None:
        """Announce; after a break send again what no gateway has acknowledged.

        Each open answer also gives a sign of life, which its gateway answers with the CREDIT that the break may have
        swallowed.
        """
        frames = self.introduce()
        if resend:
            for request in self.desk.requests.values():
                if request.sender.state is SenderState.OPEN:
                    request.sender.alive()
            frames += self.desk.unacknowledged()
        self._send(frames)

    def on_frame(self, frame: Frame) -> None:
        """Take one frame of a gateway, or hpc_dispatch's STOP."""
        if frame.type is FrameType.STOP:
            self._take_stop(frame)
            return
        for action in self.desk.receive(frame, time.time_ns() // 1_000_000):
            match action:
                case Start(request, accepted):
                    self._send([accepted])
                    self._start(request)
                case Send(frames):
                    self._send(frames)
                case Wake(request):
                    if window := self._windows.get(request.id):
                        window.set()
                case Abort(request):
                    self._stop(request)
                case Dropped(kind, detail):
                    self.faults.note(kind, detail)
        if not self.desk.requests:
            self._acknowledged.set()

    def on_fault(self, kind: str, detail: str) -> None:
        """Count a message that breaks the protocol."""
        self.faults.note(kind, detail)

    def _take_stop(self, frame: Frame) -> None:
        try:
            self.hear_stop(frame)
        except SealError as error:
            self.faults.note("bad_stop", error.message)

    # Requests

    async def watch(self) -> None:
        """Give signs of life for silent engines, and abort what no gateway waits for; until cancelled."""
        while True:
            await asyncio.sleep(min(_TICK_S, self._settings.keepalive_s / 2))
            now, now_ms = time.monotonic(), time.time_ns() // 1_000_000
            for request in list(self.desk.requests.values()):
                if now_ms - request.heard_ms > self._settings.gateway_lost_s * 1000:
                    self.faults.note("gateway_lost", f"no sign of it for {self._settings.gateway_lost_s:g} s")
                    self.desk.forget(request)
                    self._stop(request)
                elif (
                    request.sender.state is SenderState.OPEN
                    and now - self._spoke.get(request.id, 0.0) > self._settings.keepalive_s
                ):
                    self._spoke[request.id] = now
                    self._send([request.sender.alive()])

    async def drain(self, grace_s: float) -> None:
        """Refuse new requests and wait until the running ones are done and acknowledged, at most `grace_s`."""
        self._close()
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
                await self._wait_acknowledged()
        except TimeoutError:
            if self._tasks:
                _log.warning("requests still running after the drain", extra={"running": self.desk.running})
            for request in list(self.desk.requests.values()):
                self._fail(request, "worker_stopped", "the worker's time is over", retryable=True)
        for task in list(self._tasks.values()):
            task.cancel()

    def _close(self) -> None:
        self._closed, self.desk.refuse_new = True, _DRAINING

    async def _wait_acknowledged(self) -> None:
        self._acknowledged.clear()
        if self.desk.requests:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ACKNOWLEDGED_S):
                    await self._acknowledged.wait()

    def _start(self, request: Request) -> None:
        self._idle.clear()
        self.served += 1
        if self._only_one:
            self._close()
        self._windows[request.id] = asyncio.Event()
        self._spoke[request.id] = time.monotonic()
        task = asyncio.get_running_loop().create_task(self._answer(request, self._span(request)))
        self._tasks[request.id] = task
        task.add_done_callback(lambda ended: self._done(request, aborted=ended.cancelled()))

    def _span(self, request: Request) -> TraceContext | None:
        """Begin a request's span below the gateway's; where none is recorded, its context is passed on as it is."""
        relay = self.uplink.session if self.uplink is not None else None
        span = tracing.begin(
            "request",
            kind=Kind.SERVER,
            parent=trace_context.read(request.open.headers),
            attributes={
                gen_ai.ROUTE: request.open.path,
                gen_ai.REQUEST_ID: request.open.headers.get(_REQUEST_ID, "")[:_MAX_ID],
            },
            links=[relay] if relay is not None else (),
        )
        if span.recorded:
            self._spans[request.id] = span
        return span.context

    def _stop(self, request: Request) -> None:
        # Cancelling closes the engine's socket, which is how every engine is told to stop generating.
        if task := self._tasks.get(request.id):
            task.cancel()

    def _done(self, request: Request, *, aborted: bool) -> None:
        if span := self._spans.pop(request.id, None):
            span.end("aborted" if aborted else "")
        for table in (self._tasks, self._windows, self._spoke):
            table.pop(request.id, None)
        if not self._tasks:
            self._idle.set()
        if self._only_one:
            self.spent.set()

    async def _answer(self, request: Request, trace: TraceContext | None) -> None:
        """Bring one answer from the engine to the uplink; never raises."""
        CURRENT.set(trace)
        try:
            with step("engine", kind=Kind.CLIENT, attributes={gen_ai.ROUTE: request.open.path}) as span:
                await self._forward(request, span)
        except asyncio.CancelledError:
            raise
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._fail(request, "engine_failed", f"engine: {type(error).__name__}: {error}", retryable=True)
        except RemoteError as error:
            self._fail(request, error.code, error.message, retryable=error.retryable)
        except Exception:  # noqa: BLE001  (whatever it was, the gateway must hear that the answer is not complete)
            _log.exception("request failed", extra={"request_id": request.name})
            self._fail(request, "internal_error", "the worker failed", retryable=True)
        else:
            if request.sender.state is SenderState.OPEN:
                self._send([request.sender.end()])

    async def _forward(self, request: Request, span: Span) -> None:
        if self.engine is None or self.session is None:
            self._fail(request, "worker_not_ready", "the engine is starting", retryable=True, status=503)
            return
        if not _PATH.fullmatch(request.open.path):
            self._fail(request, "invalid_path", "not a path of the engine's API", status=404)
            return
        headers = {"content-type": "application/json", **self.engine.headers, **trace_context.outgoing()}
        if _HEADER_VALUE.fullmatch(name := request.open.headers.get(_REQUEST_ID, "")):
            headers[_REQUEST_ID] = name
        body, asked = request.take_body(), time.monotonic()
        async with await post(self.session, self.engine.url + request.open.path, body, headers) as response:
            span.set(gen_ai.STATUS, response.status)
            content_type = response.headers.get("content-type", "application/octet-stream")
            self._send([request.sender.head(payloads.Head(status=response.status, content_type=content_type))])
            if response.content_type == "text/event-stream":
                await self._forward_events(request, response, asked, span)
            else:
                async for piece in response.content.iter_chunked(_READ_BYTES):
                    await self._send_chunks(request, [piece])

    async def _forward_events(
        self, request: Request, response: aiohttp.ClientResponse, asked: float, span: Span
    ) -> None:
        splitter, first = EventSplitter(), response.status == _OK
        # What lies in the buffer is taken at once and leaves as one frame: no timer, no waiting.
        while data := await response.content.readany():
            if events := splitter.feed(data):
                if first:
                    first = False
                    self.first_tokens.add(time.monotonic() - asked)
                    span.event(gen_ai.FIRST_TOKEN)
                wrong = _first_error(events)
                if wrong is not None and await self._engine_is_gone():
                    await self._send_chunks(request, events[:wrong])
                    self._fail(request, "engine_failed", "the engine died in mid-answer", retryable=True)
                    return
                await self._send_chunks(request, events)
        if splitter.rest().strip():
            self._fail(request, "engine_failed", "the engine's stream ended within an event", retryable=True)

    async def _engine_is_gone(self) -> bool:
        """Ask, after an error: when its core has died vLLM's server says so in the stream and ends it properly."""
        return self.engine is None or self.session is None or await self.engine.is_gone(self.session)

    async def _send_chunks(self, request: Request, chunks: list[bytes]) -> None:
        window, waiting = self._windows[request.id], deque[Chunk](chunks)
        while True:
            self._spoke[request.id] = time.monotonic()
            self._send(request.sender.data(waiting))
            if not waiting:
                return
            self.stalls += 1
            window.clear()
            await window.wait()

    def _fail(self, request: Request, code: str, message: str, *, retryable: bool = False, status: int = 502) -> None:
        if request.sender.state is SenderState.OPEN:
            self.faults.note(code, message)
            if span := self._spans.pop(request.id, None):
                span.end(code)
            failure = payloads.Failure(code=code, message=message, retryable=retryable, status=status)
            self._send([request.sender.fail(failure)])

    def _send(self, frames: list[bytes]) -> None:
        if self.uplink is not None:
            self.uplink.send(frames)


class Herald:
    """Says who the worker is and how it does, ANNOUNCE and STATUS; and knows hpc_dispatch's STOP.

    Args:
        lease_id: 16 bytes.
        bootstrap_secret: 32 bytes.
        key: the worker's key pair.
        offer: what it serves.
    """

    def __init__(
        self, lease_id: bytes, bootstrap_secret: bytes, key: WorkerKey, models: list[payloads.ModelOffer], limit: int
    ) -> None:
        announcement = payloads.Announcement(
            mlkem768=key.public.mlkem768, x25519=key.public.x25519, models=models, max_requests=limit
        )
        body = sign_announcement(payloads.dump(announcement), lease_id=lease_id, bootstrap_secret=bootstrap_secret)
        self.announcement = encode(FrameType.ANNOUNCE, body, request_id=lease_id)
        instance = key.public.x25519
        self._sealer = Sealer(status_key(bootstrap_secret, lease_id=lease_id, instance=instance), request_id=lease_id)
        self._stop_opener = Opener(stop_key(bootstrap_secret, lease_id=lease_id, instance=instance))
        self._lease_id = lease_id
        self._last_stop = -1

    def status(self, status: payloads.Status) -> bytes:
        """Seal a heartbeat: one frame."""
        return self._sealer.seal(FrameType.STATUS, payloads.dump(status))

    def check_stop(self, frame: Frame) -> None:
        """Take a STOP for what it says.

        Raises:
            SealError: not made by hpc_dispatch for this process, or an older one again.
        """
        if frame.request_id != self._lease_id or frame.sequence <= self._last_stop:
            raise SealError("a STOP of another lease, or a repeated one")
        self._stop_opener.open(frame)
        self._last_stop = frame.sequence


def _first_error(events: list[bytes]) -> int | None:
    """Find the first event with which an engine says that it failed; they are few, so all are searched at once."""
    if _ERROR_EVENT not in b"".join(events):
        return None
    return next((place for place, event in enumerate(events) if event.startswith(_ERROR_EVENT)), None)
