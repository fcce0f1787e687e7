"""Backend `parsl` on a real Slurm: what becomes of one job, and that nothing of it stays behind."""

import asyncio
import functools
import hashlib
import json
import os
import sys
import time
from pathlib import Path

import pytest
from hpc.slurm import CLOSED, Slurm

from stream_core.cluster_config import ClusterConfig
from stream_core.wire.job import EngineSpec, PilotJob
from stream_hpc_dispatch.clusters import open_cluster
from stream_hpc_dispatch.clusters.base import Place, SubmitFailed

pytestmark = pytest.mark.process

SECRET = b"very secret bytes, thirty-two..."
PATIENCE_S = 60.0
READS_ITS_JOB = (
    "import os, sys; path = sys.argv[sys.argv.index('--job') + 1]; text = open(path).read(); os.remove(path)\n"
)
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(600)"
)


def lease_of(number: int) -> str:
    """A lease of the test that runs: Slurm remembers the names of ended jobs for a while."""
    return f"{hashlib.sha256(os.environ['PYTEST_CURRENT_TEST'].split()[0].encode()).hexdigest()[:30]}{number:02x}"


def pilot(number: int = 1, lasts_s: float = 600.0) -> PilotJob:
    return PilotJob(
        lease=lease_of(number),
        bootstrap_secret=SECRET,
        ticket="a.ticket.of",
        relays=[],
        expires_unix_s=time.time() + lasts_s,
        models=[],
        engine=EngineSpec(),
    )


@pytest.fixture
async def opened(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Opens the backend with a program as its worker; at the end nothing is left in the queue or running."""
    monkeypatch.setenv("SLURM_CONF", slurm.env["SLURM_CONF"])
    monkeypatch.setenv("OF_DISPATCH_ALONE", "not for jobs")
    open_ones = []

    def make(program: str = "import time; print('on', flush=True); time.sleep(600)", grace_s: float = 5.0, **section):
        config = ClusterConfig.model_validate(
            {
                "name": "here",
                "backend": "parsl",
                "worker_command": [sys.executable, "-c", READS_ITS_JOB + program],
                "parsl": {"scheduler": "slurm", "poll_s": 0.2, **section},
            }
        )
        cluster = open_cluster(config, command=[], state_dir=tmp_path, stop_grace_s=grace_s, tied=False)
        open_ones.append(cluster)
        return cluster

    yield make
    left = await asyncio.to_thread(slurm.wait_empty)
    for cluster in open_ones:
        await cluster.close()
    if left:
        await asyncio.to_thread(slurm.clear)
    assert left == ""


async def until(told, wanted=bool):
    """Wait for what a cluster, or Slurm, tells; neither says when it changes."""
    async with asyncio.timeout(PATIENCE_S):
        while not wanted(answer := await told()):  # noqa: ASYNC110  (see below)
            await asyncio.sleep(0.05)  # a poll of a poll: there is no event
    return answer


async def started(cluster, handle, tmp_path: Path, number: int = 1) -> None:
    """Wait until the worker has written its first line."""
    log = folder_of(tmp_path, number) / "log"
    await until(
        lambda: cluster.look(handle),
        lambda view: view.place is Place.RUNNING and log.exists() and "on" in log.read_text(),
    )


async def over(cluster, handle):
    async with asyncio.timeout(PATIENCE_S):
        return await cluster.observe(handle)


def folder_of(tmp_path: Path, number: int = 1) -> Path:
    return tmp_path / "jobs" / "here" / lease_of(number)


async def test_the_secret_is_in_a_private_file_alone(opened, slurm, tmp_path):
    """Script, arguments, environment and the batch system's records hold none of it; the worker's exit code comes."""
    program = (
        "import json; print(text); "
        "[print(open(f'/proc/{os.getppid()}/' + name).read()) for name in ('cmdline', 'environ')]; "
        "print(dict(os.environ), sys.argv); sys.exit(4)"
    )
    cluster = opened(program)
    job = pilot()
    handle = await cluster.submit(job)
    folder = folder_of(tmp_path)
    secret_file = folder / "job.json"
    assert (secret_file.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    script = next(path for path in folder.glob("stream-*") if path.suffix not in {".stdout", ".stderr"}).read_text()
    record = slurm.run("scontrol", "show", "job", handle.split()[1])
    kept = slurm.run("scontrol", "write", "batch_script", handle.split()[1], "-")
    ended = await over(cluster, handle)
    assert (ended.exit_code, ended.reason) == (4, "")
    read, _, surroundings = (folder / "log").read_text().partition("\n")
    assert json.loads(read)["ticket"] == job.ticket
    for text in (surroundings, script, record, kept):
        assert job.ticket not in text
        assert json.loads(read)["bootstrap_secret"] not in text
    assert "not for jobs" not in surroundings
    assert "SLURM_JOB_ID" in surroundings
    assert not secret_file.exists()
    assert (folder / "log").stat().st_mode & 0o777 == 0o600


async def test_a_worker_that_is_told_to_stop_finishes(opened, tmp_path):
    """SIGTERM reaches the worker alone, its own exit code comes back, and nobody is cancelled before the grace."""
    program = (
        "import signal, time\n"
        "def end(*_): time.sleep(1); print('finished', flush=True); sys.exit(3)\n"
        "signal.signal(signal.SIGTERM, end); print('on', flush=True); time.sleep(600)"
    )
    cluster = opened(program, grace_s=30.0)
    handle = await cluster.submit(pilot())
    await started(cluster, handle, tmp_path)
    await cluster.stop(handle)
    ended = await over(cluster, handle)
    assert (ended.exit_code, ended.tail.splitlines()[-1]) == (3, "finished")


async def test_a_worker_that_does_not_stop_is_cancelled(opened, tmp_path):
    """After the grace the batch system ends the job, with all that it has started."""
    cluster = opened(f"import subprocess; subprocess.Popen(['setsid', 'sleep', '600']); {STUBBORN}", grace_s=0.5)
    handle = await cluster.submit(pilot())
    await started(cluster, handle, tmp_path)
    await cluster.stop(handle)
    ended = await over(cluster, handle)
    assert ended.reason == "cancelled"


async def test_a_queued_job_tells_its_place_and_is_taken_back(opened, tmp_path):
    """A job that can't start says why and where it stands; stopped, it is gone, and its secret with it."""
    cluster = opened(partition=CLOSED)
    handles = [await cluster.submit(pilot(number)) for number in (1, 2)]
    views = [await until(functools.partial(cluster.look, handle), lambda view: view.words) for handle in handles]
    assert [(view.place, view.words) for view in views] == [(Place.QUEUED, "PartitionDown")] * 2
    assert [view.queue_position for view in views] == [1, 2]
    for handle in handles:
        await cluster.stop(handle)
        assert (await over(cluster, handle)).reason == "cancelled"
    assert not (folder_of(tmp_path) / "job.json").exists()


async def test_a_job_that_waits_for_another_has_an_expected_start(opened, tmp_path):
    """Where Slurm has planned a start, it is told."""
    cluster = opened(cores_per_node=8)
    first, second = [await cluster.submit(pilot(number, 120)) for number in (1, 2)]
    await started(cluster, first, tmp_path)
    # Until it has looked what the job waits for, Slurm says "Priority".
    view = await until(lambda: cluster.look(second), lambda view: view.starts is not None and view.words != "Priority")
    assert (view.place, view.words, view.queue_position) == (Place.QUEUED, "Resources", 1)
    assert 0 < view.starts - time.time() < 240
    for handle in (second, first):
        await cluster.stop(handle)
        await over(cluster, handle)


async def test_cancelled_from_outside(opened, slurm, tmp_path):
    """Somebody's scancel is the reason."""
    cluster = opened()
    handle = await cluster.submit(pilot())
    await started(cluster, handle, tmp_path)
    slurm.run("scancel", handle.split()[1])
    ended = await over(cluster, handle)
    assert (ended.reason, ended.exit_code) == ("cancelled", -15)


async def test_walltime(opened, slurm, tmp_path):
    """The limit is the lease's time in whole minutes, never less; a worker that outstays it is ended, and so told."""
    cluster = opened(STUBBORN)
    handles = [await cluster.submit(pilot(number, lasts_s)) for number, lasts_s in ((1, 10), (2, 61), (3, 3600))]
    limits = [slurm.run("squeue", "--noheader", "--format=%l", "--jobs", handle.split()[1]) for handle in handles]
    assert [limit.strip() for limit in limits] == ["1:00", "2:00", "1:00:00"]
    await started(cluster, handles[0], tmp_path)
    # The real minute, and the controller's own slowness, would be a test of Slurm.
    async with asyncio.timeout(180):
        ended = await cluster.observe(handles[0])
    assert ended.reason == "walltime reached"
    for number, handle in enumerate(handles[1:], 2):
        await started(cluster, handle, tmp_path, number)
        slurm.run("scancel", "--signal=KILL", "--full", handle.split()[1])
        assert (await over(cluster, handle)).reason != ""


async def test_rejected_leaves_nothing(opened, slurm, tmp_path):
    """The own words of sbatch come back; no job, no file."""
    cluster = opened(partition="nowhere")
    with pytest.raises(SubmitFailed, match="invalid partition specified: nowhere"):
        await cluster.submit(pilot())
    assert slurm.jobs() == {}
    assert not folder_of(tmp_path).exists()


async def test_a_batch_system_that_is_away_ends_nobody(opened, slurm, tmp_path):
    """It makes the cluster offline in its own words; the job is still there when it is back."""
    cluster = opened()
    handle = await cluster.submit(pilot())
    await started(cluster, handle, tmp_path)
    observing = asyncio.create_task(cluster.observe(handle))
    await asyncio.to_thread(slurm.stop_controller)
    try:
        health = await until(cluster.health, lambda health: not health.online)
        assert "Unable to contact slurm controller" in health.reason
        with pytest.raises(SubmitFailed, match="Unable to contact slurm controller"):
            await cluster.submit(pilot(2))
        assert not observing.done()
    finally:
        await asyncio.to_thread(slurm.start_controller)
    await until(cluster.health, lambda health: health.online)
    assert not observing.done()
    await cluster.stop(handle)
    assert (await observing).exit_code == -15


async def test_the_next_run_finds_jobs_by_name_and_takes_back_the_others(opened, slurm, tmp_path):
    """With or without its id a job is found; one that ended, or another's of that id, is not; unclaimed ones go."""
    first = opened()
    handles = [await first.submit(pilot(number)) for number in (1, 2, 3, 4)]
    for number, handle in enumerate(handles, 1):
        await started(first, handle, tmp_path, number)
    await first.close()
    slurm.run("scancel", handles[3].split()[1])
    await until(lambda: asyncio.to_thread(slurm.jobs), lambda jobs: handles[3].split()[1] not in jobs)

    second = opened()
    leases = [pilot(number).lease for number in (1, 2, 3, 4)]
    assert await second.recover(leases[0], handles[0]) == handles[0]
    assert await second.recover(leases[1], None) == handles[1]
    assert await second.recover(leases[3], handles[3]) is None
    assert await second.recover("ff" * 16, handles[0]) is None
    assert (await second.health()).online
    await until(lambda: asyncio.to_thread(slurm.jobs), lambda jobs: handles[2].split()[1] not in jobs)
    assert set(slurm.jobs()) == {handle.split()[1] for handle in handles[:2]}
    for handle in handles[:2]:
        await second.stop(handle)
        await over(second, handle)


async def test_what_the_shell_says_is_the_tail(opened, tmp_path):
    """A worker that is not installed on the node is told by the shell's words."""
    cluster = opened(worker_init=["PATH=/nowhere"])
    cluster._command = ["stream-worker"]
    ended = await over(cluster, await cluster.submit(pilot()))
    assert ended.exit_code == 127
    assert "stream-worker: " in ended.tail


async def test_closed_for_good_cancels(opened, slurm, tmp_path):
    """Where no later run takes jobs over, closing cancels them."""
    cluster = opened()
    cluster._tied = True
    await cluster.submit(pilot())
    await cluster.close()
    assert await asyncio.to_thread(slurm.wait_empty) == ""
