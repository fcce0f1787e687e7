"""Stored responses: sealed in the streams of files and batches, by owner, bounded and expiring.

Each holds its whole conversation, so that none needs another one: an earlier response may be deleted or expire, and the
later ones go on. That costs space, which the limits bound. When an owner has too many, or too many bytes, the oldest
go. Bytes are added up only for a response larger than its share of the limit, so an owner has at most twice the limit.
"""

from dataclasses import dataclass
from typing import Any

import orjson

from stream_core.errors import RequestTooLarge, SealError
from stream_gateway.batches.faults import StoreAway
from stream_gateway.batches.records import ResponseRecord
from stream_gateway.batches.store import Store
from stream_gateway.responses.ids import NoSuchResponse, response_id
from stream_gateway.settings import ResponseSettings


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is kept of a response."""

    response: dict[str, Any]
    """The object, as its client got it."""
    input: list[dict[str, Any]]
    """Items of its own request."""
    before: list[dict[str, Any]]
    """Items of the conversation before it."""
    privacy: str
    """Class of all this text."""

    @property
    def items(self) -> list[dict[str, Any]]:
        """All that was said, its answer included."""
        return [*self.before, *self.input, *self.response["output"]]


class Archive:
    """The responses of all owners.

    Args:
        store: where.
        limits: of owners.
    """

    def __init__(self, store: Store, limits: ResponseSettings) -> None:
        self._store = store
        self.limits = limits

    def check_size(self, size: int) -> None:
        """Refuse a conversation that is too long to be kept.

        Args:
            size: bytes of its JSON, without the answer to come.
        """
        if size > self.limits.max_bytes:
            words = f"input: the conversation has {size:,} bytes, at most {self.limits.max_bytes:,} are kept"
            raise RequestTooLarge(words, param="input")

    async def keep(self, owner: str, conversation: Conversation) -> None:
        """Keep a response.

        Args:
            owner: id of the principal.
            conversation: with the finished response.

        Raises:
            StoreAway: not confirmed.
        """
        now = self._store.clock()
        id_ = conversation.response["id"]
        writer = self._store.contents.writer(id_, self.limits.ttl_s)
        kept = {"response": conversation.response, "input": conversation.input, "before": conversation.before}
        await writer.add(orjson.dumps(kept))
        await writer.finish()
        record = ResponseRecord(
            id=id_,
            owner=owner,
            created=now,
            expires=now + self.limits.ttl_s,
            bytes=writer.bytes,
            chunks=writer.chunks,
            privacy=conversation.privacy,
        )
        await self._store.shelf.write(record)
        await self._trim(owner, writer.bytes)

    async def find(self, owner: str, id_: str) -> Conversation:
        """Read a response.

        Raises:
            NoSuchResponse: none of this owner, or not any more.
        """
        shelf = self._store.shelf
        found = await shelf.find(ResponseRecord, shelf.tag(owner), response_id(id_))
        if found is None:
            raise NoSuchResponse(f"there is no response {id_!r}", param="response_id")
        record = found.record
        try:
            data = await self._store.contents.whole(record.id, record.chunks)
        except SealError as error:
            # Its oldest were pushed out while it was read, or the broker lost or changed it.
            raise NoSuchResponse(f"the response {id_!r} can't be read any more", param="response_id") from error
        kept = orjson.loads(data)
        return Conversation(kept["response"], kept["input"], kept["before"], record.privacy)

    async def delete(self, owner: str, id_: str) -> None:
        """Delete a response; errors as `find`."""
        shelf = self._store.shelf
        if await shelf.find(ResponseRecord, shelf.tag(owner), response_id(id_)) is None:
            raise NoSuchResponse(f"there is no response {id_!r}", param="response_id")
        await self._remove(owner, id_)

    async def _trim(self, owner: str, size: int) -> None:
        try:
            ids = await self._store.shelf.ids_of(ResponseRecord, owner)
            for id_ in ids[: -self.limits.max_kept]:
                await self._remove(owner, id_)
            if size > self.limits.max_total_bytes // self.limits.max_kept:
                await self._trim_bytes(owner)
        except StoreAway:
            return  # the next one does it

    async def _trim_bytes(self, owner: str) -> None:
        records = [found.record for found in await self._store.shelf.all_of(ResponseRecord, owner)]
        records.sort(key=lambda record: record.id, reverse=True)
        total = 0
        for place, record in enumerate(records):
            total += record.bytes
            if place and total > self.limits.max_total_bytes:
                await self._remove(owner, record.id)

    async def _remove(self, owner: str, id_: str) -> None:
        await self._store.shelf.remove(ResponseRecord, owner, id_)
        await self._store.contents.remove(id_)
