"""The broker: one NATS connection per program, that reconnects for ever and says so once."""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable

from stream_core.broker_client import Client, NatsError
from stream_core.cancellation import end
from stream_core.errors import ConfigError
from stream_core.nkeys import UserKey
from stream_core.settings import NatsSettings, read_secret
from stream_core.telemetry import Once

_log = logging.getLogger(__name__)
_FIRST_CONNECT_S = 10.0
_AGAIN_S = 0.5
"""The library's own waits lose a cancellation that comes with an answer: a refusal just then made it try for ever."""
_LAST_FLUSH_S = 1.0

OnReconnect = Callable[[], Awaitable[None]]


class _Client(Client):
    """nats-py's client, mended in two places."""

    def _setup_nkeys_seed_connect(self) -> None:
        """Log in with a user key; the library would want one more package for that."""
        key = UserKey(self._nkeys_seed_str or "")
        self._public_nkey, self._signature_cb = key.public, key.sign

    # The library's reader ends for good at a PONG that nobody waits for: of a flush that was cancelled or timed out.
    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()


async def connect(settings: NatsSettings, *, name: str, on_reconnect: OnReconnect | None = None) -> Client:
    """Connect to the broker.

    Args:
        settings: where, as whom.
        name: of this program, shown in the broker's monitoring.
        on_reconnect: awaited after each reconnect; what was sent meanwhile may be lost.

    Raises:
        ConfigError: not reachable, or the credentials are refused.
    """
    faults = Once(_log)

    async def failed(error: Exception) -> None:
        faults.note(type(error).__name__, str(error))

    async def reconnected() -> None:
        _log.info("reconnected to the broker")
        if on_reconnect is not None:
            await on_reconnect()

    context: ssl.SSLContext | None = None
    if settings.url.startswith("tls://"):
        context = ssl.create_default_context(cafile=settings.ca_file)
    password = read_secret(settings.password_file) if settings.password_file else None
    seed = read_secret(settings.nkey_file) if settings.nkey_file else None
    client = _Client()
    # The library itself would try for ever; at start an operator wants to hear what is wrong.
    connecting = asyncio.create_task(
        client.connect(
            settings.url.split(","),
            name=name,
            inbox_prefix=f"_INBOX.{name}",  # so that a broker can give each program its own answers only
            user=settings.user or None,
            password=password,
            nkeys_seed_str=seed,
            tls=context,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.1,  # type: ignore[arg-type]  # typed as whole seconds, and only slept on
            connect_timeout=2,
            ping_interval=5,
            pending_size=settings.pending_bytes,
            skip_subject_validation=True,  # all subjects are built in wire.subjects
            error_cb=failed,
            reconnected_cb=reconnected,
        )
    )
    try:
        done, _ = await asyncio.wait([connecting], timeout=_FIRST_CONNECT_S)
    finally:
        await end(connecting, again_s=_AGAIN_S)
    try:
        if not done:
            raise TimeoutError
        connecting.result()
    except (OSError, NatsError) as error:
        seen = ", ".join(sorted(faults.counts)) or type(error).__name__
        raise ConfigError(
            f"no broker at {settings.url} within {_FIRST_CONNECT_S:g} s ({seen})", param="nats.url"
        ) from error
    return client


async def close(client: Client) -> None:
    """Send what is queued and disconnect; a broker that is away or slow does not hold the program up."""
    try:
        async with asyncio.timeout(_LAST_FLUSH_S):
            await client.flush()
    except (TimeoutError, OSError, NatsError) as error:
        _log.info("left the broker without a last flush: %s", type(error).__name__)
    await client.close()
