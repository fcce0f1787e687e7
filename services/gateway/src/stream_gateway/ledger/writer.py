"""The ledger as a gateway writes it: an entry for each request, on its way to the broker while the request goes on.

Before the first byte of an answer leaves, the broker has an *intent*: the entry that stands for the request should this
gateway die, with what was reserved for it. It takes the way to the engine and the wait for its first token to get
there; the first byte waits for it, also at a broker that is slow. When the request has ended, its entry takes the
intent's place. So of a request of which anything was answered the ledger has an entry, whenever the gateway is killed;
only while the broker itself is away nothing is written ahead, which is counted as `ledger_away`.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
from msgspec.structs import replace

from stream_core.audit.entries import Chain, Fields
from stream_core.telemetry import Once
from stream_gateway.batches.faults import StoreAway

_log = logging.getLogger(__name__)
_FIRST_S: Final = 5.0
"""After its start a gateway's requests wait so long for the ledger to open."""
_PATIENCE_S: Final = 15.0
"""How long the first byte of an answer waits for a broker that is there to have its intent."""
_LOOK_S: Final = 0.5
"""How often it is seen meanwhile whether the broker is there."""
_RETRY_S: Final = 0.5
_AT_ONCE: Final = 128
_MOST_WAITING: Final = 100_000
_LAST_S: Final = 3.0


class Slip(msgspec.Struct, frozen=True, omit_defaults=True):
    """What lies at the broker: an entry's bytes, or an intent."""

    entry: str = ""
    intent: Fields | None = None


class Road(Protocol):
    """The way to the broker; see `road.Road`."""

    @property
    def connected(self) -> bool:
        """Whether it is there."""
        ...

    async def open_chain(self, chain: Chain, at: float) -> None:
        """Link a chain to the one that was opened before it, and write both openings."""
        ...

    async def send(self, chain: str, name: str, slip: Slip) -> None:
        """Write a slip in the place of an older one of that name."""
        ...


@dataclass(frozen=True, slots=True)
class _Waiting:
    name: str
    slip: Slip
    sent: "asyncio.Future[None] | None" = None
    """Told when it is known to be there."""


class Ledger:
    """See the module.

    Args:
        name: of the chain: this gateway's id.
        clock: gives unix seconds.
        kept: whether there is a broker that keeps it.
        may_hold: whether it may hold what was said in a request of a class; without it, of none.
    """

    def __init__(
        self,
        name: str,
        clock: Callable[[], float],
        *,
        kept: bool,
        may_hold: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.chain = Chain(name)
        self._may_hold = may_hold
        self._clock = clock
        self._kept = kept
        self._road: Road | None = None
        self._begun = clock()
        self._open = asyncio.Event()
        self._intents: dict[bytes, asyncio.Task[None]] = {}
        self._outbox: deque[_Waiting] = deque()
        self._sending: list[_Waiting] = []
        """Numbered, and not known to be at the broker: kept here, so that whoever follows after a fault sends them."""
        self._more = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._faults = Once(_log)

    async def opened(self, road: Road) -> None:
        """Use this way from now on.

        Raises:
            StoreAway: not yet.
        """
        if self._road is None:
            await road.open_chain(self.chain, self._clock())
        self._road = road
        self._open.set()
        self._more.set()

    def intend(self, request_id: bytes, fields: Fields) -> None:
        """Begin to write down a request that is about to be sent to an engine; `intended` waits for it."""
        opening = self._kept and self._road is None and self._clock() - self._begun < _FIRST_S
        if not opening and (self._road is None or not self._road.connected):
            if self._kept:
                self._faults.count("ledger_away")
            return
        self._stop(request_id)
        self._intents[request_id] = asyncio.create_task(self._send_intent(fields))

    async def intended(self, request_id: bytes) -> None:
        """Wait until the intent is there; not when there is none, or no broker."""
        if (task := self._intents.get(request_id)) is None:
            return
        for _ in range(int(_PATIENCE_S / _LOOK_S)):
            await asyncio.wait([task], timeout=_LOOK_S)
            if task.done():
                return
            if self._road is not None and not self._road.connected:
                break
        self._faults.note("ledger_away", "an answer begins of which the broker does not know")

    def note(self, request_id: bytes, fields: Fields) -> None:
        """Write the entry of a request that has ended; what was said goes along where its class allows that."""
        self._stop(request_id)
        if not self._kept:
            return
        if (fields.prompt is not None or fields.answer is not None) and not self._may_hold(fields.privacy):
            fields = replace(fields, prompt=None, answer=None)
        if len(self._outbox) >= _MOST_WAITING:
            self._faults.note("ledger_full", f"{_MOST_WAITING:,} entries wait for the broker: one is not written")
            return
        self._put(_Waiting(fields.id, Slip(intent=fields)))

    def withdraw(self, request_id: bytes, name: str) -> None:
        """Take an intent back: the request was not answered, and comes again by itself.

        Args:
            request_id: its.
            name: the same in hex.
        """
        if self._stop(request_id):
            self._put(_Waiting(name, Slip()))

    async def give_up(self, fields: Fields) -> None:
        """Write the entry of another gateway's request, and wait until it is there."""
        sent = asyncio.get_running_loop().create_future()
        self._put(_Waiting(fields.id, Slip(intent=fields), sent))
        await sent

    async def follow(self) -> None:
        """Send what has been noted, until cancelled."""
        while True:
            await self._more.wait()
            if self._road is None:
                self._more.clear()
                continue
            while self._outbox and len(self._sending) < _AT_ONCE:
                self._sending.append(self._numbered(self._outbox.popleft()))
            try:
                self._sending = await self._send(self._sending, self._road)
            except Exception:  # noqa: BLE001  (a bug must neither end the ledger nor be silent)
                _log.exception("the ledger stumbled")
            if self._sending:
                await asyncio.sleep(_RETRY_S)
            elif not self._outbox:
                self._empty.set()
                self._more.clear()

    async def close(self) -> None:
        """Send what is left, and the chain's end; not for long."""
        if self._road is None:
            return
        with contextlib.suppress(TimeoutError, StoreAway):
            async with asyncio.timeout(_LAST_S):
                await self._empty.wait()
                end = Slip(self.chain.add("closed", self._clock()).decode())
                await self._road.send(self.chain.name, "closed", end)

    def _stop(self, request_id: bytes) -> bool:
        """Write an intent no more, which is either known to be there or overtaken: what follows it is written after it.

        Returns:
            Whether there was one.
        """
        task = self._intents.pop(request_id, None)
        if task is not None:
            task.cancel()
        return task is not None

    def _put(self, waiting: _Waiting) -> None:
        self._outbox.append(waiting)
        self._empty.clear()
        self._more.set()

    def _numbered(self, waiting: _Waiting) -> _Waiting:
        """Make an entry of what was noted: numbers are given when the chain is open, after its opening."""
        if waiting.slip.intent is None:
            return waiting
        data = self.chain.add("request", self._clock(), waiting.slip.intent)
        return _Waiting(waiting.name, Slip(data.decode()), waiting.sent)

    async def _send(self, waiting: list[_Waiting], road: Road) -> list[_Waiting]:
        """Send all of them.

        Returns:
            Those of which it is not known that they are there.
        """
        sends = (road.send(self.chain.name, each.name, each.slip) for each in waiting)
        answers = await asyncio.gather(*sends, return_exceptions=True)
        left = []
        for each, answer in zip(waiting, answers, strict=True):
            if isinstance(answer, StoreAway):
                left.append(each)
            elif isinstance(answer, BaseException):
                raise answer
            elif each.sent is not None and not each.sent.done():
                each.sent.set_result(None)
        if left:
            self._faults.note("ledger_away", f"{len(left) + len(self._outbox):,} entries wait for the broker")
        return left

    async def _send_intent(self, fields: Fields) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_S):
                await self._open.wait()  # a gateway answers a moment before its ledger is open
        if self._road is None:
            self._faults.count("ledger_away")
            return
        while True:
            try:
                await self._road.send(self.chain.name, fields.id, Slip(intent=fields))
            except StoreAway as error:
                self._faults.note("ledger_away", error.message)
                if not self._road.connected:
                    return
                await asyncio.sleep(_RETRY_S)
            else:
                return
