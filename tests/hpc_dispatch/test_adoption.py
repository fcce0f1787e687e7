"""The program killed and started again: whose workers it takes over, whose it ends, and what it believes of them."""

import asyncio
import contextlib
import json
import os
import signal

import msgspec
import nats
import pytest

from stream_core.rpc import hpc_dispatch_pb2 as pb
from stream_core.testing.broker import Broker
from stream_core.testing.programs import start
from stream_core.wire.payloads import dump
from stream_hpc_dispatch.bucket import Bucket
from stream_hpc_dispatch.records import seal, unseal

pytestmark = pytest.mark.process

LEASE_KEY = b"\x5e" * 32
"""What conftest's file holds."""


def said(running, message):
    return [record for record in running.logged() if record["msg"].startswith(message)]


async def end(running):
    """`kill -9` of the program."""
    running.program.process.kill()
    await asyncio.to_thread(running.program.process.wait)


def opened(entry, kept, lease):
    """A record's content; empty when there is none."""
    if entry is None or not entry.value:
        return b""
    return dump(unseal(entry.value, LEASE_KEY, bucket=kept["LEASE_BUCKET"], key=lease.hex()))


async def recorded(broker, kept, lease, wanted):
    """Wait until a lease's record in the bucket is as wanted; gives bucket and entry."""
    client = await nats.connect(broker)
    bucket = await Bucket.open(client, kept["LEASE_BUCKET"], replicas=1)
    async with asyncio.timeout(60):
        while not wanted(entry := await bucket.read(lease.hex())):  # noqa: ASYNC110  (see below)
            await asyncio.sleep(0.02)  # the broker tells, but a poll is less to read
    return client, bucket, entry


async def test_the_next_run_goes_on_with_the_same_worker(service, kept, broker, secrets_folder, gone):
    """Same lease and keys, ready from the first snapshot on; old announcements stay old; no secret lies anywhere."""
    async with service(**kept, LEASE_REFRESH_S="0.1") as running:
        first = await running.worker()
        facts = running.facts(first.lease_id)
        spoken = await running.nats.subscribe(f"stream.v1.lease.{first.lease_id.hex()}.out")
        old = await spoken.next_msg(timeout=10)
        await running.command(first.lease_id, "rekey")
        await running.watch.until(lambda pool: pool.workers[0].x25519_public != first.x25519_public)
        left = await running.worker()
        client, _, entry = await recorded(
            broker, kept, first.lease_id, lambda entry: b"given_up" in opened(entry, kept, first.lease_id)
        )
        await client.close()
        files = [path for path in running.state_dir.rglob("*") if path.is_file()]
        everything = entry.value + b"".join(path.read_bytes() for path in files)
        job = json.loads(facts["raw"])
        for secret in (job["bootstrap_secret"], job["ticket"], (secrets_folder / "lease.key").read_text()):
            assert secret.encode() not in everything
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
        await end(running)
    os.kill(facts["pid"], 0)
    async with service(**kept) as running:
        taken = await running.worker()
        assert (taken.lease_id, taken.x25519_public) == (left.lease_id, left.x25519_public)
        assert taken.expires_unix_ms == left.expires_unix_ms
        assert running.watch.seen[0].workers[0].state == pb.WORKER_STATE_READY
        assert {record["level"] for record in running.logged()} == {"info"}
        await running.nats.publish(old.subject, old.data)
        await running.command(first.lease_id, "unready")  # comes after the old one: it has been looked at
        starting = await running.worker(pb.WORKER_STATE_STARTING)
        assert starting.x25519_public == left.x25519_public
        assert "replayed_announcement" in {record.get("kind") for record in running.logged()}
        await running.command(first.lease_id, "ready")
        await running.worker()
        assert said(running, "starting a worker") == []
        assert running.program.stop(5.0) == 0
        assert gone(facts["pid"])
        client, _, _ = await recorded(broker, kept, first.lease_id, lambda entry: entry and entry.value is None)
        await client.close()


async def test_a_worker_that_is_gone_is_replaced_at_once(service, kept, gone):
    """A worker that ended while nobody looked leaves no trace, and that is no failure."""
    async with service(**kept) as running:
        first = await running.worker()
        pid = running.facts(first.lease_id)["pid"]
        await end(running)
    os.kill(pid, signal.SIGKILL)
    assert gone(pid)
    async with service(**kept) as running:
        second = await running.worker()
        assert second.lease_id != first.lease_id
        assert len(said(running, "a worker of an earlier run is gone")) == 1
        assert said(running, "a worker failed") == []


@pytest.mark.parametrize(
    ("pool", "words"),
    [({"model": {"id": "other"}}, "no pool wants it any more"), ({"engine_url": "http://127.0.0.1:8"}, "")],
)
async def test_a_worker_that_nobody_wants_is_ended(service, kept, gone, pool, words):
    """A worker of a model that is not offered any more, or of another engine, is stopped; the new one starts."""
    async with service(**kept) as running:
        first = await running.worker()
        pid = running.facts(first.lease_id)["pid"]
        await end(running)
    async with service(pool, **kept) as running:
        second = await running.worker(other_than=first.lease_id)
        assert gone(pid)
        assert second.lease_id != first.lease_id
        assert not words or any(words in record["msg"] for record in running.logged())


async def test_a_killed_program_that_had_not_stored_the_handle(service, kept, broker, gone):
    """A record without handle leads to the worker all the same: its pid file was written before it got its job."""
    async with service(**kept) as running:
        first = await running.worker()
        await end(running)
    client, bucket, entry = await recorded(broker, kept, first.lease_id, lambda entry: entry is not None)
    record = unseal(entry.value, LEASE_KEY, bucket=bucket.name, key=first.lease_id.hex())
    bare = seal(msgspec.structs.replace(record, handle=""), LEASE_KEY, bucket=bucket.name, nonce=os.urandom(12))
    await bucket.write(first.lease_id.hex(), bare, revision=entry.revision, ttl_s=60)
    (pid_file,) = (running.state_dir / "workers").glob("*.pid")
    assert pid_file.read_text().split()[0] == str(running.facts(first.lease_id)["pid"])
    await client.close()
    async with service(**kept) as running:
        assert (await running.worker()).lease_id == first.lease_id


async def test_forged_and_old_records_at_the_start(service, kept, broker, gone):
    """A forged record is not used and told once; an old copy is not believed, and its worker is ended."""
    async with service(**kept) as running:
        first = await running.worker()
        pid = running.facts(first.lease_id)["pid"]
        client, bucket, old = await recorded(broker, kept, first.lease_id, lambda entry: entry and entry.value)
        await running.command(first.lease_id, "drain")
        await running.worker(pb.WORKER_STATE_DRAINING)
        await client.close()
        client, bucket, newest = await recorded(
            broker, kept, first.lease_id, lambda entry: entry and entry.revision > old.revision
        )
        await end(running)
    newest = await bucket.read(first.lease_id.hex())
    await bucket.write(first.lease_id.hex(), old.value, revision=newest.revision, ttl_s=60)
    for name in ("11" * 16, "22" * 16):
        await bucket.write(name, os.urandom(300).replace(b"\x00", b"\x01"), revision=0, ttl_s=60)
        await bucket.write(f"{name}x", b"\x01" + os.urandom(300), revision=0, ttl_s=60)
    await client.close()
    async with service(**kept) as running:
        second = await running.worker(other_than=first.lease_id)
        assert gone(pid)
        assert second.lease_id != first.lease_id
        kinds = [record["kind"] for record in running.logged() if "kind" in record]
        assert {"replayed_record", "forged_record"} <= set(kinds)
        assert len(kinds) == len(set(kinds))


async def test_without_jetstream_there_is_one_warning(service, kept, tmp_path, gone):
    """Leases are in memory only then, and everything else works."""
    folder = tmp_path / "nats"
    folder.mkdir()
    node = Broker(folder)
    (folder / "nats.conf").write_text("")
    node.start()
    with contextlib.ExitStack() as stack:
        stack.callback(node.stop)
        async with service(broker_url=node.url, **kept) as running:
            worker = await running.worker()
            pid = running.facts(worker.lease_id)["pid"]
            warnings = [record["msg"] for record in running.logged() if record["level"] == "warning"]
            assert warnings == ["leases are kept in memory only: the broker has no JetStream"]
            assert running.program.stop(5.0) == 0
            assert gone(pid)


async def test_a_wrong_key_file_is_one_line(environment, secrets_folder, tmp_path):
    """A lease key of another shape ends the program with one line that names the setting."""
    (tmp_path / "short").write_text("abc")
    with start(
        "stream_hpc_dispatch", env=environment(LEASE_KEY_FILE=str(tmp_path / "short")), ready_timeout_s=None
    ) as program:
        assert await asyncio.to_thread(program.process.wait, 10) == 1
        assert program.log() == f"stream-hpc-dispatch: lease_key_file: {tmp_path / 'short'} must hold 64 hex digits\n"
