"""Drives `election` over a key of the leases' bucket, and tells the others where the leader is reached."""

import asyncio
import time
from typing import Final

import msgspec

from stream_core.errors import RemoteError
from stream_core.ids import new_id, to_hex
from stream_hpc_dispatch import election
from stream_hpc_dispatch.bucket import FAULTS, Bucket, ConflictError
from stream_hpc_dispatch.election import Election, Look, Role, Write
from stream_hpc_dispatch.leases import Note

KEY: Final = "leader"
"""In the leases' bucket, where no lease has such a name."""
_BEATS: Final = 5
"""Writes of a leader within its lease."""
_LOOK_S: Final = 0.5
"""Followers look more often where the lease is long, for a leader that hands over."""
_TTL_LEASES: Final = 20
"""After so many leases without a word the broker forgets the key."""


class DeposedError(RemoteError):
    """Another replica leads: this one must not touch anything any more."""

    code = "deposed"


class Claim(msgspec.Struct, frozen=True):
    """What stands under the key."""

    holder: str  # empty: the last leader has handed over
    address: str  # of its gRPC, for the other replicas


def clock() -> float:
    """Seconds that also go on while the machine sleeps, where the system has such a clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Leadership:
    """One replica's part in the election.

    Args:
        bucket: of the leases.
        address: where the other replicas reach this one.
        lease_s: seconds for which a confirmed write lets it act.
        note: counts a fault.
    """

    def __init__(self, bucket: Bucket, address: str, lease_s: float, note: Note) -> None:
        self._bucket = bucket
        self._claim = Claim(to_hex(new_id()), address)
        self._election = Election(self._claim.holder, lease_s)
        self._lease_s = lease_s
        self._note = note
        self._news = asyncio.Event()
        self.leader_address = ""
        """Of another replica that leads, as it wrote it; empty: none is known."""

    @property
    def acts(self) -> bool:
        """Whether this replica may act at this very moment."""
        return election.role(self._election, clock()) is Role.LEADING

    @property
    def deposed(self) -> bool:
        """Whether another replica leads since."""
        return self._election.deposed

    async def acting(self) -> None:
        """Wait until this replica may act; raises `DeposedError` when that can't be any more."""
        while not self.acts:
            if self._election.deposed:
                raise DeposedError("another replica leads")
            news = self._news
            await news.wait()

    async def run(self) -> None:
        """Take part until cancelled.

        Raises:
            DeposedError: it led, and another one does.
        """
        while True:
            try:
                async with asyncio.timeout(self._lease_s / 2):
                    await self._move()
            except (*FAULTS, TimeoutError) as error:
                self._note("election_unheard", f"{type(error).__name__}: {error}")
            self._news.set()
            self._news = asyncio.Event()
            if self._election.deposed:
                raise DeposedError("another replica leads")
            beat_s = self._lease_s / _BEATS
            await asyncio.sleep(beat_s if self._election.leads else min(beat_s, _LOOK_S))

    async def verify(self) -> None:
        """Read who leads; raises `DeposedError` when it is another replica. For who finds a foreign revision."""
        await self._look()
        if self._election.deposed:
            raise DeposedError("another replica leads")

    async def hand_over(self) -> None:
        """Free the key, when nothing of this replica acts any more, so that another one leads at once."""
        if not self._election.leads or self._election.deposed:
            return
        try:
            async with asyncio.timeout(self._lease_s / 2):
                await self._put(Claim("", ""))
        except (*FAULTS, ConflictError, TimeoutError) as error:
            self._note("not_handed_over", f"{type(error).__name__}: {error}")

    async def _move(self) -> None:
        match election.next_move(self._election, clock()):
            case Look():
                await self._look()
            case Write():
                sent_at = clock()
                try:
                    revision = await self._put(self._claim)
                except ConflictError:
                    await self._look()
                else:
                    self._election = election.wrote(self._election, revision, sent_at)

    async def _put(self, claim: Claim) -> int:
        return await self._bucket.write(
            KEY, msgspec.json.encode(claim), revision=self._election.revision, ttl_s=_TTL_LEASES * self._lease_s
        )

    async def _look(self) -> None:
        entry = await self._bucket.read(KEY)
        claim = Claim("", "")
        if entry is not None and entry.value:
            try:
                claim = msgspec.json.decode(entry.value, type=Claim)
            except msgspec.DecodeError as error:
                self._note("malformed_claim", str(error))
        self._election = election.saw(self._election, entry.revision if entry else 0, claim.holder, clock())
        self.leader_address = "" if claim.holder == self._claim.holder else claim.address
