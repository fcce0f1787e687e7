"""A real worker process and a relay that forgets: what no gateway has acknowledged comes again, as the same bytes."""

import asyncio
import contextlib
import json
import secrets
import time

import pytest
from gateway_hpc import lane
from worker.scripted_relay import ScriptedRelay, scripted_relay

from stream_core import tickets
from stream_core.envelope.keys import PublicKey, open_secret_of, verify_announcement
from stream_core.ids import new_id
from stream_core.testing import programs
from stream_core.testing.engine import scripted_engine
from stream_core.wire import payloads
from stream_core.wire.frames import Frame, FrameType
from stream_gateway.sealed_call import SealedCall

pytestmark = pytest.mark.process


@contextlib.asynccontextmanager
async def worker_on(relay: ScriptedRelay, engine_url: str):
    """A worker process on a scripted relay: its lease."""
    private_pem, _ = tickets.new_signing_key()
    nobody = programs.Program(process=None, log_path=None)
    url = f"ws://127.0.0.1:{relay.port}"
    parts = lane.Parts("", engine_url, nobody, url, lane.Lease(), private_pem)
    with contextlib.ExitStack() as stack:
        # In a thread: the relay that it connects to is served here.
        await asyncio.to_thread(stack.enter_context, lane.worker(parts))
        try:
            yield parts.lease
        finally:
            await asyncio.to_thread(stack.close)


async def call_to(relay: ScriptedRelay, lease: lane.Lease) -> SealedCall:
    """A gateway's request to the worker that announces itself there."""
    announced = await relay.next_frame(FrameType.ANNOUNCE)
    body = verify_announcement(announced.body, lease_id=lease.id, bootstrap_secret=lease.secret)
    said = payloads.load(body, payloads.Announcement)
    return SealedCall(
        lease_id=lease.id,
        worker_key=PublicKey(said.mlkem768, said.x25519).load(),
        open_secret=open_secret_of(lease.secret, lease_id=lease.id),
        request_id=new_id(),
        gateway_id=new_id(),
        secret=secrets.token_bytes(32),
    )


def opening(call: SealedCall, script: dict[str, object]) -> bytes:
    body = json.dumps({"model": "scripted", "stream": True, "messages": [], "script": script}).encode()
    now_ms = time.time_ns() // 1_000_000
    return b"".join(call.open_frames(body, path="/v1/chat/completions", opened_at_ms=now_ms, headers={}))


async def answer(relay: ScriptedRelay, call: SealedCall) -> list[Frame]:
    """The frames of the request, up to its END."""
    frames: list[Frame] = []
    async with asyncio.timeout(60):
        while not frames or frames[-1].type is not FrameType.END:
            frame = await relay.frames.get()
            if frame.request_id == call.request_id:
                frames.append(frame)
    return frames


async def test_unacknowledged_frames_come_again():
    """WELCOME said again, or a relay that was killed: every frame comes again as it was, until it is acknowledged."""
    with scripted_engine() as engine_url:
        async with scripted_relay() as relay, worker_on(relay, engine_url) as lease:
            call = await call_to(relay, lease)
            await relay.send(opening(call, {"tokens": 20, "interval_ms": 1}))
            first = await answer(relay, call)
            await relay.say(FrameType.WELCOME)
            assert await answer(relay, call) == first
            relay.kill()
            await relay.start()
            assert await answer(relay, call) == first

            events = [call.receive(frame) for frame in first]
            assert isinstance(events[-1], payloads.End)
            await relay.send(call.credit())
            other = await call_to(relay, lease)
            await relay.send(opening(other, {"tokens": 1}))
            whole = await answer(relay, other)  # the worker has taken the acknowledgement before this
            while not relay.frames.empty():
                relay.frames.get_nowait()
            await relay.say(FrameType.WELCOME)
            again = []
            async with asyncio.timeout(60):
                while not again or again[-1] != whole[-1]:
                    again.append(await relay.frames.get())
            assert [frame for frame in again if frame.request_id == other.request_id] == whole
            assert not any(frame.request_id == call.request_id for frame in again)


async def test_answer_in_progress_comes_again():
    """A relay that dies in mid-answer: after it is back, what it lost and what came since make one whole answer."""
    with scripted_engine() as engine_url:
        async with scripted_relay() as relay, worker_on(relay, engine_url) as lease:
            call = await call_to(relay, lease)
            await relay.send(opening(call, {"tokens": 200, "interval_ms": 2, "text": " {n}"}))
            await relay.next_frame(FrameType.HEAD)  # lost with the relay, as all before it
            relay.kill()
            await relay.start()
            text, ended = b"", False
            for frame in await answer(relay, call):
                match call.receive(frame):
                    case payloads.End():
                        ended = True
                    case (list() as chunks, _):
                        text += b"".join(chunks)
            assert ended
            assert [f'"content":" {number}"'.encode() in text for number in range(200)] == [True] * 200
            assert text.count(b'"content":" ') == 200
