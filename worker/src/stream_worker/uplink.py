"""The worker's one WebSocket: outbound to a relay, reconnecting for ever, sealed frames both ways.

Coalescing is natural, never timed: what one turn of the event loop produced leaves as one message. While there is no
relay, frames are dropped here, since their senders keep them; after WELCOME, `on_connected` sends them again.
"""

import asyncio
import contextlib
import logging
import random
import ssl
import urllib.request
from collections.abc import Callable
from typing import Protocol

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from stream_core import trace_context
from stream_core.errors import ConfigError, FrameError
from stream_core.trace_context import TraceContext
from stream_core.wire import payloads
from stream_core.wire.frames import Frame, FrameType, encode, join, split
from stream_worker.dialing import check_relay_url, pause_s, proxy_for, shown

_log = logging.getLogger(__name__)
_CONNECT_TIMEOUT_S = 10.0
"""From the first packet to WELCOME, proxy and TLS included: a relay that swallows packets must not hold us for long."""
_PING_S = 2.5
"""Silence after which the relay is asked whether it is there; without an answer for as long again, another is taken.

Once packets were lost for some seconds, TCP sends what waits at the relay again only after about as many more. A new
connection speaks at once, before gateways give a question up that waits there.
"""
_GOODBYE_S = 1.0
_PATH = "/v1/worker"
_MAX_FRAME = 8 * 1024 * 1024
_MAX_BACKLOG = 64 * 1024 * 1024
_SHORT_LIFE_S = 1.0
_RESEND_EVERY_S = 1.0


class Handler(Protocol):
    """Who gets what comes down the uplink."""

    def on_connected(self, *, resend: bool) -> None:
        """A relay has accepted us: announce; with `resend`, send again what is unacknowledged."""
        ...

    def on_frame(self, frame: Frame) -> None:
        """A frame of a gateway."""
        ...

    def on_fault(self, kind: str, detail: str) -> None:
        """A message that breaks the protocol; dropped."""
        ...


class Uplink:
    """Keeps one relay connected, and changes to another before the first one goes.

    Args:
        relays: URLs; the first attempt takes any of them, each further one the next.
        hello: encoded HELLO frame.
        handler: gets frames.
        ca_file: PEM bundle; empty takes the system's.
        backoff: seconds (first, most) between attempts, doubled and jittered in between.
        jitter: uniform in [0, 1).

    Raises:
        ConfigError: a wrong relay URL, proxy or CA file.
    """

    def __init__(
        self,
        relays: list[str],
        hello: bytes,
        handler: Handler,
        *,
        ca_file: str,
        backoff: tuple[float, float],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._relays = [check_relay_url(url) for url in relays]
        self._next = int(jitter() * len(self._relays))
        self._hello = hello
        self._handler = handler
        self._tls = _trust(ca_file)
        self._proxies = {
            url: proxy_for(url, urllib.request.getproxies(), lambda host: bool(urllib.request.proxy_bypass(host)))
            for url in self._relays
        }
        self._backoff = backoff
        self._jitter = jitter
        self._outbox: list[bytes] = []
        self._flush_scheduled = False
        self._socket: _Socket | None = None
        self._welcome = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._resent_at = float("-inf")
        self._resend_timer: asyncio.TimerHandle | None = None
        self.connects = 0

    @property
    def connected(self) -> bool:
        """Whether a relay has welcomed us."""
        return self._socket is not None and not self._socket.gone.is_set()

    @property
    def session(self) -> TraceContext | None:
        """The relay's own span of this connection; None when it records none. A request links to it, no more."""
        return self._socket.session if self._socket is not None else None

    async def wait_connected(self) -> None:
        """Wait until a relay has welcomed us; at once when one has."""
        await self._welcome.wait()

    def send(self, frames: list[bytes]) -> None:
        """Queue whole frames; all of this turn of the event loop leave together."""
        if self._socket is None:
            return
        self._outbox += frames
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self.flush)

    def relay_is_stuck(self, waiting: int) -> None:
        """A socket was given up because nothing is read at its other end."""
        self._handler.on_fault("backlog", f"more than {waiting:,} bytes wait for the relay")

    def flush(self) -> None:
        """Write what is queued."""
        self._flush_scheduled = False
        frames, self._outbox = self._outbox, []
        if self._socket is not None and frames:
            self._socket.write(frames)

    async def run(self) -> None:
        """Connect and stay connected, until cancelled."""
        old: _Socket | None = None
        failures = short_lives = 0
        try:
            while True:
                url = self._relays[self._next % len(self._relays)]
                self._next += 1
                try:
                    fresh = await self._connect(url)
                except Exception as error:  # noqa: BLE001  (whatever it was, a worker without a relay is of no use)
                    failures += 1
                    await self._pause(url, f"{type(error).__name__}: {error}", failures)
                else:
                    failures = 0
                    self._change_to(fresh, old, url)
                    old, since = fresh, self._loop.time()
                    await fresh.leaving.wait()
                    short_lives = short_lives + 1 if self._loop.time() - since < _SHORT_LIFE_S else 0
                    if short_lives > len(self._relays):
                        # Relays that welcome and send away at once would have us connect for ever without a pause.
                        self._handler.on_fault("short_connection", f"{short_lives} in a row were over within a second")
                        await self._pause(url, "left at once", short_lives)
                if old is not None and old.gone.is_set():
                    self._left(old)
                    old = None
        finally:
            if old is not None:
                # What was written last, a request's failure, say, is there when the relay has answered the goodbye.
                old.close()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_GOODBYE_S):
                        await old.gone.wait()

    async def _pause(self, url: str, reason: str, failures: int) -> None:
        pause = pause_s(failures, len(self._relays), self._backoff, self._jitter())
        _log.warning("relay %s: %s; next attempt in %.2f s", self._way(url), reason, pause)
        await asyncio.sleep(pause)

    def _change_to(self, fresh: "_Socket", old: "_Socket | None", url: str) -> None:
        """Speak through the new socket. The old relay, if it is still there, forwards what it has and is left."""
        self.flush()
        self._socket = fresh
        self._welcome.set()
        self.connects += 1
        _log.info("connected to relay %s", self._way(url))
        # After a break nobody knows what arrived; a relay that said GOAWAY has lost nothing.
        self._handler.on_connected(resend=old is None or old.gone.is_set())
        if old is not None:
            old.close()

    def _left(self, socket: "_Socket") -> None:
        if self._socket is socket:
            self._socket = None
            self._welcome.clear()
            self._outbox.clear()

    async def _connect(self, url: str) -> "_Socket":
        """Connect to one relay and wait until it has welcomed us."""
        socket, proxy = _Socket(self), self._proxies[url]
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await ws_connect(
                    lambda: socket,
                    url.rstrip("/") + _PATH,
                    ssl_context=self._tls if url.startswith("wss:") else None,
                    enable_auto_ping=True,
                    auto_ping_idle_timeout=_PING_S,
                    auto_ping_reply_timeout=_PING_S,
                    max_frame_size=_MAX_FRAME,
                    max_redirects=0,
                    proxy=proxy,
                    # An institution's own authority may have signed the proxy too.
                    proxy_ssl_context=self._tls if (proxy or "").startswith("https:") else None,
                )
                socket.say(self._hello)
                await socket.welcomed
        except TimeoutError as error:
            socket.abandon()
            raise TimeoutError(f"no WELCOME within {_CONNECT_TIMEOUT_S:g} s") from error
        except BaseException:
            socket.abandon()
            raise
        return socket

    def _resend(self) -> None:
        """Send again what is unacknowledged: at once, but not more often than once a second, whatever a relay says."""
        wait_s = self._resent_at + _RESEND_EVERY_S - self._loop.time()
        if self._resend_timer is not None or self._socket is None:
            return
        if wait_s > 0:
            self._resend_timer = self._loop.call_later(wait_s, self._resend_late)
            return
        self._resent_at = self._loop.time()
        self._handler.on_connected(resend=True)

    def _resend_late(self) -> None:
        self._resend_timer = None
        self._resend()

    def _way(self, url: str) -> str:
        """Relay and proxy, as the log may show them."""
        proxy = self._proxies[url]
        return f"{shown(url)} through proxy {shown(proxy)}" if proxy else shown(url)

    def received(self, socket: "_Socket", message: bytes) -> None:
        """Take one message of a relay."""
        try:
            for frame in split(message, max_frame=_MAX_FRAME):
                match frame.type:
                    case FrameType.WELCOME:
                        welcome = payloads.load(frame.body, payloads.Welcome)
                        socket.session = trace_context.read({trace_context.TRACEPARENT: welcome.trace})
                        if not socket.welcome(welcome) and socket is self._socket:
                            # Said again: the relay's own way to the gateways was broken for a while.
                            self._resend()
                    case FrameType.GOAWAY:
                        _log.info("relay says goodbye: %s", payloads.load(frame.body, payloads.Goaway).reason)
                        socket.leaving.set()
                    case _:
                        self._handler.on_frame(frame)
        except FrameError as error:
            self._handler.on_fault(error.code, error.message)


class _Socket(WSListener):
    """One connection to a relay.

    Attributes:
        leaving: set when another relay is to be found: GOAWAY, or the connection is gone.
        gone: set when the connection is gone.
    """

    def __init__(self, uplink: Uplink) -> None:
        super().__init__()
        self._uplink = uplink
        self._transport: WSTransport | None = None
        self._max_message = 0
        self._closing = self._abandoned = False
        self.session: TraceContext | None = None
        self.welcomed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.leaving = asyncio.Event()
        self.gone = asyncio.Event()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        transport.underlying_transport.set_write_buffer_limits(high=_MAX_BACKLOG)

    def pause_writing(self) -> None:
        """The relay does not read: what waits for it is kept by the senders anyway, another relay may do better."""
        self._uplink.relay_is_stuck(_MAX_BACKLOG)
        if self._transport is not None:
            self._transport.disconnect(graceful=False)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.BINARY and frame.fin:
            self._uplink.received(self, frame.get_payload_as_bytes())
        elif frame.msg_type is WSMsgType.CLOSE:
            self._refused(f"relay closes: {frame.get_close_reason()}")
            self.close()
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:  # noqa: ARG002  (the signature is the library's)
        self._refused("closed before WELCOME")
        self.gone.set()
        self.leaving.set()

    def welcome(self, welcome: payloads.Welcome) -> bool:
        """Note the relay's limits; true the first time."""
        self._max_message = welcome.max_message
        first = not self.welcomed.done()
        if first:
            self.welcomed.set_result(None)
        return first

    def say(self, message: bytes) -> None:
        """Send one message."""
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send(WSMsgType.BINARY, message)

    def write(self, frames: list[bytes]) -> None:
        """Send frames as few messages."""
        for message in join(frames, self._max_message):
            self.say(message)

    def close(self) -> None:
        """Leave; the connection ends when the relay has answered.

        Closing it at once would reset it if the relay still sends, and lose what was written and is on its way.
        """
        if not self._closing and self._transport is not None and not self._transport.is_disconnected:
            self._closing = True
            self._transport.send_close(WSCloseCode.OK)
            asyncio.get_running_loop().call_later(_GOODBYE_S, self._transport.disconnect)

    def abandon(self) -> None:
        """End it at once: it was of no use."""
        self._abandoned = True
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.disconnect(graceful=False)

    def _refused(self, reason: str) -> None:
        if not self.welcomed.done():
            self.welcomed.set_exception(ConnectionRefusedError(reason))
            self.welcomed.exception()  # it may be that nobody waits any more


def hello(lease: str, ticket: str, software: str) -> bytes:
    """Build the HELLO frame."""
    return encode(FrameType.HELLO, payloads.dump(payloads.Hello(lease=lease, ticket=ticket, software=software)))


def _trust(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise ConfigError(f"{ca_file}: {error}", param="ca_file") from error
