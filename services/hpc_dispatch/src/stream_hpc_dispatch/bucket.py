"""A JetStream key-value bucket: read, and write with compare-and-set. It knows nothing of what stands in it."""

import asyncio
from dataclasses import dataclass
from typing import Final, Self

from nats.js import JetStreamContext
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from stream_core.broker_client import Client, NatsError
from stream_core.errors import ConfigError, RemoteError

FAULTS: Final = (NatsError, OSError)
"""What a call raises when the broker is away, slow, or refuses."""
_NOT_ENABLED: Final = frozenset({10039, 10076})
"""JetStream's own error numbers for "off for this account" and "off"."""
_WRONG_REVISION: Final = frozenset({10071, 10164})
_TOO_MANY_REPLICAS: Final = 10074
_REQUEST_S: Final = 2.0
_OPEN_S: Final = 10.0
_RETRY_S: Final = 0.2
_MARKER_S: Final = 60.0
"""How long a removed key keeps its marker: long enough for every replica to see it."""


class NoJetStreamError(RemoteError):
    """The broker has JetStream switched off."""

    code = "no_jetstream"


class ConflictError(RemoteError):
    """The key was written by somebody else meanwhile."""

    code = "conflict"


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands under a key; `value` None: it was removed."""

    value: bytes | None
    revision: int


class Bucket:
    """One bucket; all reads are answered by its leader, so they see every write that was confirmed."""

    def __init__(self, stream: JetStreamContext, name: str) -> None:
        self._jetstream = stream
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."
        self.name = name

    @classmethod
    async def open(cls, client: Client, name: str, *, replicas: int) -> Self:
        """Find the bucket, or make it.

        Args:
            client: connected.
            name: of letters, digits, - and _.
            replicas: nodes that keep a copy, for a new bucket.

        Raises:
            NoJetStreamError: it is off.
            ConfigError: it is on and does not answer, or has fewer nodes than replicas.
        """
        jetstream = client.jetstream(timeout=_REQUEST_S)
        bucket = cls(jetstream, name)
        last: Exception | None = None
        try:
            async with asyncio.timeout(_OPEN_S):
                while True:
                    try:
                        await bucket._ensure(replicas)
                    except FAULTS as error:
                        _give_up(error, replicas)
                        last = error
                        await asyncio.sleep(_RETRY_S)
                    else:
                        return bucket
        except TimeoutError as error:
            told = f"{type(last).__name__}: {last}" if last else "no answer"
            raise ConfigError(
                f"the broker's JetStream does not give bucket {name!r} within {_OPEN_S:g} s ({told});"
                " may this user use it? Without lease_key_file leases are kept in memory only",
                param="lease_bucket",
            ) from error

    async def _ensure(self, replicas: int) -> None:
        try:
            await self._jetstream.stream_info(self._stream)
        except NotFoundError:
            await self._jetstream.create_key_value(bucket=self.name, history=1, replicas=replicas)

    async def keys(self) -> list[str]:
        """List all keys, those removed lately too."""
        info = await self._jetstream.stream_info(self._stream, subjects_filter=f"{self._prefix}>")
        return sorted(subject.removeprefix(self._prefix) for subject in info.state.subjects or ())

    async def read(self, key: str) -> Entry | None:
        """Read a key; None when it was never there, or its time is over."""
        try:
            message = await self._jetstream.get_msg(self._stream, subject=self._prefix + key)
        except NotFoundError:
            return None
        removed = bool(message.headers) and "KV-Operation" in (message.headers or {})
        return Entry(None if removed else message.data or b"", message.seq or 0)

    async def write(self, key: str, value: bytes, *, revision: int, ttl_s: float) -> int:
        """Write a key if it is still at this revision.

        Args:
            key: its name.
            value: its new value.
            revision: as read or written last; 0: it was never there.
            ttl_s: seconds until the broker forgets it; at least 1.

        Returns:
            Its new revision.

        Raises:
            ConflictError: it is at another revision.
        """
        return await self._publish(key, value, revision, {}, ttl_s)

    async def remove(self, key: str, *, revision: int) -> int:
        """Remove a key if it is still at this revision; `ConflictError` as `write`."""
        headers = {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}
        return await self._publish(key, b"", revision, headers, _MARKER_S)

    async def _publish(self, key: str, value: bytes, revision: int, headers: dict[str, str], ttl_s: float) -> int:
        headers["Nats-Expected-Last-Subject-Sequence"] = str(revision)
        try:
            ack = await self._jetstream.publish(
                self._prefix + key, value, headers=headers, msg_ttl=max(1.0, ttl_s), stream=self._stream
            )
        except APIError as error:
            if error.err_code in _WRONG_REVISION:
                raise ConflictError(f"{key} is not at revision {revision}") from error
            raise
        return ack.seq


def _give_up(error: Exception, replicas: int) -> None:
    """Raise for what will not get better by waiting."""
    if not isinstance(error, APIError):
        return
    if error.err_code == _TOO_MANY_REPLICAS:
        raise ConfigError(f"{replicas} replicas, the broker has fewer nodes", param="lease_replicas") from error
    # Nobody answers at all where it is off; a cluster without a majority answers with another number.
    off = isinstance(error, ServiceUnavailableError) and error.err_code is None
    if off or error.err_code in _NOT_ENABLED:
        raise NoJetStreamError("the broker has no JetStream") from error
