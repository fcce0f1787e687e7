"""All accounts that this replica uses, and whether the broker that keeps them is there.

While it is away, limits of a minute go on here, for this replica alone, and limits of a month let nothing pass that
spends. That is said once in the log, and counted as the fault `limits_away`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from stream_core.telemetry import Once
from stream_gateway.accounts.principal import Subject
from stream_gateway.limits.account import LEASE_S, Amounts, Claim, Refused, settle
from stream_gateway.limits.page import Granted, Page, Store

_log = logging.getLogger(__name__)
_FIRST_S: Final = 5.0
"""What a request waits for the broker of a gateway that has just started, before it is judged without."""
_LOOK_S: Final = 1.0
_IDLE_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Entry:
    """What was granted, to be settled once."""

    subject: Subject
    claim: Claim
    granted: Granted


class Book:
    """See the module.

    Args:
        replica: this gateway's id, new with each start.
        clock: gives unix seconds.
        shared: whether there is a broker to wait for.
        lease_s: after which the streams of a replica that died count no more.
    """

    def __init__(self, replica: str, clock: Callable[[], float], *, shared: bool, lease_s: float = LEASE_S) -> None:
        self._replica = replica
        self._clock = clock
        self._shared = shared
        self._lease_s = lease_s
        self._store: Store | None = None
        self._opened = asyncio.Event()
        self._away = False
        self._pages: dict[str, Page] = {}
        self._faults = Once(_log)

    def opened(self, store: Store) -> None:
        """Use this store from now on."""
        self._store = store
        self._opened.set()

    async def claim(self, subject: Subject, claim: Claim) -> Entry | Refused:
        """Ask for something.

        Raises:
            page.Unknown: it has limits of a month, and the broker is away.
        """
        if self._shared and not self._opened.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_S):
                    await self._opened.wait()
        verdict = await self._page(subject).claim(subject.limits, claim, self._reachable())
        return verdict if isinstance(verdict, Refused) else Entry(subject, claim, verdict)

    async def peek(self, subject: Subject, claim: Claim) -> Refused | None:
        """Tell whether a claim would be refused now; errors as of `claim`."""
        return await self._page(subject).peek(subject.limits, claim, self._reachable())

    def settle(self, entry: Entry, used: Amounts, requests: int) -> None:
        """Say what became of it.

        Args:
            entry: as granted.
            used: in place of what was reserved.
            requests: that count in the end.
        """
        more = used.minus(entry.claim.amounts)
        changes = settle(entry.granted.change, more, requests - entry.claim.requests, self._clock())
        if more == Amounts() and requests == entry.claim.requests:
            changes = []
        self._page(entry.subject).settle(changes, entry.claim.streams, self._reachable())

    async def follow(self) -> None:
        """Renew what must be, write what could not be written, forget what is not used; until cancelled."""
        while True:
            await asyncio.sleep(min(_LOOK_S, self._lease_s / 5))
            if self._away and self._store is not None and self._store.connected:
                self._away = False
            for name, page in list(self._pages.items()):
                page.renew(self._reachable())
                if page.idle and self._clock() - page.touched > _IDLE_S:
                    del self._pages[name]

    def _page(self, subject: Subject) -> Page:
        name = f"{subject.kind}:{subject.id}"
        page = self._pages.get(name)
        if page is None:
            page = Page(name, self._replica, self._clock, lease_s=self._lease_s, away=self._on_away)
            self._pages[name] = page
        return page

    def _reachable(self) -> Store | None:
        if self._store is None or not self._store.connected:
            self._on_away(None)
            return None
        return None if self._away else self._store

    def _on_away(self, error: Exception | None) -> None:
        if self._away:
            return
        self._away = True
        why = str(error) or type(error).__name__ if error else "no connection"
        words = "limits of a minute hold for this replica alone, and those of a month let nothing pass"
        self._faults.note("limits_away", f"the broker that keeps what was used is away ({why[:200]}): {words}")
