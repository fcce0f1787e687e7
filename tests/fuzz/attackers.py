"""Hostile parties for tests with real processes: a broker's neighbour, and a worker that says what it likes."""

import asyncio
import time
from collections import Counter, defaultdict

import nats
from fuzz.mutants import Mutator
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from stream_core import tickets
from stream_core.errors import FrameError
from stream_core.ids import new_id, to_hex
from stream_core.wire import payloads, subjects
from stream_core.wire.frames import Frame, FrameType, encode, split

_KEPT = 64
_FORGERIES = 10
"""Of the frame that a running answer expects next: below the number at which it is given up."""
_MAX = 8 * 1024 * 1024


class Eavesdropper:
    """Hears all subjects of the data plane and can publish on each: whoever has the broker.

    Attributes:
        heard: the last frames by subject.
        thrown: messages that were published.
        faults: by subject, how many of their frames mean nothing there, so that somebody must count them.
    """

    def __init__(self, bus: Client) -> None:
        self._bus = bus
        self._ear: Subscription | None = None
        self.heard: dict[str, list[bytes]] = defaultdict(list)
        self._newest: dict[bytes, int] = {}
        self._forged: dict[bytes, int] = defaultdict(int)
        self._own: set[bytes] = set()
        self.thrown = 0
        self.faults: Counter[str] = Counter()

    @classmethod
    async def listen(cls, url: str) -> "Eavesdropper":
        """Connect and hear."""
        one = cls(await nats.connect(url))
        one._ear = await one._bus.subscribe("stream.v1.>", cb=one._hear)
        await one._bus.flush()
        return one

    async def heard_enough(self) -> None:
        """Hear no more: what is thrown from now on is made of what was said until now."""
        if self._ear is not None:
            await self._ear.unsubscribe()

    async def close(self) -> None:
        await self._bus.close()

    def of(self, kind: str) -> list[str]:
        """Subjects that were heard: "in", "out" of leases, or "gw"."""
        return [subject for subject in self.heard if subject.endswith(f".{kind}") or f".{kind}." in subject]

    async def throw(self, subject: str, count: int, seed: int) -> None:
        """Publish so many mutants of what was heard there, while the rest goes on."""
        others = [frame for name, frames in self.heard.items() if name != subject for frame in frames[:4]]
        for batch in range(count // 50):
            mutator = Mutator(seed + batch, list(self.heard[subject]), others)
            for _, mutant in mutator.draw(50):
                if self._allowed(mutant):
                    self._own.add(mutant)
                    await self._bus.publish(subject, mutant)
                    self.thrown += 1
                    self.faults[subject] += self._faults_in(subject, mutant)
            await self._bus.flush()

    def _allowed(self, mutant: bytes) -> bool:
        request, sequence = mutant[8:24], int.from_bytes(mutant[40:48], "big")
        if len(mutant) < 48 or request not in self._newest or sequence <= self._newest[request]:
            return True
        self._forged[request] += 1
        return self._forged[request] <= _FORGERIES

    def _faults_in(self, subject: str, message: bytes) -> int:
        """A message that is no row of frames is one; of frames, each is one but an announcement as it was before."""
        try:
            frames = split(message)
        except FrameError:
            return 1
        known = {_announced(frame) for (frame,) in map(split, self.heard[subject])} - {None}
        return sum(_announced(frame) not in known for frame in frames)

    async def _hear(self, message: Msg) -> None:
        if message.data in self._own:
            return
        for frame in split(message.data, _MAX):
            if frame.type in {FrameType.HEAD, FrameType.DATA}:
                self._newest[frame.request_id] = max(frame.sequence, self._newest.get(frame.request_id, -1))
            kept = self.heard[message.subject]
            kept.append(frame.wire)
            del kept[1:-_KEPT]


def _announced(frame: Frame) -> tuple[bytes, bytes] | None:
    return (frame.request_id, frame.body) if frame.type is FrameType.ANNOUNCE else None


class FakeWorker:
    """Somebody with a ticket, or something like it.

    Args:
        url: of the relay.
        private_pem: signs its ticket.
        lease_id: that it says it has.
    """

    def __init__(self, url: str, private_pem: str, lease_id: bytes | None = None) -> None:
        self._url = url + "/v1/worker"
        self._private_pem = private_pem
        self.lease_id = lease_id or new_id()

    def ticket(self, *, lifetime_s: float = 600, age_s: float = 0) -> str:
        """For its lease."""
        now = time.time() - age_s
        return tickets.issue(self._private_pem, lease_id=self.lease_id, now=now, lifetime_s=lifetime_s)

    def hello(self, ticket: str | None = None) -> bytes:
        body = payloads.Hello(lease=to_hex(self.lease_id), ticket=self.ticket() if ticket is None else ticket)
        return encode(FrameType.HELLO, payloads.dump(body))

    def connect(self, **options: object) -> "connect":
        """A socket without HELLO."""
        return connect(self._url, max_size=_MAX, compression=None, proxy=None, **options)

    async def admitted(self, **options: object) -> ClientConnection:
        """A socket that was welcomed."""
        socket = await self.connect(**options)
        await socket.send(self.hello())
        welcome = split(await socket.recv())[0]
        assert welcome.type is FrameType.WELCOME
        return socket

    async def say(self, *messages: bytes) -> ConnectionClosed:
        """Say it without being asked, and wait until the relay has enough."""
        async with self.connect() as socket:
            return await until_closed(socket, *messages)


async def until_closed(socket: ClientConnection, *messages: bytes) -> ConnectionClosed:
    """Send, then wait for the relay to close the socket; its close code and reason are in what is returned."""
    async with asyncio.timeout(60):
        try:
            for message in messages:
                await socket.send(message)
            while True:
                await socket.recv()
        except ConnectionClosed as closed:
            return closed


def upstream(gateway_id: bytes, count: int = 1, size: int = 30) -> bytes:
    """A message of well-formed frames for a gateway."""
    return encode(FrameType.DATA, bytes(size), request_id=bytes(16), return_address=gateway_id) * count


def in_subject(lease_id: bytes) -> str:
    return subjects.lease_in(lease_id)
