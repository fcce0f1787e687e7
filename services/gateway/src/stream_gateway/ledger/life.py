"""The ledger of this replica, while the broker is connected: it tells that it lives, and moves entries to the store."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from stream_core.cancellation import end
from stream_core.telemetry import Once
from stream_gateway.accounts.database import STORE_ERRORS, Database
from stream_gateway.accounts.opening import open_store
from stream_gateway.batches.faults import StoreAway
from stream_gateway.batches.journal import Journal
from stream_gateway.batches.sealing import Sealer
from stream_gateway.ledger.mover import Mover
from stream_gateway.ledger.road import Road
from stream_gateway.ledger.writer import Ledger
from stream_gateway.settings import GatewaySettings

_log = logging.getLogger(__name__)
_RETRY_S: Final = 1.0


@dataclass(slots=True)
class Books:
    """Where the ledger is."""

    road: Road
    database: Database | None = None
    """None: there is no store, or it has not been reached yet."""


@contextlib.asynccontextmanager
async def keep_ledger(
    settings: GatewaySettings, ledger: Ledger, journal: Journal, sealer: Sealer
) -> AsyncIterator[Books]:
    """Open the chain, and look after it until the block ends.

    Raises:
        StoreAway: the broker does not answer yet.
    """
    road = Road(journal, sealer, alive_s=settings.ledger_alive_s)
    await ledger.opened(road)
    books, faults = Books(road), Once(_log)
    tasks = [
        asyncio.create_task(ledger.follow(), name="ledger"),
        asyncio.create_task(_stay_alive(ledger, road, faults), name="ledger: alive"),
    ]
    if settings.store_url or settings.state_dir is not None:
        tasks.append(asyncio.create_task(_move(settings, ledger, journal, books, faults), name="ledger: mover"))
    try:
        yield books
    except asyncio.CancelledError:
        await ledger.close()  # after a fault instead the chain goes on with the next connection
        raise
    finally:
        await end(*tasks)
        if books.database is not None:
            await books.database.aclose()


async def _stay_alive(ledger: Ledger, road: Road, faults: Once) -> None:
    while True:
        await asyncio.sleep(road.alive_s / 3)
        try:
            await road.tell_alive(ledger.chain.name)
        except StoreAway as error:
            faults.note("ledger_away", error.message)


async def _move(settings: GatewaySettings, ledger: Ledger, journal: Journal, books: Books, faults: Once) -> None:
    while books.database is None:
        try:
            books.database, _ = await open_store(settings)
        except STORE_ERRORS as error:
            faults.note("ledger_store_away", str(error))
            await asyncio.sleep(_RETRY_S)
    await Mover(journal, books.road, ledger, books.database).run()
