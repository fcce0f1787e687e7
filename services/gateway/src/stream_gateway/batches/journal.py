"""JetStream, as far as batches need it: messages that are written once, counted, read in order, purged by subject."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
)
from nats.js.errors import APIError, NotFoundError

from stream_core.broker_client import Client, Msg
from stream_core.ids import new_id, to_hex
from stream_gateway.batches.faults import Conflict
from stream_gateway.batches.streams import FAULTS, LINES, away

_WRONG_LAST: Final = frozenset({10071, 10164})
"""JetStream's own error numbers for "another message is the last of this subject"."""
_REQUEST_S: Final = 5.0
_LEAST_TTL_S: Final = 1.0
_READ_AT_ONCE: Final = 64
_READ_S: Final = 1.0
_CONSUMER_IDLE_S: Final = 30.0
_COUNTER_IDLE_S: Final = 120.0
_QUEUE_IDLE_S: Final = 3600.0
"""A work queue that nobody asks so long is forgotten by the broker; the work in it is not."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A message as it is kept."""

    subject: str
    data: bytes
    sequence: int


class Journal:
    """The streams of `streams.py`.

    Args:
        client: connected.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.jetstream: JetStreamContext = client.jetstream(timeout=_REQUEST_S)

    async def put(self, subject: str, data: bytes, *, stream: str, ttl_s: float, last: int = 0) -> int:
        """Write a message if the last one of its subject is this one.

        Args:
            subject: of one of the streams.
            data: sealed.
            stream: the subject's.
            ttl_s: seconds until the broker forgets it.
            last: sequence of the one that it replaces; 0: there is none.

        Returns:
            Its sequence.

        Raises:
            Conflict: another one is the last.
            StoreAway: not confirmed; it may be there all the same.
        """
        headers = {"Nats-Expected-Last-Subject-Sequence": str(last)}
        try:
            ack = await self.jetstream.publish(
                subject, data, headers=headers, msg_ttl=max(_LEAST_TTL_S, ttl_s), stream=stream
            )
        except APIError as error:
            if error.err_code in _WRONG_LAST:
                raise Conflict(f"{subject} is not at {last}") from error
            raise away(error) from error
        except FAULTS as error:
            raise away(error) from error
        return ack.seq

    async def get(self, subject: str, *, stream: str) -> Kept | None:
        """Read the last message of a subject, as the stream's leader knows it."""
        try:
            message = await self.jetstream.get_last_msg(stream, subject)
        except NotFoundError:
            return None
        except FAULTS as error:
            raise away(error) from error
        return Kept(subject, message.data or b"", message.seq or 0)

    async def purge(self, subject: str, *, stream: str) -> None:
        """Remove all messages of a subject, which may have wildcards."""
        try:
            await self.jetstream.purge_stream(stream, subject=subject)
        except FAULTS as error:
            raise away(error) from error

    async def subjects(self, pattern: str, *, stream: str) -> list[str]:
        """List the subjects that have messages."""
        try:
            info = await self.jetstream.stream_info(stream, subjects_filter=pattern)
        except FAULTS as error:
            raise away(error) from error
        return sorted(info.state.subjects or ())

    async def count(self, pattern: str, *, stream: str, name: str) -> int:
        """Count the messages of a pattern, without reading them.

        Args:
            pattern: with wildcards.
            stream: theirs.
            name: of the consumer that counts them for the broker; made where it is not there, gone when unused.
        """
        config = ConsumerConfig(
            name=name,
            durable_name=name,
            filter_subject=pattern,
            ack_policy=AckPolicy.NONE,
            deliver_policy=DeliverPolicy.ALL,
            inactive_threshold=_COUNTER_IDLE_S,
        )
        try:
            info = await self.jetstream.add_consumer(stream, config)
        except FAULTS as error:
            raise away(error) from error
        return info.num_pending or 0

    async def read(
        self, pattern: str, *, stream: str, headers_only: bool = False, last_only: bool = False
    ) -> AsyncIterator[Kept]:
        """Read all messages of a pattern that are there now, in the order in which they were written.

        Args:
            pattern: with wildcards.
            stream: theirs.
            headers_only: leaves out what they hold.
            last_only: only the last of each subject.

        Raises:
            StoreAway: also in the middle.
        """
        config = ConsumerConfig(
            name=f"read-{to_hex(new_id())}",
            filter_subject=pattern,
            ack_policy=AckPolicy.NONE,
            deliver_policy=DeliverPolicy.LAST_PER_SUBJECT if last_only else DeliverPolicy.ALL,
            inactive_threshold=_CONSUMER_IDLE_S,
            headers_only=headers_only,
            mem_storage=True,
            num_replicas=1,
        )
        try:
            info = await self.jetstream.add_consumer(stream, config)
            left = info.num_pending or 0
            if not left:
                await self.jetstream.delete_consumer(stream, info.name)
                return
            reader = await self.jetstream.pull_subscribe_bind(info.name, stream)
            try:
                while left > 0:
                    messages = await _fetch(reader, min(left, _READ_AT_ONCE))
                    for message in messages:
                        yield Kept(message.subject, message.data, message.metadata.sequence.stream)
                    left -= len(messages)
                    if not messages:
                        # What is left may have been removed meanwhile.
                        left = min(left, (await reader.consumer_info()).num_pending or 0)
            finally:
                await reader.unsubscribe()
            await self.jetstream.delete_consumer(stream, info.name)
        except FAULTS as error:
            raise away(error) from error

    async def work(
        self, pattern: str, name: str, *, redeliver_s: float, stream: str = LINES, most_open: int | None = None
    ) -> "WorkQueue":
        """Take part in the work queue of a pattern; all who name it alike share it.

        Args:
            pattern: no other queue may have one that overlaps.
            name: of the queue.
            redeliver_s: seconds without a sign of life after which work is given to another one.
            stream: where it is.
            most_open: how much may be given out; -1: any number, None: the broker's default.
        """
        config = ConsumerConfig(
            name=name,
            durable_name=name,
            filter_subject=pattern,
            max_ack_pending=most_open,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=redeliver_s,
            max_deliver=-1,
            max_waiting=512,
            inactive_threshold=_QUEUE_IDLE_S,
        )
        try:
            await self.jetstream.add_consumer(stream, config)
            return WorkQueue(await self.jetstream.pull_subscribe_bind(name, stream))
        except FAULTS as error:
            raise away(error) from error

    async def forget_work(self, name: str) -> None:
        """Remove a work queue; one that is not there is fine."""
        try:
            await self.jetstream.delete_consumer(LINES, name)
        except NotFoundError:
            return
        except FAULTS as error:
            raise away(error) from error


async def _fetch(reader: JetStreamContext.PullSubscription, count: int) -> list[Msg]:
    try:
        return await reader.fetch(count, timeout=_READ_S)
    except TimeoutError:
        return []


class WorkQueue:
    """One replica's part in a work queue."""

    def __init__(self, subscription: JetStreamContext.PullSubscription) -> None:
        self._subscription = subscription

    async def take(self, count: int, wait_s: float) -> list[Msg]:
        """Take up to so many messages; none when there are none within the time.

        Raises:
            StoreAway: the queue is gone, or the broker.
        """
        try:
            return await self._subscription.fetch(count, timeout=wait_s)
        except TimeoutError:
            return []
        except FAULTS as error:
            raise away(error) from error

    async def aclose(self) -> None:
        """Take no more."""
        try:
            await self._subscription.unsubscribe()
        except FAULTS:
            return
