"""The accounts as this replica knows them: in memory, so that no request waits for the database.

A change by any replica counts up a number in the database; each replica looks at it once a second and reads all
accounts again when it has grown. While the database is away, what was read last stays valid.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from stream_core.errors import Unauthenticated
from stream_core.telemetry import Once
from stream_gateway.accounts.claims import Told
from stream_gateway.accounts.faults import AccountsAway, AccountsOff
from stream_gateway.accounts.principal import Principal
from stream_gateway.accounts.records import User
from stream_gateway.accounts.rights import refusal_of
from stream_gateway.accounts.snapshot import Snapshot
from stream_gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from stream_gateway.accounts.database import Database
    from stream_gateway.accounts.store import Store

_log = logging.getLogger(__name__)
_MOST_SIGHTINGS: Final = 10_000
_NEWS_S: Final = 60.0
"""How often what tokens tell of a user who is known is written down, at most."""
_RETRY_S: Final = 1.0
SETTINGS: Final = "STREAM_GATEWAY__STORE_URL and STREAM_GATEWAY__STATE_DIR"


class Directory:
    """Who there is.

    Args:
        settings: of the gateway.
        classes: gives the policy's privacy classes, the least confidential first.
        clock: unix seconds.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        classes: Callable[[], Sequence[str]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.configured = bool(settings.store_url) or settings.state_dir is not None
        self._settings = settings
        self._classes = classes
        self._clock = clock
        self._snapshot = Snapshot()
        self._made: dict[str, Principal] = {}
        self._made_for: Sequence[str] = ()
        self._known = asyncio.Event()
        self._fault = "it has not been read yet"
        self._store: Store | None = None
        self._reading = asyncio.Lock()
        self._sightings: dict[str, User] = {}
        self._told_at: dict[str, float] = {}
        self._faults = Once(_log)
        self._away = False

    @property
    def known(self) -> bool:
        """Whether the accounts have been read."""
        return self._known.is_set()

    @property
    def snapshot(self) -> Snapshot:
        """All accounts, as last read."""
        return self._snapshot

    async def opened(self) -> "Store":
        """Give the place where accounts are changed, once they have been read.

        Raises:
            AccountsOff: there are none in this deployment.
            AccountsAway: not now.
        """
        if not self.configured:
            raise AccountsOff(f"this gateway keeps no accounts: neither {SETTINGS} is set")
        await self.ready()
        assert self._store is not None  # noqa: S101  (it was read from)
        return self._store

    async def first_read(self) -> None:
        """Wait until the accounts have been read, however long that takes."""
        await self._known.wait()

    async def ready(self) -> None:
        """Wait until the accounts have been read, right after the start.

        Raises:
            AccountsAway: they can't be.
        """
        if not self._known.is_set() and not self._away:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.store_patience_s):
                    await self._known.wait()
        if not self._known.is_set():
            raise AccountsAway(f"the store of accounts is not available now: {self._fault}")

    def by_hash(self, sha256: str, wanted: str) -> Principal:
        """Tell who has a key.

        Args:
            sha256: of the whole key, hex.
            wanted: project that the request names.

        Raises:
            Unauthenticated: nobody, or it is not valid now.
            NotAllowed: the user is not in that project.
        """
        key = self._snapshot.key_of(sha256)
        if key is None:
            raise Unauthenticated("incorrect API key provided: it is unknown")
        now, classes = self._clock(), self._classes()
        if wanted:
            return self._snapshot.by_key(key, now, classes, wanted)
        if classes is not self._made_for:
            self._made, self._made_for = {}, classes
        made = self._made.get(key.id)
        if made is None or refusal_of(key, now) is not None:
            made = self._made[key.id] = self._snapshot.by_key(key, now, classes)
        return made

    def by_token(self, told: Told, wanted: str) -> Principal:
        """Tell who has a token; a user who is new, or of whom it tells something new, is written down later.

        Args:
            told: what the token tells.
            wanted: project that the request names; one that the token names goes before it.

        Raises:
            Unauthenticated: the user is disabled.
            NotAllowed: the user is not in that project.
        """
        seen = told.user
        known = self._snapshot.users.get(seen.id)
        if known is not None:
            fresh = {name: getattr(seen, name) for name in ("name", "email", "told_groups", "told_tiers")}
            seen = replace(known, **fresh)
        if seen != known and self.configured and self._is_due(seen.id, new=known is None):
            self._sightings[seen.id] = seen
        return self._snapshot.by_token(seen, self._classes(), told.project or wanted)

    def _is_due(self, id_: str, *, new: bool) -> bool:
        """Whether a user is to be written down now: one who is known not each time that two of their tokens differ."""
        if len(self._sightings) >= _MOST_SIGHTINGS:
            return False
        now = self._clock()
        if not new:
            if now - self._told_at.get(id_, float("-inf")) < _NEWS_S:
                return False
            if len(self._told_at) >= _MOST_SIGHTINGS:
                self._told_at.clear()
            self._told_at[id_] = now
        return True

    def of(self, id_: str, project: str = "") -> Principal | None:
        """Find what a principal may use now that asked earlier, for a project; None: nothing any more."""
        return self._snapshot.of(id_, self._clock(), self._classes(), project)

    async def refresh(self) -> None:
        """Read what has changed, at once.

        Raises:
            AccountsAway: the database does not answer.
        """
        await self._catch_up(await self.opened())

    async def _catch_up(self, store: "Store") -> None:
        async with self._reading:
            if not self._known.is_set() or await store.revision() != self._snapshot.revision:
                self._snapshot, self._made = await store.snapshot(), {}
                self._known.set()
                _log.info("accounts read", extra={"keys": len(self._snapshot.keys), "users": len(self._snapshot.users)})

    async def follow(self) -> None:
        """Open the store and keep up with it, until cancelled."""
        if not self.configured:
            return
        # SQLAlchemy is slow to load and not in a hurry: whoever has a key of the key file is served meanwhile.
        opening, errors = await asyncio.to_thread(_load)
        database: Database | None = None
        try:
            while True:
                try:
                    if database is None or self._store is None:
                        database, self._store = await opening(self._settings)
                    await self._write_sightings(self._store)
                    await self._catch_up(self._store)
                except errors as error:
                    self._told_away(error)
                    await asyncio.sleep(_RETRY_S)
                else:
                    self._told_back()
                    await asyncio.sleep(self._settings.store_look_s)
        finally:
            if database is not None:
                await database.aclose()

    async def _write_sightings(self, store: "Store") -> None:
        if not self._sightings:
            return
        seen = dict(self._sightings)
        try:
            async with store.change() as change:
                for user in seen.values():
                    await change.see(user)
        except AccountsAway:
            raise
        except Exception as error:  # noqa: BLE001  (what tokens tell must not keep a replica from its accounts)
            self._faults.note("users_not_written", type(error).__name__)
        for id_, user in seen.items():
            if self._sightings.get(id_) is user:
                del self._sightings[id_]

    def _told_away(self, error: Exception) -> None:
        self._fault = getattr(error, "message", type(error).__name__)
        self._faults.count("accounts_away")
        if not self._away:
            self._away = True
            kept = "what was read last stays valid" if self.known else "keys of the key file alone are valid"
            _log.error("accounts can't be read, %s: %s", kept, self._fault)

    def _told_back(self) -> None:
        if self._away:
            self._away = False
            _log.info("accounts can be read again")


def _load() -> "tuple[Callable[[GatewaySettings], Awaitable[tuple[Database, Store]]], tuple[type[Exception], ...]]":
    from stream_gateway.accounts.database import STORE_ERRORS  # noqa: PLC0415
    from stream_gateway.accounts.opening import open_store  # noqa: PLC0415

    return open_store, STORE_ERRORS
