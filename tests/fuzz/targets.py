"""The four that take frames from others, each with a live session, its visible state, and the frames seen so far."""

import secrets
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from stream_core import tickets
from stream_core.envelope.keys import WorkerKey, sign_announcement
from stream_core.envelope.session import Sealer, status_key, to_gateway_key, to_worker_key
from stream_core.errors import FrameError
from stream_core.settings import NatsSettings
from stream_core.wire import payloads, subjects
from stream_core.wire.frames import Frame, FrameType, encode, split
from stream_core.wire.payloads import End, Head
from stream_core.wire.receiver import MAX_REJECTED
from stream_core.wire.window import Window
from stream_gateway.channel import Channel
from stream_gateway.sealed_answer import SealedAnswer
from stream_gateway.sealed_call import SealedCall
from stream_hpc_dispatch.leases import Lease, Leases
from stream_relay.routes import Close, Phase, Publish, WorkerRoute, welcome
from stream_worker.desk import Abort, Desk, Dropped, Send, Start, Wake

LEASE, OTHER_LEASE, GATEWAY = b"l" * 16, b"m" * 16, b"g" * 16
OPEN_SECRET = b"o" * 32
KEY = WorkerKey()
PUBLIC = KEY.public.load()
NOW_MS = 1_763_650_000_000
UPLINK_FRAME = 8 * 1024 * 1024


def new_call(lease_id: bytes = LEASE, secret: bytes | None = None) -> SealedCall:
    """A gateway's side of a new request."""
    return SealedCall(
        lease_id=lease_id,
        worker_key=PUBLIC,
        open_secret=OPEN_SECRET,
        request_id=secrets.token_bytes(16),
        gateway_id=GATEWAY,
        secret=secret or secrets.token_bytes(32),
    )


def open_frames(call: SealedCall, body: bytes = b"{}") -> list[bytes]:
    return call.open_frames(body, path="/v1/chat/completions", opened_at_ms=NOW_MS, headers={})


class WorkerEnd:
    """A desk with one request that runs, one whose body is incomplete, and one that is over."""

    def __init__(self) -> None:
        self.desk = Desk(LEASE, self._open, max_requests=4, max_body=1 << 20)
        self.dropped = 0
        self.call, self.waiting, over = new_call(), new_call(), new_call()
        self.seen: list[bytes] = []
        (first,) = self._good(*open_frames(self.call))
        assert isinstance(first, Start)
        self.request = first.request
        self.request.sender.head(Head(200, "text/event-stream"))
        self._good(*open_frames(self.waiting, bytes(300_000))[:1], *open_frames(over))
        self._good(over.cancel(), self.call.credit(), self.call.resume(), self.call.credit(), self.waiting.credit())
        self.seen += [welcome("r", max_frame=1, max_message=1)[:-2] + b"!}"]
        others = [new_call(OTHER_LEASE), new_call()]
        self.foreign = [*open_frames(others[0]), others[0].credit(), others[1].cancel(), self._answer_frame()]

    def state(self) -> object:
        """Everything but counters."""
        return [
            (r.id, r.next_control, r.heard_ms, r.complete, r.size, list(r.parts), *_sender(r.sender))
            for r in self.desk.requests.values()
        ], len(self.desk._seen)

    def take(self, message: bytes) -> None:
        """As `Uplink.received` does, with what a gateway sends; a mutant is dropped, or brings what is kept again."""
        try:
            frames = split(message, UPLINK_FRAME)
        except FrameError:
            self.dropped += 1
            return
        for frame in frames:
            for action in self.desk.receive(frame, NOW_MS):
                if isinstance(action, Send):
                    kept = self.desk.requests[frame.request_id].sender._kept
                    assert frame.type is FrameType.OPEN
                    assert action.frames == list(kept)
                else:
                    assert isinstance(action, Dropped), (frame, action)
                self.dropped += 1

    def take_good(self) -> None:
        """The session goes on: the window still moves."""
        credit = self.call.credit()
        assert self._good(credit) == [Wake(self.request)]
        self.seen[-1:] = [credit]

    def end(self) -> None:
        """It ends as it should."""
        assert self._good(self.call.cancel()) == [Abort(self.request)]

    def _good(self, *frames: bytes) -> list[Any]:
        actions = []
        for frame in frames:
            self.seen.append(frame)
            actions += self.desk.receive(split(frame, UPLINK_FRAME)[0], NOW_MS)
        assert not any(isinstance(action, Dropped) for action in actions)
        return actions

    def _answer_frame(self) -> bytes:
        return self.request.sender._kept[0]

    @staticmethod
    def _open(frame: Frame) -> bytes:
        return KEY.open(frame.body, lease_id=LEASE, header=frame.header, open_secret=OPEN_SECRET)


def _sender(sender: Any) -> tuple[object, ...]:
    return sender.state, sender._sent, sender._limit, sender._next, sender.first_kept, sender.kept, sender._acknowledged


class GatewayEnd:
    """A channel with one answer under way, and the worker that seals it."""

    def __init__(self) -> None:
        self.channel = Channel(NatsSettings(), GATEWAY)
        self.foreign: list[bytes] = []
        self.rejected = 0
        self._begin()

    def _begin(self) -> None:
        secret = secrets.token_bytes(32)
        self.call = new_call(secret=secret)
        names = {"lease_id": LEASE, "request_id": self.call.request_id}
        self._names, self._secret = names, secret
        self._sealer = Sealer(to_gateway_key(secret, **names), request_id=self.call.request_id, return_address=GATEWAY)
        window = Window(self.call.window, self.call.window, self.channel.budget)
        self.answer = SealedAnswer(self.channel, self.call, 60, window)
        self.channel._answers[self.call.request_id] = self.answer
        self.channel._running[LEASE] = 1
        self.seen: list[bytes] = []
        self.text: list[bytes] = []
        self.end_bytes = 0

    async def start(self) -> None:
        """HEAD and some text."""
        await self._good(FrameType.DATA, b"")
        await self._good(FrameType.HEAD, payloads.dump(Head(200, "text/event-stream")))
        await self.take_good()
        await self.take_good()
        other = Sealer(secrets.token_bytes(32), request_id=self.call.request_id, return_address=GATEWAY)
        back = Sealer(
            to_worker_key(self._secret, **self._names), request_id=self.call.request_id, return_address=GATEWAY
        )
        # The third and fourth: a message of the other direction, under the number that is expected next.
        self.foreign += [
            other.seal(FrameType.DATA, b""),
            other.seal(FrameType.END, payloads.dump(End(0))),
            *[back.seal(FrameType.DATA, payloads.dump_chunks([b"x"])) for _ in range(6)][3:],
        ]

    def state(self) -> object:
        """Everything but counters."""
        answer, receiver = self.answer, self.call.receiver
        return (
            *(receiver.next_sequence, receiver.state, receiver._received, receiver._consumed, receiver._granted),
            *(answer.head, answer.content_type, answer._ended, answer._error, answer._closed, list(answer._chunks)),
            *(len(self.channel._answers), dict(self.channel._running)),
        )

    @property
    def spent(self) -> bool:
        """One more forgery of the next frame, and the request is given up."""
        return self.call.receiver.rejected > MAX_REJECTED - 6

    async def take(self, message: bytes) -> None:
        """As NATS brings it."""
        await self.channel._receive(SimpleNamespace(data=message))

    async def take_good(self) -> None:
        """The text goes on, and what comes is what was sent."""
        self.text.append(secrets.token_bytes(20))
        self.end_bytes += 20
        await self._good(FrameType.DATA, payloads.dump_chunks([self.text[-1]]))
        assert self.answer._chunks == self.text

    async def renew(self) -> None:
        """End this answer as it should, and begin the next."""
        await self._good(FrameType.END, payloads.dump(End(self.end_bytes)))
        assert self.answer._ended
        assert self.channel._answers == {}
        self.rejected += self.call.receiver.rejected
        self.channel._outbox.clear()
        self._begin()
        await self.start()
        del self.foreign[:-8]

    async def _good(self, type_: FrameType, plaintext: bytes) -> None:
        frame = self._sealer.seal(type_, plaintext)
        self.seen.append(frame)
        before = self.call.receiver.next_sequence
        await self.take(frame)
        assert self.call.receiver.next_sequence == before + 1


class RelayEnd:
    """A socket's route, with real tickets."""

    def __init__(self) -> None:
        self._private, self._public = tickets.new_signing_key()
        self._hello = self._say_hello(LEASE)
        data = [
            encode(t, bytes(30), request_id=b"r" * 16, return_address=GATEWAY, sequence=n) for n, t in enumerate(_UP)
        ]
        self.seen = [self._hello, *data, encode(FrameType.STATUS, bytes(40), request_id=LEASE)]
        self.foreign = [self._say_hello(OTHER_LEASE), encode(FrameType.ANNOUNCE, bytes(40), request_id=OTHER_LEASE)]
        self.closed: dict[str, int] = {}
        self.passed = 0
        self.admit()

    def admit(self) -> None:
        """A fresh socket says HELLO."""
        self.route = self.fresh()
        self.route.receive(self._hello, now=time.time())
        assert self.route.phase is Phase.SERVING

    def fresh(self) -> WorkerRoute:
        return WorkerRoute(self._verify, max_frame=512 * 1024, max_frames_per_s=1_000_000_000)

    def take(self, message: bytes) -> None:
        """A mutant closes the socket, or goes on to the gateway that it names; never elsewhere."""
        actions = self.route.receive(message, now=time.time())
        if self.route.phase is Phase.CLOSED:
            (close,) = actions
            assert isinstance(close, Close)
            assert close.reason
            assert self.route.receive(self.seen[1], now=time.time()) == []
            self.closed[close.kind] = self.closed.get(close.kind, 0) + 1
            self.admit()
            return
        named = [frame.return_address for frame in split(message)]
        for action in actions:
            assert isinstance(action, Publish)
            assert action.subject in {subjects.lease_out(LEASE), *map(subjects.gateway_in, named)}
            assert split(action.payload)
            self.passed += 1
        assert self.route.lease_id == LEASE

    def take_good(self) -> None:
        """An honest frame goes on as it is."""
        (action,) = self.route.receive(self.seen[1], now=time.time())
        assert action == Publish(subjects.gateway_in(GATEWAY), self.seen[1])

    def _say_hello(self, lease_id: bytes) -> bytes:
        ticket = tickets.issue(self._private, lease_id=lease_id, now=time.time(), lifetime_s=600)
        return encode(FrameType.HELLO, payloads.dump(payloads.Hello(lease=lease_id.hex(), ticket=ticket)))

    def _verify(self, ticket: str, now: float) -> bytes:
        return tickets.verify(self._public, ticket, now=now)


_UP = (FrameType.DATA, FrameType.HEAD, FrameType.DATA, FrameType.END)


@dataclass
class DispatchEnd:
    """Leases: one that has announced and lives, one that has not."""

    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.secret = secrets.token_bytes(32)
        self.leases = Leases(self._note)
        self.lease = Lease(LEASE, 1, self.secret)
        self.leases.grant(self.lease)
        self.leases.grant(Lease(OTHER_LEASE, 2, secrets.token_bytes(32)))
        self._sealer = Sealer(status_key(self.secret, lease_id=LEASE, instance=KEY.public.x25519), request_id=LEASE)
        offer = payloads.ModelOffer(id="m", engine_model="m", context_window=10)
        said = payloads.Announcement(KEY.public.mlkem768, KEY.public.x25519, [offer], max_requests=4)
        body = sign_announcement(payloads.dump(said), lease_id=LEASE, bootstrap_secret=self.secret)
        self.seen = [encode(FrameType.ANNOUNCE, body, request_id=LEASE)]
        assert self.leases.hear(subjects.lease_out(LEASE), self.seen[0])
        for _ in range(3):
            self.take_good()
        alien = Sealer(secrets.token_bytes(32), request_id=LEASE)
        self.foreign = [alien.seal(FrameType.STATUS, b"{}") for _ in range(9)]
        self.foreign += [sign_announcement_for_other(body), encode(FrameType.DATA, b"", request_id=LEASE)]

    def state(self) -> object:
        """Everything but counters."""
        lease = self.lease
        return lease.announcement, lease._last_sequence, set(lease._given_up), set(self.leases._by_id)

    def take(self, message: bytes) -> None:
        """A mutant proves nothing."""
        assert self.leases.hear(subjects.lease_out(LEASE), message) == []

    def take_good(self) -> None:
        """A heartbeat is heard."""
        self.seen[1:2] = []
        self.seen.append(self._sealer.seal(FrameType.STATUS, payloads.dump(payloads.Status(running=1))))
        assert len(self.leases.hear(subjects.lease_out(LEASE), self.seen[-1])) == 1

    def _note(self, kind: str, _detail: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1


def sign_announcement_for_other(body: bytes) -> bytes:
    """An announcement of this lease, in the name of another."""
    return encode(FrameType.ANNOUNCE, body, request_id=OTHER_LEASE)
