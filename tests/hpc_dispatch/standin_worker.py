"""A stand-in for the worker and the relay: reads its job, then announces and sends STATUS straight to the broker.

    python standin_worker.py NATS_URL FOLDER

It leaves `FOLDER/<lease>.job` (the job as it came) and does what `FOLDER/mode` says: "ready" (default), "child" (as
ready, with a child that ignores SIGTERM), "crash" (ends with 3) or "silent" (never speaks). Commands on the NATS
subject `test.<lease>` are confirmed: "drain", "unready", "ready", "rekey".
"""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from stream_core.envelope.keys import WorkerKey, sign_announcement
from stream_core.envelope.session import Sealer, status_key
from stream_core.ids import from_hex
from stream_core.wire import frames, subjects
from stream_core.wire.frames import FrameType
from stream_core.wire.job import PilotJob
from stream_core.wire.payloads import Announcement, Status, dump

PR_SET_PDEATHSIG = 1
HEARTBEAT_S = 0.1


class Worker:
    """What a worker tells dispatch, and nothing else of a worker."""

    def __init__(self, job: PilotJob) -> None:
        self.job = job
        self.lease = from_hex(job.lease)
        self.status = Status(running=0)
        self.rekey()

    def rekey(self) -> None:
        """Become another process under the same lease."""
        self.key = WorkerKey().public
        secret = self.job.bootstrap_secret
        key = status_key(secret, lease_id=self.lease, instance=self.key.x25519)
        self.sealer = Sealer(key, request_id=self.lease)

    def announcement(self) -> bytes:
        """The ANNOUNCE frame."""
        announcement = Announcement(
            self.key.mlkem768, self.key.x25519, self.job.models, self.job.max_requests, "stand-in"
        )
        body = sign_announcement(dump(announcement), lease_id=self.lease, bootstrap_secret=self.job.bootstrap_secret)
        return frames.encode(FrameType.ANNOUNCE, body, request_id=self.lease)

    def heartbeat(self) -> bytes:
        """The next STATUS frame."""
        return self.sealer.seal(FrameType.STATUS, dump(self.status))

    def obey(self, command: str) -> None:
        """Take a command of the test."""
        match command:
            case "drain":
                self.status = Status(running=1, draining=True)
            case "unready":
                self.status = Status(running=0, engine_ready=False, note="loading the model")
            case "ready":
                self.status = Status(running=0)
            case "rekey":
                self.rekey()


def stubborn_child() -> "subprocess.Popen[bytes]":
    """A process that does not end on SIGTERM."""
    return subprocess.Popen(["/bin/sh", "-c", "trap '' TERM; sleep 600"])


async def work(url: str, job: PilotJob) -> None:
    """Announce and send heartbeats until SIGTERM."""
    sys.modules["aiohttp"] = None  # type: ignore[assignment]  # the client would load it, for nothing but 0.2 s
    import nats  # noqa: PLC0415  (after the line above)

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    worker = Worker(job)
    client = await nats.connect(url, reconnect_time_wait=0.1)

    async def command(message: Any) -> None:
        worker.obey(message.data.decode())
        await client.publish(subjects.lease_out(worker.lease), worker.announcement() + worker.heartbeat())
        await message.respond(b"done")

    await client.subscribe(f"test.{job.lease}", cb=command)
    while not stop.is_set():
        await client.publish(subjects.lease_out(worker.lease), worker.announcement() + worker.heartbeat())
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await stop.wait()
        except TimeoutError:
            continue
    await client.close()


def main(url: str, folder: Path) -> None:
    """Read the job, leave the facts, do what the mode says."""
    if os.environ.get("STREAM_DIE_WITH_PARENT") == "1":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(os.environ["STREAM_PARENT_PID"]):
            sys.exit(1)
    raw = sys.stdin.buffer.read()
    job = msgspec.json.decode(raw, type=PilotJob)
    mode = (folder / "mode").read_text()
    children = [stubborn_child()] if mode == "child" else []
    facts = {"pid": os.getpid(), "children": [child.pid for child in children], "argv": sys.argv, "raw": raw.decode()}
    (folder / f".{job.lease}").write_bytes(msgspec.json.encode(facts))
    (folder / f".{job.lease}").rename(folder / f"{job.lease}.job")
    match mode:
        case "crash":
            sys.stderr.write("starting the engine\nengine: no GPU of that name\n")
            sys.exit(3)
        case "silent":
            signal.pause()
        case _:
            asyncio.run(work(url, job))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
