"""The local backend with real processes: what a worker gets, and that nothing of it stays behind."""

import asyncio
import os
import sys

import msgspec
import pytest

from stream_core.wire.job import EngineSpec, PilotJob
from stream_hpc_dispatch.clusters.base import JobHandle, SubmitFailed
from stream_hpc_dispatch.clusters.local import LocalCluster, worker_environment
from stream_hpc_dispatch.settings import DispatchSettings
from stream_worker import engine_process
from stream_worker.settings import WorkerSettings

pytestmark = pytest.mark.process

JOB = PilotJob(
    lease="ab" * 16,
    bootstrap_secret=b"very secret bytes, thirty-two....",
    ticket="a.ticket.of",
    relays=[],
    expires_unix_s=0,
    models=[],
    engine=EngineSpec(),
)

PARENT_OF_A_STUBBORN_CHILD = """
import signal, subprocess, sys
child = subprocess.Popen(["/bin/sh", "-c", "trap '' TERM; echo ready; sleep 600"], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
{then}
"""


def python(program):
    """The command line of a small worker."""
    return [sys.executable, "-c", program]


@pytest.fixture
def local(tmp_path):
    """Makes a backend that runs this program."""
    return lambda program, grace_s=5.0: LocalCluster(python(program), tmp_path / "workers", grace_s)


async def first_line(folder):
    """Wait for a worker's first line; the log tells it."""
    log = folder / "workers" / f"{JOB.lease}.log"
    async with asyncio.timeout(60):
        while b"\n" not in (  # noqa: ASYNC110  (see below)
            text := log.read_bytes() if log.exists() else b""
        ):
            await asyncio.sleep(0.01)  # a file tells nobody that it grew
    return text.decode().splitlines()[0]


async def test_job_comes_by_standard_input_alone(local, tmp_path):
    """The worker reads its job from stdin; arguments and environment hold none of it; the log is the owner's own."""
    program = (
        "import sys, os; sys.stderr.write(sys.stdin.read() + '\\n' + repr(sys.argv) + repr(os.environ)); sys.exit(4)"
    )
    cluster = local(program)
    ended = await cluster.observe(await cluster.submit(JOB))
    job, surroundings = ended.tail.split("\n", 1)
    assert msgspec.json.decode(job, type=PilotJob) == JOB
    assert ended.exit_code == 4
    assert JOB.ticket not in surroundings
    assert "'STREAM_DIE_WITH_PARENT': '1'" in surroundings
    log = tmp_path / "workers" / f"{JOB.lease}.log"
    assert (log.stat().st_mode & 0o777, log.parent.stat().st_mode & 0o777) == (0o600, 0o700)


async def test_worker_that_never_reads_its_job_is_no_error(local):
    """A worker that ends before it read anything is told by its end."""
    cluster = local("raise SystemExit(2)")
    assert (await cluster.observe(await cluster.submit(JOB))).exit_code == 2


async def test_program_that_is_not_there(tmp_path):
    """A command that can't be run is a failed submission that names it."""
    cluster = LocalCluster(["/nonexistent/worker"], tmp_path / "workers", 1.0)
    with pytest.raises(SubmitFailed, match="/nonexistent/worker: No such file"):
        await cluster.submit(JOB)


async def test_children_of_a_dead_worker_are_killed(local, tmp_path, gone):
    """A worker that dies alone takes its engine along, even one that ignores SIGTERM."""
    cluster = local(PARENT_OF_A_STUBBORN_CHILD.format(then="sys.exit(1)"))
    ended = await cluster.observe(await cluster.submit(JOB))
    assert ended.exit_code == 1
    assert gone(int(ended.tail))


async def test_stop_lets_a_worker_finish(local, tmp_path):
    """SIGTERM goes to the worker alone: its engine is still there while it drains."""
    then = "signal.sigwait([signal.SIGTERM]); print('engine', 'gone' if child.poll() else 'there', flush=True)"
    program = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])" + PARENT_OF_A_STUBBORN_CHILD
    cluster = local(program.format(then=then))
    handle = await cluster.submit(JOB)
    await first_line(tmp_path)
    await cluster.stop(handle)
    ended = await cluster.observe(handle)
    assert (ended.exit_code, ended.tail.splitlines()[1:]) == (0, ["engine there"])
    await cluster.stop(handle)  # once more: no error


async def test_stop_kills_after_the_grace(local, tmp_path, gone):
    """A worker that ignores SIGTERM is killed with all its group."""
    program = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + PARENT_OF_A_STUBBORN_CHILD
    cluster = local(program.format(then="signal.pause()"), 0.2)
    handle = await cluster.submit(JOB)
    child = int(await first_line(tmp_path))
    await cluster.stop(handle)
    assert (await cluster.observe(handle)).exit_code == -9
    assert gone(child)


async def test_close_leaves_nothing(local, tmp_path, gone):
    """Closing the backend kills what runs."""
    cluster = local(PARENT_OF_A_STUBBORN_CHILD.format(then="signal.pause()"))
    handle = await cluster.submit(JOB)
    child = int(await first_line(tmp_path))
    await cluster.close()
    assert (await cluster.observe(handle)).exit_code == -9
    assert gone(child)


async def test_old_logs_are_forgotten(local, tmp_path):
    """Only the newest 200 logs of ended workers are kept."""
    cluster = local("")
    for index in range(210):
        log = tmp_path / "workers" / f"{index:03}.log"
        log.touch()
        os.utime(log, (index, index))
    await cluster.observe(await cluster.submit(JOB))
    kept = sorted(path.stem for path in (tmp_path / "workers").iterdir())
    assert kept == [*(f"{index:03}" for index in range(10, 210)), JOB.lease]


async def test_the_next_run_finds_a_worker_and_no_other_process(local, tmp_path, gone):
    """By handle or by its pid file a worker is found, observed and stopped; a process of another start time is not."""
    program = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])" + PARENT_OF_A_STUBBORN_CHILD
    first = local(program.format(then="signal.sigwait([signal.SIGTERM]); print('bye', flush=True); sys.exit(3)"))
    handle = await first.submit(JOB)
    child = int(await first_line(tmp_path))
    observing = asyncio.create_task(first.observe(handle))  # as a parent's init would, it collects the process
    second = local("", 5.0)
    lease, pid, told = handle.split(" ")
    for stranger in (f"{lease} {pid} {told}9", f"{lease} {os.getpid()} {told}", "nonsense", f"{lease} 0 {told}"):
        assert await second.recover(JOB.lease, JobHandle(stranger)) is None
    (tmp_path / "workers" / f"{JOB.lease}.pid").write_text(f"{pid} {told}\n")  # removed as another's, just now
    assert await second.recover(JOB.lease, None) == handle
    assert await second.recover(JOB.lease, handle) == handle
    await second.stop(handle)
    ended = await second.observe(handle)
    assert (ended.exit_code, ended.tail.splitlines()[1:]) == (None, ["bye"])
    assert gone(child)
    assert (await observing).exit_code == 3
    assert await second.recover(JOB.lease, handle) is None
    assert not (tmp_path / "workers" / f"{JOB.lease}.pid").exists()
    await second.stop(handle)  # gone: no error


async def test_a_found_worker_that_does_not_end_is_killed(local, tmp_path, gone):
    """Also one of an earlier run is killed with its group after the grace."""
    program = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + PARENT_OF_A_STUBBORN_CHILD
    first = local(program.format(then="signal.pause()"))
    handle = await first.submit(JOB)
    child = int(await first_line(tmp_path))
    observing = asyncio.create_task(first.observe(handle))
    second = local("", 0.2)
    await second.recover(JOB.lease, handle)
    await second.stop(handle)
    assert (await second.observe(handle)).exit_code is None
    assert (await observing).exit_code == -9
    assert gone(child)


async def test_workers_that_are_not_tied_outlive_the_backend(tmp_path, gone):
    """They are not told to die with their parent, and closing the backend leaves them."""
    program = "import os, signal; print('STREAM_DIE_WITH_PARENT' in os.environ, flush=True); signal.pause()"
    cluster = LocalCluster(python(program), tmp_path / "workers", 0.2, tied=False)
    handle = await cluster.submit(JOB)
    assert await first_line(tmp_path) == "False"
    await cluster.close()
    pid = int(handle.split(" ")[1])
    os.kill(pid, 0)
    await cluster.stop(handle)
    assert (await cluster.observe(handle)).exit_code == -15
    assert gone(pid)


def test_worker_inherits_neither_settings_nor_keys():
    """The services' settings and the institution's keys stay here; what an engine needs goes along."""
    own = {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "0",
        "HF_TOKEN": "t",
        "STREAM_MODELS_DIR": "/models",
        "STREAM_ENGINE__THREADS": "2",
        "STREAM_ENGINE_API_KEY": "of an engine to attach to",
        "STREAM_WORKER__LOG_LEVEL": "DEBUG",
    }
    dropped = {
        "OPENAI_API_KEY": "k",
        "PGPASSWORD": "p",
        "STREAM_CONFIG": "/stream.yaml",
        "STREAM_HPC_DISPATCH__TICKET_PRIVATE_KEY_FILE": "f",
        "STREAM_GATEWAY__KEYS_FILE": "f",
        "GLOBUS_COMPUTE_CLIENT_SECRET": "s",
    }
    ours = {"STREAM_DIE_WITH_PARENT": "1", "STREAM_PARENT_PID": "77"}
    assert worker_environment(own | dropped, 77) == own | ours
    assert worker_environment(own | dropped, None) == own


def test_a_worker_may_drain_and_end_its_engine():
    """By the defaults nobody is killed before the time that a worker promises its answers, and its engine, is over."""
    promised = WorkerSettings.model_fields["drain_s"].default + engine_process._STOP_GRACE_S
    assert DispatchSettings.model_fields["stop_grace_s"].default > promised
