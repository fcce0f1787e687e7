"""The parts of files, batches and feedback, while the broker is connected."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

from stream_core import bus
from stream_core.telemetry import Once, OnceHandler
from stream_gateway.batches.clerk import Clerk
from stream_gateway.batches.desk import Desk
from stream_gateway.batches.execute import Executor
from stream_gateway.batches.files import Files
from stream_gateway.batches.gauge import Gauge
from stream_gateway.batches.runner import Runner
from stream_gateway.batches.sealing import Sealer
from stream_gateway.batches.service import Batches
from stream_gateway.batches.spent import Spent
from stream_gateway.batches.store import Store
from stream_gateway.batches.streams import ensure
from stream_gateway.batches.thumbs import Thumbs
from stream_gateway.ledger.life import Books, keep_ledger
from stream_gateway.limits.sums import Sums
from stream_gateway.responses.archive import Archive


@dataclass(frozen=True, slots=True)
class Life:
    """What there is."""

    files: Files
    desk: Desk
    runner: Runner
    archive: Archive
    thumbs: Thumbs
    books: Books


def _hear_forms(faults: Once) -> None:
    """The library that reads uploads would log each malformed one, in its sender's own bytes."""
    logger = logging.getLogger("python_multipart")
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    logger.handlers[:] = [OnceHandler(faults, "malformed_upload")]


@contextlib.asynccontextmanager
async def live(batches: Batches, service_key: bytes, faults: Once) -> AsyncIterator[Life]:
    """Connect and build the parts, until the block ends.

    Args:
        batches: what they are built from.
        service_key: 32 bytes.
        faults: counts what does not open.

    Raises:
        ConfigError: no broker, no JetStream, or too few nodes.
        StoreAway: JetStream does not answer yet.
    """
    settings = batches.settings
    _hear_forms(faults)
    client = await bus.connect(settings.nats, name="gateway")
    following: asyncio.Task[None] | None = None
    try:
        store = Store.at(client, service_key, settings.batches, faults)
        await ensure(store.journal.jetstream, settings.batches.replicas, thumb_bytes=settings.feedback_max_bytes)
        gauge = Gauge(client, batches.registry, batches.attended)
        await gauge.start()
        thumbs = Thumbs(store.journal, Sealer(service_key), batches.recent, settings.feedback_ttl_s, faults)
        await thumbs.start()
        files = Files(store)
        clerk = Clerk(store, settings.max_body_bytes)
        executor = Executor(store, batches.registry, batches.pipeline, batches.ledger, settings.max_body_bytes)
        batches.book.opened(Sums(store.journal, Sealer(service_key)))
        spent = Spent(store.journal, Sealer(service_key), batches.spending, faults)
        following = asyncio.create_task(spent.follow(), name="what the cloud has cost")
        runner = Runner(store, clerk, executor, batches.entrance, gauge)
        async with keep_ledger(settings, batches.ledger, store.journal, Sealer(service_key)) as books:
            yield Life(files, Desk(store, files), runner, Archive(store, settings.responses), thumbs, books)
    finally:
        if following is not None:
            following.cancel()
        await bus.close(client)
