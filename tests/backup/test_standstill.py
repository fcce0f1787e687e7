"""While the mark of a backup stands nothing is taken away; afterwards everything goes on."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from batches.press import Press, jsonl, reach, request, start, upload
from gateway_accounts.conftest import gateway_settings

from stream_core import bus
from stream_core.audit.entries import Fields
from stream_core.audit.verify import verify
from stream_core.settings import NatsSettings
from stream_core.testing.broker import run_broker
from stream_gateway.accounts.database import Database
from stream_gateway.accounts.opening import open_store
from stream_gateway.batches.journal import Journal
from stream_gateway.batches.sealing import Sealer
from stream_gateway.batches.standstill import standstill
from stream_gateway.batches.streams import LEDGER, RESULTS, ensure
from stream_gateway.ledger.mover import Mover
from stream_gateway.ledger.road import Road
from stream_gateway.ledger.table import entries
from stream_gateway.ledger.writer import Ledger

pytestmark = pytest.mark.process


async def wait_for(reached: Callable[[], Awaitable[bool]]) -> None:
    """Look until it is so."""
    async with asyncio.timeout(60):
        while not await reached():  # noqa: ASYNC110  (the broker tells nobody)
            await asyncio.sleep(0.02)


async def kept(database: Database) -> list[bytes]:
    """Entries that are in the store."""
    return [text.encode() async for text in entries(database)]


async def test_the_ledger_stays_at_the_broker(tmp_path: Path) -> None:
    """Entries that the mover has in its hands already, too: what is not in the store then is at the broker."""
    database, _ = await open_store(gateway_settings(tmp_path, state_dir=tmp_path / "state"))
    with run_broker() as url:
        client = await bus.connect(NatsSettings(url=url), name="gateway")
        journal = Journal(client)
        await ensure(journal.jetstream, 1, thumb_bytes=-1)
        road = Road(journal, Sealer(secrets.token_bytes(32)), alive_s=600)
        ledger = Ledger("c" * 32, time.time, kept=True)
        await ledger.opened(road)
        tasks = [asyncio.create_task(work) for work in (ledger.follow(), Mover(journal, road, ledger, database).run())]

        def note(first: int, last: int) -> None:
            for number in range(first, last):
                ledger.note(number.to_bytes(16), Fields(f"{number:032x}", time.time()))

        async def in_hand(count: int) -> bool:
            """So many are at the broker, and the mover has taken the first of them."""
            there = (await journal.jetstream.stream_info(LEDGER)).state.messages
            return there == count and bool((await journal.jetstream.consumer_info(LEDGER, "ledger")).num_ack_pending)

        async def moved(count: int) -> bool:
            return len(await kept(database)) == count

        note(0, 5)
        await wait_for(lambda: moved(6))  # with the chain's opening
        async with standstill(journal):
            note(5, 25)
            await wait_for(lambda: in_hand(20))
            assert len(await kept(database)) == 6
        await wait_for(lambda: moved(26))
        assert verify(await kept(database)).faults == []
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await bus.close(client)
    await database.aclose()


async def test_results_stay_beside_their_batch(tmp_path: Path, engine: str) -> None:
    """A batch whose lines are all done waits, with its results, until the mark is gone; then its files are whole."""
    with Press.running(tmp_path, engine) as press:
        broker = await bus.connect(NatsSettings(url=press.broker.url), name="gateway")
        journal = Journal(broker)
        async with press.client() as client:
            file = await upload(client, jsonl(*[request(f"r{n}") for n in range(5)]))
            async with standstill(journal):
                batch = await start(client, file)
                batch = await reach(client, batch.id, lambda now: now.status not in {"validating", "in_progress"})
                assert batch.status == "finalizing"
                assert (await journal.jetstream.stream_info(RESULTS)).state.messages == 5
            batch = await reach(client, batch.id)
            assert batch.request_counts is not None
            assert batch.request_counts.completed == 5
            await wait_for(lambda: gone(journal))
        await bus.close(broker)


async def gone(journal: Journal) -> bool:
    """Whether no result is kept any more."""
    return (await journal.jetstream.stream_info(RESULTS)).state.messages == 0
