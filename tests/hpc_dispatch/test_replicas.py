"""Two replicas, a real broker, real workers: one leads, the other answers too and takes over; no worker is doubled."""

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path

import grpc
import nats
import pytest
from hpc_dispatch.conftest import PATIENCE_S, Service, Watch

from stream_core.grpc_client import open_channel
from stream_core.rpc import hpc_dispatch_pb2 as pb
from stream_core.rpc import hpc_dispatch_pb2_grpc
from stream_core.settings import TlsFiles
from stream_core.testing.programs import start

pytestmark = pytest.mark.process


@pytest.fixture
def replica(environment, kept, broker, secrets_folder, tmp_path):
    """A context manager that runs one of several replicas and yields its `Service`."""
    tls = secrets_folder / "tls"
    files = TlsFiles(ca=tls / "ca.pem", certificate=tls / "gateway.pem", key=tls / "gateway.key")

    @contextlib.asynccontextmanager
    async def run(pool=None, **extra):
        fields = {"ADVERTISE": "127.0.0.1:0", "LEADER_LEASE_S": "1.0", "LOST_AFTER_S": "5.0"} | kept | extra
        with start("stream_hpc_dispatch", env=environment(pool, **fields)) as program:
            client = await nats.connect(broker)
            async with open_channel(f"127.0.0.1:{program.ready['port']}", files) as channel:
                stub, watch = hpc_dispatch_pb2_grpc.HpcDispatchStub(channel), Watch()
                reading = asyncio.create_task(read(watch, stub))
                try:
                    yield Service(program, stub, watch, client, tmp_path, tmp_path / "state")
                finally:
                    reading.cancel()
                    await asyncio.gather(reading, return_exceptions=True)
                    await client.close()

    return run


async def read(watch, stub):
    """Watch the pool, until the replica is gone."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        await watch.read(stub.WatchPool(pb.WatchPoolRequest(gateway_id="test")))


@pytest.fixture
def jobs(tmp_path):
    """Ends every stand-in that this test started, and lists their process ids: one for each job ever submitted."""

    def listed():
        return {json.loads(path.read_text())["pid"] for path in Path(tmp_path).glob("*.job")}

    yield listed
    for pid in listed():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def until_said(running, words):
    """Wait until a replica has logged something."""
    async with asyncio.timeout(PATIENCE_S):
        while words not in running.program.log():  # noqa: ASYNC110  (a log tells nobody)
            await asyncio.sleep(0.02)


async def ask(running):
    """Ask for a worker as gateways do: again while nobody could be asked."""
    request = pb.RequestWorkerRequest(model="tiny", waiting=1, gateway_id="g")
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return (await running.stub.RequestWorker(request)).model
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            await asyncio.sleep(0.05)


async def kill(running):
    """`kill -9`."""
    running.program.process.kill()
    await asyncio.to_thread(running.program.process.wait)


def alive(pid):
    """Whether a process runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


async def test_the_follower_answers_and_takes_over(replica, jobs):
    """One worker for both; asked either way; the leader killed, the other has it ready, and starts none."""
    async with replica() as first:
        worker = await first.worker()
        async with replica() as second:
            assert (await second.worker()).lease_id == worker.lease_id
            model = await ask(second)
            assert model.state == "hot"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await second.stub.RequestWorker(pb.RequestWorkerRequest(model="none"))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            await kill(first)
            await until_said(second, "this replica leads")
            await until_said(second, "took a worker over")
            await second.command(worker.lease_id, "drain")  # heard by the one who leads
            draining = await second.worker(pb.WORKER_STATE_DRAINING)
            assert draining.lease_id == worker.lease_id
            seen = [one for pool in second.watch.seen for one in pool.workers if one.lease_id == worker.lease_id]
            assert pb.WORKER_STATE_LOST not in {one.state for one in seen}
            assert not second.watch.ended
            revisions = [pool.revision for pool in second.watch.seen]
            assert revisions == sorted(revisions)
            assert jobs() == {second.facts(worker.lease_id)["pid"]}
            assert alive(second.facts(worker.lease_id)["pid"])


async def test_killed_while_a_worker_starts(replica, jobs):
    """The leader dies between a job's record and its worker's first word: the next one has one worker, not two."""
    async with replica({"min_ready": 0}) as first, replica({"min_ready": 0}) as second:
        await first.watch.until(lambda pool: bool(pool.models))
        await second.watch.until(lambda pool: bool(pool.models))
        await ask(second)
        leader, other = (first, second) if "this replica leads" in first.program.log() else (second, first)
        await until_said(leader, "starting a worker")
        await kill(leader)
        await until_said(other, "this replica leads")
        await ask(other)
        worker = await other.worker()
        running = {pid for pid in jobs() if alive(pid)}
        assert running == {other.facts(worker.lease_id)["pid"]}


async def test_a_leader_that_stood_still_does_not_act(replica, jobs):
    """Stopped for longer than its lease and woken: it follows, the other's worker runs on, nothing is started twice."""
    async with replica({"min_ready": 1, "max_workers": 2}) as first:
        worker = await first.worker()
        async with replica({"min_ready": 1, "max_workers": 2}) as second:
            await second.worker()
            first.program.process.send_signal(signal.SIGSTOP)
            try:
                await until_said(second, "took a worker over")
            finally:
                first.program.process.send_signal(signal.SIGCONT)
            await until_said(first, "another replica leads")
            await second.command(worker.lease_id, "unready")
            await second.worker(pb.WORKER_STATE_STARTING)
            await second.command(worker.lease_id, "ready")
            await first.worker()
            assert jobs() == {second.facts(worker.lease_id)["pid"]}
            assert alive(second.facts(worker.lease_id)["pid"])
            assert first.program.log().count("starting a worker") == 1
            assert "starting a worker" not in second.program.log()
            model = await ask(first)
            assert model.ready == 1


async def test_what_a_leader_missed_is_the_next_ones_to_do(replica, jobs):
    """Its worker dies while it stands still: the next leader starts another one, and it, woken, does not."""
    async with replica() as first:
        worker = await first.worker()
        async with replica() as second:
            await second.worker()
            first.program.process.send_signal(signal.SIGSTOP)
            try:
                os.kill(second.facts(worker.lease_id)["pid"], signal.SIGKILL)
                other = await second.worker(other_than=worker.lease_id)
            finally:
                first.program.process.send_signal(signal.SIGCONT)
            await until_said(first, "another replica leads")
            assert (await first.worker(other_than=worker.lease_id)).lease_id == other.lease_id
            assert first.program.log().count("starting a worker") == 1
            assert jobs() == {second.facts(lease)["pid"] for lease in (worker.lease_id, other.lease_id)}


async def test_told_to_stop_it_hands_over(replica, jobs):
    """SIGTERM of the leader leaves its worker to the other one, which leads before the lease would have ended."""
    async with replica(LEADER_LEASE_S="60") as first:
        worker = await first.worker()
        async with replica(LEADER_LEASE_S="60") as second:
            await second.worker()
            first.program.process.terminate()
            assert await asyncio.to_thread(first.program.process.wait, 5) == 0
            assert alive(second.facts(worker.lease_id)["pid"])


async def test_replicas_must_share(environment, kept):
    """Without a key for the leases there is nothing to take over: one line that says so."""
    fields = {name: value for name, value in kept.items() if name != "LEASE_KEY_FILE"}
    with start(
        "stream_hpc_dispatch", env=environment(ADVERTISE="127.0.0.1:0", **fields), ready_timeout_s=None
    ) as program:
        assert await asyncio.to_thread(program.process.wait, 10) == 1
        assert "advertise: replicas need lease_key_file and keep_workers" in program.log()
