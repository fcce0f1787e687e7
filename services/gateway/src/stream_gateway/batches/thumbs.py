"""Feedback at the broker, sealed: any replica takes a thumb for any replica's answer, and all of them are in one place.

A replica that does not remember an answer asks the others who asked for it, and waits `FIND_S`. Question and answer
are sealed, so that the broker can neither read nor make them up:

    stream.batch.asked      request id, sealed("who")               to all replicas
    stream.batch.answered   request id, sealed(key, tier, model)    from the one that remembers, to all
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from nats.js.errors import APIError

from stream_core.broker_client import Msg, NatsError
from stream_core.errors import FrameError, LimitExceeded, SealError
from stream_core.telemetry import Once
from stream_gateway.batches.faults import Conflict
from stream_gateway.batches.journal import Journal
from stream_gateway.batches.sealing import NONCE_BYTES, OVERHEAD, Kind, Sealer
from stream_gateway.batches.streams import PREFIX, THUMBS
from stream_gateway.feedback import Answered, RecentAnswers, Thumb

ASKED: Final = f"{PREFIX}.asked"
ANSWERED: Final = f"{PREFIX}.answered"
FIND_S: Final = 0.5
_ID_DIGITS: Final = 32
_WHO: Final = "who"
_THIS_ONE: Final = "this one"
_LONGEST: Final = 2048
"""Bytes of a message between replicas."""
_FULL: Final = 10077
"""JetStream's own error number for a stream that has no room."""


class Thumbs:
    """Keeps thumbs, and finds out whose answer one is about.

    Args:
        journal: where.
        sealer: of this service.
        recent: what this replica remembers.
        ttl_s: seconds that a thumb is kept.
        faults: counts what does not open.
    """

    def __init__(self, journal: Journal, sealer: Sealer, recent: RecentAnswers, ttl_s: float, faults: Once) -> None:
        self._journal = journal
        self._sealer = sealer
        self._recent = recent
        self._ttl_s = ttl_s
        self._faults = faults
        self._sought: dict[str, asyncio.Future[Answered]] = {}

    async def start(self) -> None:
        """Listen to the other replicas."""
        await self._journal.client.subscribe(ASKED, cb=self._on_asked)
        await self._journal.client.subscribe(ANSWERED, cb=self._on_answered)

    async def find(self, request_id: str) -> Answered | None:
        """Ask the replicas who asked; None: nobody remembers it.

        Args:
            request_id: 32 hex digits.
        """
        here = self._recent.find(request_id)
        if here is not None:
            return here
        sought = self._sought.setdefault(request_id, asyncio.get_running_loop().create_future())
        try:
            await self._journal.client.publish(ASKED, self._seal(b"", "asked", request_id, _WHO))
            return await asyncio.wait_for(asyncio.shield(sought), FIND_S)
        except (TimeoutError, NatsError, OSError):
            return None
        finally:
            self._sought.pop(request_id, None)

    async def keep(self, thumb: Thumb) -> None:
        """Keep a thumb in the place of an older one about the same answer.

        Raises:
            LimitExceeded: there is no room.
            StoreAway: not confirmed.
        """
        subject = self._subject(thumb.key, thumb.request_id)
        data = self._seal(msgspec.json.encode(thumb), "thumb", thumb.request_id, "")
        try:
            await self._put(subject, data)
        except Conflict:  # the same answer was judged through another replica meanwhile: the last one counts
            await self._put(subject, data)

    async def read(self, owner: str | None = None) -> AsyncIterator[Thumb]:
        """Read what is kept, the oldest first; one that does not open is counted and left out.

        Args:
            owner: id of a key whose thumbs are wanted; None: all.

        Raises:
            StoreAway: also in the middle.
        """
        pattern = f"{PREFIX}.thumb.{self._sealer.owner_tag(owner) if owner is not None else '*'}.*"
        async for kept in self._journal.read(pattern, stream=THUMBS):
            content = self._unseal(kept.data, "thumb", kept.subject.rpartition(".")[2], "")
            if content is not None:
                yield msgspec.json.decode(content, type=Thumb)

    async def _put(self, subject: str, data: bytes) -> None:
        before = await self._journal.get(subject, stream=THUMBS)
        try:
            await self._journal.put(
                subject, data, stream=THUMBS, ttl_s=self._ttl_s, last=before.sequence if before else 0
            )
        except Exception as error:
            cause = error.__cause__
            if isinstance(cause, APIError) and cause.err_code == _FULL:
                raise LimitExceeded("no room for more feedback: gateway.feedback_max_bytes are in use") from error
            raise

    async def _on_asked(self, message: Msg) -> None:
        request_id, content = self._heard(message, _WHO)
        answered = self._recent.find(request_id) if content is not None else None
        if answered is None:
            return
        try:
            sealed = self._seal(msgspec.json.encode(answered), "asked", request_id, _THIS_ONE)
            await self._journal.client.publish(ANSWERED, sealed)
        except (NatsError, OSError):
            return  # the thumb is refused, and its sender may try again

    async def _on_answered(self, message: Msg) -> None:
        request_id, content = self._heard(message, _THIS_ONE)
        sought = self._sought.get(request_id)
        if content is not None and sought is not None and not sought.done():
            sought.set_result(msgspec.json.decode(content, type=Answered))

    def _heard(self, message: Msg, place: str) -> tuple[str, bytes | None]:
        """A message between replicas: the id in front of it, and what is sealed behind."""
        if not _ID_DIGITS + OVERHEAD <= len(message.data) <= _LONGEST:
            self._faults.note("malformed_frame", f"{len(message.data):,} bytes between replicas, at most {_LONGEST:,}")
            return "", None
        request_id = message.data[:_ID_DIGITS].decode("ascii", "replace")
        return request_id, self._unseal(message.data[_ID_DIGITS:], "asked", request_id, place)

    def _seal(self, content: bytes, kind: Kind, request_id: str, place: str) -> bytes:
        sealed = self._sealer.seal(content, kind, request_id, place, nonce=secrets.token_bytes(NONCE_BYTES))
        return request_id.encode("ascii") + sealed if kind == "asked" else sealed

    def _unseal(self, sealed: bytes, kind: Kind, request_id: str, place: str) -> bytes | None:
        try:
            return self._sealer.unseal(sealed, kind, request_id, place)
        except (FrameError, SealError) as error:
            self._faults.note(error.code, error.message)
            return None

    def _subject(self, owner: str, request_id: str) -> str:
        return f"{PREFIX}.thumb.{self._sealer.owner_tag(owner)}.{request_id}"
