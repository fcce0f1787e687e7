"""A relay that can't be trusted: whatever it does to frames is noticed, and no reader is ever told a wrong text."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

import nats
import pytest
from gateway_hpc import lane
from gateway_hpc.tampering import Tamper, TamperingRelay, honest, tampering_relay

from stream_core.envelope.keys import WorkerKey, verify_announcement
from stream_core.errors import RemoteError, SealError
from stream_core.wire import payloads, subjects
from stream_core.wire.frames import Frame, FrameType, encode, split
from stream_gateway.channel import Channel
from stream_gateway.pool import PooledWorker
from stream_gateway.sealed_answer import Patience, SealedAnswer

pytestmark = pytest.mark.process

SCRIPT: dict[str, object] = {"tokens": 60, "per_write": 1, "interval_ms": 1}
STREAM = frozenset({FrameType.DATA, FrameType.END})


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Iterator[lane.Parts]:
    """Broker, real relay and engine, started once for this file."""
    with lane.parts(tmp_path_factory.mktemp("untrusted")) as running:
        yield running


@contextlib.asynccontextmanager
async def tampered(parts: lane.Parts) -> AsyncIterator[tuple[TamperingRelay, Channel, PooledWorker]]:
    """A worker whose relay is in other hands; the gateway has its true key."""
    running = parts.for_lease(lane.Lease())
    async with tampering_relay(parts.relay_url) as relay:
        with contextlib.ExitStack() as stack:
            await asyncio.to_thread(stack.enter_context, lane.worker(running, relay_url=relay.url))
            target = await lane.announced(running)
            patience = Patience(tick=0.05, resume_after=0.3, lost_after=4)
            async with lane.channel(parts.nats_url, patience) as gateway:
                yield relay, gateway, target


def once(change: Callable[[Frame], list[bytes]], *, nth: int = 5) -> Tamper:
    """Do it to the nth frame of a stream, and be honest otherwise."""
    count = 0

    def tamper(frame: Frame) -> list[bytes]:
        nonlocal count
        count += frame.type in STREAM
        return change(frame) if frame.type in STREAM and count == nth else [frame.wire]

    return tamper


def flip(frame: Frame, place: int = 60) -> list[bytes]:
    wire = bytearray(frame.wire)
    wire[min(place, len(wire) - 1)] ^= 1
    return [bytes(wire)]


def shorten(frame: Frame) -> list[bytes]:
    """Cut the ciphertext and say so in the header: a well-formed frame with less in it."""
    return [
        encode(
            frame.type,
            frame.body[:-1],
            request_id=frame.request_id,
            return_address=frame.return_address,
            sequence=frame.sequence,
        )
    ]


def drop_end(frame: Frame) -> list[bytes]:
    return [] if frame.type is FrameType.END else [frame.wire]


def forge_end(frame: Frame) -> list[bytes]:
    """Claim that the answer ends here."""
    body = payloads.dump(payloads.End(bytes=0)) + bytes(16)
    fake = encode(
        FrameType.END,
        body,
        request_id=frame.request_id,
        return_address=frame.return_address,
        sequence=frame.sequence,
    )
    return [fake]


def noticed(answer: SealedAnswer) -> int:
    receiver = answer.call.receiver
    return receiver.duplicates + receiver.gaps + receiver.rejected


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: [],
        lambda frame: [frame.wire, frame.wire],
        flip,
        partial(flip, place=2),
        partial(flip, place=47),
        shorten,
        forge_end,
    ],
    ids=["dropped", "replayed", "body changed", "flags changed", "sequence changed", "truncated", "END forged"],
)
async def test_one_attack_is_noticed_and_healed(parts, change):
    """One frame dropped, doubled, changed, cut or forged is counted, and the reader still gets the engine's bytes."""
    async with tampered(parts) as (relay, gateway, target):
        expected = await lane.read(await lane.ask(gateway, target, SCRIPT))
        relay.tamper = once(change)
        answer = await lane.ask(gateway, target, SCRIPT)
        assert await lane.read(answer) == expected
        assert noticed(answer) + sum(gateway.faults.counts.values()) > 0


async def test_reordered_frames(parts):
    """Frames that overtake each other are noticed by their numbers, and the text comes in order."""
    held: list[bytes] = []

    def swap(frame: Frame) -> list[bytes]:
        if frame.type is not FrameType.DATA:
            return [*_take(held), frame.wire]
        if held:
            return [frame.wire, *_take(held)]
        held.append(frame.wire)
        return []

    async with tampered(parts) as (relay, gateway, target):
        expected = await lane.read(await lane.ask(gateway, target, SCRIPT))
        relay.tamper = once_after_head(swap)
        answer = await lane.ask(gateway, target, SCRIPT)
        assert await lane.read(answer) == expected
        assert answer.call.receiver.gaps > 0


def once_after_head(change: Tamper, *, frames: int = 20) -> Tamper:
    """Be bad for so many frames of a running stream."""
    left = frames

    def tamper(frame: Frame) -> list[bytes]:
        nonlocal left
        if frame.type in STREAM and left:
            left -= 1
            return change(frame)
        return [frame.wire]

    return tamper


def _take(held: list[bytes]) -> list[bytes]:
    taken = list(held)
    held.clear()
    return taken


async def test_spliced_streams(parts):
    """A frame of one request put into another's place opens nowhere: both readers get their own text."""
    taken: list[Frame] = []
    forgeries = iter(range(3))

    def splice(frame: Frame) -> list[bytes]:
        if frame.type is not FrameType.DATA or len(frame.body) < 100:
            return [frame.wire]
        taken.append(frame)
        other = next((old for old in taken if old.request_id != frame.request_id), None)
        if other is None or len(taken) % 7 or next(forgeries, None) is None:
            return [frame.wire]
        forged = encode(
            frame.type,
            other.body,
            request_id=frame.request_id,
            return_address=frame.return_address,
            sequence=frame.sequence,
        )
        return [forged]

    async with tampered(parts) as (relay, gateway, target):
        relay.tamper = splice
        answers = [await lane.ask(gateway, target, {**SCRIPT, "text": text}) for text in ("mine", "thine")]
        texts = await asyncio.gather(*map(lane.read, answers))
        relay.tamper = honest
        assert [(text.count(b'"mine"'), text.count(b'"thine"')) for text in texts] == [(60, 0), (0, 60)]
        assert sum(answer.call.receiver.rejected for answer in answers) > 0


@pytest.mark.parametrize(
    ("attack", "complaint"),
    [(flip, "did not open"), (drop_end, "no sign of the worker|stream"), (forge_end, "did not open")],
    ids=["every frame changed", "END always dropped", "END always forged"],
)
async def test_an_attack_that_goes_on_is_an_error(parts, attack, complaint):
    """Where the relay does not stop, the answer ends as an error, never as a complete text."""

    def always(frame: Frame) -> list[bytes]:
        return attack(frame) if frame.type in STREAM else [frame.wire]

    async with tampered(parts) as (relay, gateway, target):
        relay.tamper = always
        with pytest.raises(RemoteError, match=complaint):
            answer = await lane.ask(gateway, target, SCRIPT)
            await lane.read(answer)


async def test_swapped_key_is_noticed(parts):
    """A relay that announces its own key in the worker's name is refused: it has no bootstrap secret."""
    running, own = parts.for_lease(lane.Lease()), WorkerKey()

    def swap(frame: Frame) -> list[bytes]:
        if frame.type is not FrameType.ANNOUNCE:
            return [frame.wire]
        said = payloads.load(frame.body[32:], payloads.Announcement)
        forged = payloads.Announcement(own.public.mlkem768, own.public.x25519, said.models, said.max_requests)
        return [encode(FrameType.ANNOUNCE, frame.body[:32] + payloads.dump(forged), request_id=frame.request_id)]

    async with tampering_relay(parts.relay_url) as relay:
        relay.tamper = swap
        client = await nats.connect(parts.nats_url)
        subscription = await client.subscribe(subjects.lease_out(running.lease.id))
        await client.flush()
        with contextlib.ExitStack() as stack:
            await asyncio.to_thread(stack.enter_context, lane.worker(running, relay_url=relay.url))
            frame = None
            while frame is None or frame.type is not FrameType.ANNOUNCE:
                frame = split((await subscription.next_msg(timeout=20)).data)[0]
            with pytest.raises(SealError, match="announcement does not verify"):
                verify_announcement(frame.body, lease_id=running.lease.id, bootstrap_secret=running.lease.secret)
        await client.close()
