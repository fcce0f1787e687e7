"""Moves the ledger from the broker into the store, at any replica: each entry at least once, and kept once.

An intent stays while its gateway lives. One whose gateway has twice not been heard of becomes an entry "lost", of the
chain of whoever finds it, with what was reserved: nobody knows what the engine did with it. While a backup is taken
nothing moves.
"""

import asyncio
import logging
from typing import Final

import msgspec

from stream_core.audit.entries import LOST, Entry, Fields, hash_of
from stream_core.broker_client import Msg, NatsError
from stream_core.cancellation import heed_cancellation
from stream_core.errors import FrameError, SealError
from stream_core.telemetry import Once
from stream_gateway.accounts.database import STORE_ERRORS, Database
from stream_gateway.batches.faults import StoreAway
from stream_gateway.batches.journal import Journal, WorkQueue
from stream_gateway.batches.standstill import stands_still
from stream_gateway.batches.streams import LEDGER, PREFIX
from stream_gateway.ledger.road import Head, Road
from stream_gateway.ledger.table import insert
from stream_gateway.ledger.writer import Ledger

_log = logging.getLogger(__name__)
_AT_ONCE: Final = 256
_TAKE_S: Final = 1.0
_RETRY_S: Final = 1.0
_QUEUE: Final = "ledger"


class Mover:
    """See the module.

    Args:
        journal: of the broker.
        road: where slips are.
        ledger: of this gateway, for what others have lost.
        database: where entries go.
    """

    def __init__(self, journal: Journal, road: Road, ledger: Ledger, database: Database) -> None:
        self._journal = journal
        self._road = road
        self._ledger = ledger
        self._database = database
        self._faults = Once(_log)

    async def run(self) -> None:
        """Move until cancelled."""
        queue: WorkQueue | None = None
        while True:
            heed_cancellation()  # the chain's end arrives here in the moment in which this is cancelled
            try:
                if queue is None:
                    # Each stream that runs has an intent given out all the time.
                    queue = await self._journal.work(
                        f"{PREFIX}.ledger.>", _QUEUE, redeliver_s=3 * self._road.alive_s, stream=LEDGER, most_open=-1
                    )
                messages = await queue.take(_AT_ONCE, _TAKE_S)
                if messages:
                    await self._move(messages)
                else:
                    await asyncio.sleep(0)
            except (StoreAway, NatsError, OSError) as error:
                queue = None
                self._faults.note("ledger_away", str(error))
                await asyncio.sleep(_RETRY_S)
            except STORE_ERRORS as error:
                # Not acknowledged: they come again.
                self._faults.note("ledger_store_away", str(error))
                await asyncio.sleep(_RETRY_S)
            except Exception:  # noqa: BLE001  (a bug must neither end the mover nor be silent)
                _log.exception("the ledger's mover stumbled")
                await asyncio.sleep(_RETRY_S)

    async def _move(self, messages: list[Msg]) -> None:
        while await stands_still(self._journal):  # noqa: ASYNC110  (the mark of another process)
            await asyncio.sleep(_RETRY_S)
        entries: list[tuple[Msg, str]] = []
        for message in messages:
            try:
                slip = self._road.read(message.subject, message.data)
            except (FrameError, SealError, msgspec.DecodeError) as error:
                self._faults.note("ledger_forged", str(error))
                await message.term()
                continue
            if slip.intent is not None:
                await self._look_after(message, slip.intent)
            elif slip.entry:
                entries.append((message, slip.entry))
            else:
                await message.ack()  # an intent that was taken back
        if not entries:
            return
        await insert(self._database, [text for _, text in entries])
        await self._remember([text for _, text in entries])
        for message, _ in entries:
            await message.ack()

    async def _look_after(self, message: Msg, intent: Fields) -> None:
        chain = message.subject.split(".")[-2]
        seen = message.metadata.num_delivered or 1
        if chain == self._ledger.chain.name or seen == 1 or await self._road.is_alive(chain):
            await message.nak(delay=self._road.alive_s)
            return
        _log.warning("a gateway died in the middle of a request", extra={"request_id": intent.id, "chain": chain})
        await self._ledger.give_up(msgspec.structs.replace(intent, ended=LOST, counted="reserve"))
        await message.ack()

    async def _remember(self, texts: list[str]) -> None:
        """Note the heads, over those that are noted and older."""
        newest: dict[str, Head] = {}
        for text in texts:
            entry = msgspec.json.decode(text, type=Entry)
            known = newest.get(entry.chain)
            if known is None or known.number < entry.number:
                newest[entry.chain] = Head(entry.chain, entry.number, hash_of(text.encode()))
        for chain, head in newest.items():
            noted = await self._road.head(chain)
            if noted is None or noted.number < head.number:
                await self._road.remember(head)
