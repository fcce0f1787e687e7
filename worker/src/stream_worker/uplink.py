"""The worker's one WebSocket: outbound to a relay, reconnecting for ever, sealed frames both ways.

Coalescing is natural, never timed: what one turn of the event loop produced leaves as one message. While there is no
relay, frames are dropped here, since their senders keep them; after WELCOME, `on_connected` sends them again.
"""

import asyncio
import ipaddress
import logging
import random
import ssl
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Protocol

from picows import WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from stream_core.errors import ConfigError, FrameError
from stream_core.wire import payloads
from stream_core.wire.frames import Frame, FrameType, encode, join, split

_log = logging.getLogger(__name__)
_WELCOME_TIMEOUT_S = 10.0
_PATH = "/v1/worker"
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


def check_relay_url(url: str) -> str:
    """Check that a relay's URL is wss://, or ws:// to this very machine.

    Raises:
        ConfigError: it would send the ticket in the clear over a network.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "wss" and parts.hostname:
        return url
    try:
        loopback = parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        loopback = False
    if parts.scheme != "ws" or not loopback:
        raise ConfigError(f"{url!r} must be wss:// (ws:// is for loopback only)", param="relays")
    return url


class Uplink:
    """Keeps one relay connected, and changes to another before the first one goes.

    Args:
        relays: URLs; the first attempt takes any of them, each further one the next.
        hello: encoded HELLO frame.
        handler: gets frames.
        ca_file: PEM bundle; empty takes the system's.
        backoff: seconds (first, most) between attempts, doubled and jittered in between.
        jitter: uniform in [0, 1).
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
        self._tls = ssl.create_default_context(cafile=ca_file or None)
        self._backoff = backoff
        self._jitter = jitter
        self._outbox: list[bytes] = []
        self._flush_scheduled = False
        self._socket: _Socket | None = None
        self._loop = asyncio.get_running_loop()
        self._resent_at = float("-inf")
        self._resend_timer: asyncio.TimerHandle | None = None
        self.connects = 0

    @property
    def connected(self) -> bool:
        """Whether a relay has welcomed us."""
        return self._socket is not None

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
                except (OSError, WSError, TimeoutError, FrameError) as error:
                    _log.info("relay %s: %s: %s", _host(url), type(error).__name__, error)
                    first, most = self._backoff
                    pause = min(most, first * 2 ** min(failures // len(self._relays), 16))
                    failures += 1
                    await asyncio.sleep(pause * (0.5 + self._jitter()))
                    if old is not None and old.gone.is_set():
                        self._left(old)
                        old = None
                    continue
                failures = 0
                self._change_to(fresh, old, url)
                old, since = fresh, self._loop.time()
                await fresh.leaving.wait()
                short_lives = short_lives + 1 if self._loop.time() - since < _SHORT_LIFE_S else 0
                if fresh.gone.is_set():
                    self._left(fresh)
                    old = None
                if short_lives > len(self._relays):
                    # Relays that welcome and send away at once would have us connect for ever without a pause.
                    first, most = self._backoff
                    self._handler.on_fault("short_connection", f"{short_lives} in a row were over within a second")
                    await asyncio.sleep(min(most, first * 2 ** min(short_lives, 16)) * (0.5 + self._jitter()))
        finally:
            if old is not None:
                old.close()

    def _change_to(self, fresh: "_Socket", old: "_Socket | None", url: str) -> None:
        """Speak through the new socket. The old relay, if it is still there, forwards what it has and is left."""
        self.flush()
        self._socket = fresh
        self.connects += 1
        _log.info("connected to relay %s", _host(url))
        # After a break nobody knows what arrived; a relay that said GOAWAY has lost nothing.
        self._handler.on_connected(resend=old is None or old.gone.is_set())
        if old is not None:
            old.close()

    def _left(self, socket: "_Socket") -> None:
        if self._socket is socket:
            self._socket = None
            self._outbox.clear()

    async def _connect(self, url: str) -> "_Socket":
        """Connect to one relay and wait until it has welcomed us."""
        socket = _Socket(self)
        await ws_connect(
            lambda: socket,
            url.rstrip("/") + _PATH,
            ssl_context=self._tls if url.startswith("wss:") else None,
            enable_auto_ping=True,
            max_frame_size=8 * 1024 * 1024,
            max_redirects=0,
            proxy=_proxy(url),
        )
        try:
            socket.say(self._hello)
            async with asyncio.timeout(_WELCOME_TIMEOUT_S):
                await socket.welcomed
        except BaseException:
            socket.close()
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

    def received(self, socket: "_Socket", message: bytes) -> None:
        """Take one message of a relay."""
        try:
            for frame in split(message, max_frame=8 * 1024 * 1024):
                match frame.type:
                    case FrameType.WELCOME:
                        welcome = payloads.load(frame.body, payloads.Welcome)
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
            transport.send_close(frame.get_close_code(), frame.get_close_message())
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
        """Leave: what was written still goes out."""
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send_close()
            self._transport.disconnect()

    def _refused(self, reason: str) -> None:
        if not self.welcomed.done():
            self.welcomed.set_exception(ConnectionRefusedError(reason))
            self.welcomed.exception()  # it may be that nobody waits any more


def hello(lease: str, ticket: str, software: str) -> bytes:
    """Build the HELLO frame."""
    return encode(FrameType.HELLO, payloads.dump(payloads.Hello(lease=lease, ticket=ticket, software=software)))


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).netloc


def _proxy(url: str) -> str | None:
    """The HTTP CONNECT proxy of the environment (HTTPS_PROXY, NO_PROXY), as every other client on the node has it."""
    host = urllib.parse.urlsplit(url).hostname or ""
    if not url.startswith("wss:") or urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get("https")
