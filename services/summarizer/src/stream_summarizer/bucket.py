"""The key-value bucket at the broker that holds sealed summaries; its failures cost time, never a request."""

from typing import Final

from nats.js.errors import APIError, NotFoundError

from stream_core.broker_client import Client, NatsError
from stream_core.errors import ConfigError
from stream_core.telemetry import Once

_READ_S: Final = 0.15
"""A summary that takes longer to fetch is not waited for."""
_OPEN_S: Final = 5.0
_AWAY: Final = (NatsError, OSError, TimeoutError)


class Bucket:
    """A JetStream key-value bucket, bounded in bytes and age."""

    def __init__(self, client: Client, name: str, faults: Once) -> None:
        self._jetstream = client.jetstream(timeout=_READ_S)
        self._stream, self._prefix = f"KV_{name}", f"$KV.{name}."
        self._faults = faults

    @classmethod
    async def open(
        cls, client: Client, name: str, *, max_bytes: int, ttl_s: float, replicas: int, faults: Once
    ) -> "Bucket":
        """Find the bucket, or make it.

        Raises:
            ConfigError: the broker does not give it.
        """
        jetstream = client.jetstream(timeout=_OPEN_S)
        try:
            try:
                await jetstream.stream_info(f"KV_{name}")
            except NotFoundError:
                await jetstream.create_key_value(
                    bucket=name, history=1, ttl=ttl_s, max_bytes=max_bytes, replicas=replicas
                )
        except (*_AWAY, APIError) as error:
            raise ConfigError(
                f"the broker does not give bucket {name!r} ({type(error).__name__}: {error}); may this user use it?"
                " Without store_key_file summaries are kept in memory only",
                param="store_bucket",
            ) from error
        return cls(client, name, faults)

    async def read(self, name: str) -> bytes | None:
        """Return what stands there; None when nothing does, or nobody answers in time."""
        try:
            message = await self._jetstream.get_msg(self._stream, subject=self._prefix + name)
        except NotFoundError:
            return None
        except (*_AWAY, APIError) as error:
            self._faults.note("store_not_read", type(error).__name__)
            return None
        return message.data

    async def write(self, name: str, value: bytes) -> None:
        """Keep a value; what is not kept is counted."""
        try:
            await self._jetstream.publish(self._prefix + name, value, timeout=_OPEN_S, stream=self._stream)
        except (*_AWAY, APIError) as error:
            self._faults.note("store_not_written", type(error).__name__)
