"""Streams of the broker, packed and unpacked by the broker itself: nats-server's API of snapshots (ADR-1 of NATS).

    SNAPSHOT   one answer with configuration and state, then the pack in chunks to an inbox; those with a reply subject
               want an answer before more than a window of them is sent; an empty one ends it, with status 204, none at
               all after a short stream, or another one when something went wrong
    RESTORE    one answer with a subject for the chunks, each of them answered; an empty one ends it, and is answered
               with the stream or with what is wrong

Consumers are left out: each is made by whoever needs it, and what was given out is given out again.
"""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from stream_core.broker_client import Client, Msg, NatsError
from stream_gateway.backup.manifest import Stream, Unfit

OURS: Final = ("stream-batch-", "KV_stream-")
"""What our streams' names begin with: a broker may have others' as well."""
_CHUNK: Final = 256 * 1024
_PATIENCE_S: Final = 60.0
"""For each step: the broker packs a block of its files before it answers."""
_DONE: Final = "204"


class Snapshots:
    """The streams.

    Args:
        client: connected, as a user who may do this.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def names(self) -> list[str]:
        """List our streams."""
        found: list[str] = []
        while True:
            page = await self._ask("STREAM.NAMES", {"offset": len(found)})
            found += page.get("streams") or []
            if len(found) >= page.get("total", 0) or not page.get("streams"):
                return sorted(name for name in found if name.startswith(OURS))

    async def take(self, name: str, folder: Path) -> Stream:
        """Write a stream to its file.

        Raises:
            Unfit: the broker does not give it, or stops in the middle.
        """
        chunks: asyncio.Queue[Msg] = asyncio.Queue()
        inbox = self._client.new_inbox()
        subscription = await self._client.subscribe(inbox, cb=chunks.put)
        try:
            asked = {"deliver_subject": inbox, "no_consumers": True, "chunk_size": _CHUNK}
            told = await self._ask(f"STREAM.SNAPSHOT.{name}", asked)
            stream = Stream(name, told["config"], told["state"])
            with _create(folder / stream.file) as file:
                last = await self._receive(chunks, file)
            headers = last.headers or {}
            if (status := headers.get("Status", _DONE)) != _DONE:
                words = headers.get("Description", "it did not say why")
                raise Unfit(f"stream {name}: the broker stopped with status {status}: {words}")
        except (TimeoutError, NatsError, OSError) as error:
            raise Unfit(f"stream {name}: {error or type(error).__name__}") from error
        else:
            return stream
        finally:
            await subscription.unsubscribe()

    async def _receive(self, chunks: asyncio.Queue[Msg], file: BinaryIO) -> Msg:
        while True:
            async with asyncio.timeout(_PATIENCE_S):
                message = await chunks.get()
            if not message.data:
                return message
            file.write(message.data)
            if message.reply:
                await self._client.publish(message.reply, b"")

    async def put_back(self, stream: Stream, folder: Path, replicas: int | None) -> None:
        """Make a stream again, from its file.

        Args:
            stream: of the manifest.
            folder: of the backup.
            replicas: nodes that keep a copy; None: as many as before.

        Raises:
            Unfit: the broker does not take it.
        """
        config = stream.config if replicas is None else {**stream.config, "num_replicas": replicas}
        told = await self._ask(f"STREAM.RESTORE.{stream.name}", {"config": config, "state": stream.state})
        answer = told
        for chunk in _chunks(folder / stream.file):
            answer = await self._request(told["deliver_subject"], chunk, f"stream {stream.name}")
        last, wanted = answer.get("state", {}).get("last_seq"), stream.state.get("last_seq")
        if last is None or wanted is None or last < wanted:
            raise Unfit(f"stream {stream.name}: it ends at {last} now, and ended at {wanted} when it was packed")

    async def remove(self, name: str) -> None:
        """Delete a stream and all that is in it."""
        await self._ask(f"STREAM.DELETE.{name}", None)

    async def _ask(self, call: str, body: dict[str, Any] | None) -> dict[str, Any]:
        return await self._request(f"$JS.API.{call}", b"" if body is None else msgspec.json.encode(body), call)

    async def _request(self, subject: str, data: bytes, what: str) -> dict[str, Any]:
        try:
            answer = await self._client.request(subject, data, timeout=_PATIENCE_S)
        except (NatsError, OSError) as error:
            words = f"{what}: {error or type(error).__name__}"
            raise Unfit(f"{words}; may this user of the broker do that, and does it have JetStream?") from error
        told: dict[str, Any] = msgspec.json.decode(answer.data) if answer.data else {}
        if "error" in told:
            raise Unfit(f"{what}: {told['error'].get('description', 'refused')}")
        return told


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _chunks(path: Path) -> Iterator[bytes]:
    """Read a file in pieces, and end with an empty one."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
    yield b""
