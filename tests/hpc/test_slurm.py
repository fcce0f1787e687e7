"""The whole road with a real Slurm as its cluster: what clients see of jobs that start, die and are renewed."""

import asyncio
import contextlib

import psutil
import pytest
from hpc.slurm import CLOSED, Slurm
from hpc_dispatch.traffic import Client, answer, clients, logged, undisturbed, until

from stream_core.grpc_client import open_channel
from stream_core.rpc import hpc_dispatch_pb2 as pb
from stream_core.rpc import hpc_dispatch_pb2_grpc
from stream_core.settings import TlsFiles
from stream_core.testing.engine import MODEL
from stream_core.testing.road import run_road, wait_hot

pytestmark = pytest.mark.process

STREAMS = 16


@pytest.fixture
def run(slurm: Slurm, tmp_path):
    """Runs a road on this Slurm; at the end nothing is in the queue, in the process table or of the secrets."""

    @contextlib.contextmanager
    def start(pool=None, worker_env=(), **section):
        exports = [f"export {name}={value}" for name, value in worker_env]
        parsl = {"scheduler": "slurm", "poll_s": 0.3, "worker_init": exports, **section}
        cluster = {"backend": "parsl", "parsl": parsl}
        env = slurm.env | {"STREAM_HPC_DISPATCH__LOOK_S": "0.2"}
        try:
            with run_road(tmp_path, pool=pool, env=env, cluster=cluster) as road:
                yield road
                assert road.services["hpc_dispatch"].stop(60) == 0
                assert slurm.wait_empty() == ""
                assert road.workers() == []
                assert list((tmp_path / "dispatch").rglob("job.json")) == []
        finally:
            slurm.clear()

    return start


def job_of(worker: psutil.Process) -> str:
    return worker.environ()["SLURM_JOB_ID"]


async def state_of(road) -> pb.ModelState:
    """What dispatch tells of the model."""
    tls = road.folder / "tls"
    files = TlsFiles(ca=tls / "ca.pem", certificate=tls / "gateway.pem", key=tls / "gateway.key")
    async with open_channel(f"127.0.0.1:{road.services['hpc_dispatch'].ready['port']}", files) as channel:
        stub = hpc_dispatch_pb2_grpc.HpcDispatchStub(channel)
        return (await stub.RequestWorker(pb.RequestWorkerRequest(model=MODEL))).model


async def test_killed_dispatch_finds_its_job_again(run, slurm):
    """A Slurm job serves streams byte for byte; dispatch is killed, the next run takes it over and starts no other."""
    script = {"tokens": 160, "interval_ms": 25, "text": " {n}"}
    with run() as road:
        await wait_hot(road)
        (worker,) = road.workers()
        assert slurm.jobs() == {job_of(worker): "RUNNING"}
        async with asyncio.timeout(90), clients(road) as session, asyncio.TaskGroup() as group:
            expected = await undisturbed(road, session, script)
            running = [Client() for _ in range(STREAMS)]
            for client in running:
                group.create_task(client.run(road, session, script))
            for client in running:
                await client.began.wait()
            dispatch = road.services["hpc_dispatch"]
            dispatch.process.kill()
            await asyncio.to_thread(dispatch.process.wait)
            await asyncio.to_thread(road.start_service, "hpc_dispatch")
        assert [client.body == expected for client in running] == [True] * STREAMS
        async with clients(road) as session:
            assert [await answer(road, session) for _ in range(5)] == [200] * 5

        again = road.services["hpc_dispatch"]
        await until(lambda: logged(again, "took a worker over"))
        assert [process.pid for process in road.workers()] == [worker.pid]
        assert slurm.jobs() == {job_of(worker): "RUNNING"}
        assert logged(again, "starting a worker") == []
        assert [line for line in logged(again, "") if line["level"] != "info"] == []


async def test_scancel_from_outside(run, slurm):
    """The reason names it, and another job takes its place."""
    with run() as road:
        await wait_hot(road)
        (worker,) = road.workers()
        first = job_of(worker)
        slurm.run("scancel", first)
        dispatch = road.services["hpc_dispatch"]
        await until(lambda: [line for line in logged(dispatch, "job ended") if line["job"] == first])
        (ended,) = logged(dispatch, "job ended")
        assert ended["reason"] == "cancelled"
        await until(lambda: [other for other in road.workers() if other.pid != worker.pid])
        await wait_hot(road)
        assert [job_of(other) != first for other in road.workers()] == [True]


async def test_rejected_by_slurm(run, slurm):
    """The model is offline in the words of sbatch, and nothing of the job is left."""
    with run(partition="nowhere") as road:
        dispatch = road.services["hpc_dispatch"]
        await until(lambda: logged(dispatch, "a worker failed"))
        state = await state_of(road)
        assert state.state == "offline"
        assert "invalid partition specified: nowhere" in state.reason
        assert slurm.jobs() == {}
        assert list((road.folder / "dispatch" / "jobs" / "road").iterdir()) == []


async def test_a_job_that_is_never_started(run, slurm):
    """It is starting, with the words of the queue, and is taken back when the pool's limit is reached."""
    with run(pool={"pending_limit_s": 20}, partition=CLOSED) as road:
        async with asyncio.timeout(60):
            while "PartitionDown" not in (state := await state_of(road)).reason:  # noqa: ASYNC110  (see below)
                await asyncio.sleep(0.1)  # each look is a call
        assert (state.state, state.queue_position) == ("starting", 1)
        assert list(slurm.jobs().values()) == ["PENDING"]
        dispatch = road.services["hpc_dispatch"]
        await until(lambda: logged(dispatch, "job ended"))
        (ended, *_) = logged(dispatch, "job ended")
        assert ended["reason"] == "cancelled"
        await until(lambda: logged(dispatch, "a worker failed"))


async def test_renewal_under_sixteen_streams(run, slurm):
    """A minute's walltime: the next job takes over while 16 streams run without a pause, and none of them breaks."""
    script = {"tokens": 80, "interval_ms": 25, "text": " {n}"}
    bodies: list[bytes] = []
    with run(pool={"walltime_s": 60}, worker_env=[("STREAM_WORKER__DRAIN_S", "5")]) as road:
        await wait_hot(road)
        (first,) = road.workers()
        job = job_of(first)
        async with asyncio.timeout(150), clients(road) as session:
            expected = await undisturbed(road, session, script)
            served_after: list[int] = []

            async def streams() -> None:
                while len(served_after) < STREAMS:
                    client = Client()
                    gone = job not in slurm.jobs()
                    await client.run(road, session, script)
                    bodies.append(client.body)
                    if gone:
                        served_after.append(client.status)

            async with asyncio.TaskGroup() as group:
                for _ in range(STREAMS):
                    group.create_task(streams())
        broken = sum(body != expected for body in bodies)
        assert (broken, len(bodies) > 5 * STREAMS) == (0, True)
        assert set(served_after) == {200}
        later = {job_of(worker) for worker in road.workers()} - {job}
        assert later
        assert later <= set(slurm.jobs())
        assert logged(road.services["hpc_dispatch"], "a worker failed") == []
        (ended,) = [line for line in logged(road.services["hpc_dispatch"], "job ended") if line["job"] == job]
        assert (ended["exit_code"], ended["reason"]) == (0, "")
