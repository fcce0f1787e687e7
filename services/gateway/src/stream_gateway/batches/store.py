"""All that batches keep, in one hand."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from stream_core.broker_client import Client, NatsError
from stream_core.telemetry import Once
from stream_gateway.batches.contents import Contents
from stream_gateway.batches.journal import Journal
from stream_gateway.batches.results import Results
from stream_gateway.batches.sealing import Sealer
from stream_gateway.batches.shelf import Shelf
from stream_gateway.batches.streams import PREFIX
from stream_gateway.settings import BatchSettings

NUDGE: Final = f"{PREFIX}.nudge"
"""Tells all runners to look at once; it is lost where nobody listens, and they look now and then anyway."""


@dataclass(frozen=True)
class Store:
    """Records, contents, lines and results, and who may have how much of it."""

    client: Client
    journal: Journal
    shelf: Shelf
    contents: Contents
    results: Results
    limits: BatchSettings
    clock: Callable[[], float]

    @classmethod
    def at(cls, client: Client, service_key: bytes, limits: BatchSettings, faults: Once) -> "Store":
        """Build it.

        Args:
            client: connected.
            service_key: 32 bytes.
            limits: of owners.
            faults: counts what does not open.
        """
        journal, sealer = Journal(client), Sealer(service_key)
        contents = Contents(journal, sealer)
        return cls(
            client=client,
            journal=journal,
            shelf=Shelf(journal, sealer, time.time, faults),
            contents=contents,
            results=Results(journal, sealer, contents),
            limits=limits,
            clock=time.time,
        )

    async def nudge(self) -> None:
        """Let runners look at once."""
        try:
            await self.client.publish(NUDGE, b"")
        except (NatsError, OSError):
            return
