"""Backend `parsl` with PBS Pro's commands (stand-ins; the jobs are real processes), and what qstat's answers mean."""

import asyncio
import json
import sys
import time
from pathlib import Path

import pytest

from stream_core.cluster_config import ClusterConfig, ParslConfig
from stream_core.errors import ConfigError
from stream_core.wire.job import EngineSpec, PilotJob
from stream_hpc_dispatch.clusters import open_cluster
from stream_hpc_dispatch.clusters.base import JobView, Place, SubmitFailed
from stream_hpc_dispatch.clusters.batch import Away, JobEnd
from stream_hpc_dispatch.clusters.pbspro import PbsPro, read_jobs

pytestmark = pytest.mark.process

PATIENCE_S = 30.0
TAKES_ITS_JOB = "import os, sys; os.remove(sys.argv[sys.argv.index('--job') + 1])\n"
SERVES = "import time; print('on', flush=True); time.sleep(600)"
FINISHES = (
    "import signal, time\n"
    "def end(*_): print('finished', flush=True); sys.exit(3)\n"
    "signal.signal(signal.SIGTERM, end); print('on', flush=True); time.sleep(600)"
)


def pilot(number: int = 1) -> PilotJob:
    return PilotJob(
        lease=f"{number:02x}" * 16,
        bootstrap_secret=b"very secret bytes, thirty-two...",
        ticket="a.ticket.of",
        relays=[],
        expires_unix_s=time.time() + 600,
        models=[],
        engine=EngineSpec(),
    )


@pytest.fixture
def pbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The commands on PATH; the folder of their switches."""
    state, binaries = tmp_path / "pbs", tmp_path / "bin"
    state.mkdir()
    binaries.mkdir()
    for name in ("qsub", "qstat", "qselect", "qsig", "qdel"):
        program = binaries / name
        program.write_text(f"#!{sys.executable} -E\n" + Path(__file__).with_name("fake_pbs.py").read_text())
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binaries}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE_PBS", str(state))
    return state


@pytest.fixture
async def opened(pbs: Path, tmp_path: Path):
    """Opens the backend with a program as its worker; ends what it has started."""
    clusters = []

    def make(program: str = SERVES, grace_s: float = 20.0, **section):
        config = ClusterConfig.model_validate(
            {
                "name": "here",
                "backend": "parsl",
                "worker_command": [sys.executable, "-c", TAKES_ITS_JOB + program],
                "parsl": {"scheduler": "pbspro", "poll_s": 0.2, **section},
            }
        )
        clusters.append(open_cluster(config, command=[], state_dir=tmp_path, stop_grace_s=grace_s, tied=True))
        return clusters[-1]

    yield make
    for switch in ("away", "no_history", "garbled"):
        (pbs / switch).unlink(missing_ok=True)
    for cluster in clusters:
        await cluster.close()
    assert running(pbs) == []


def running(pbs: Path) -> list[str]:
    """The jobs that have not ended."""
    jobs = {path.stem: json.loads(path.read_text()) for path in pbs.glob("*.json")}
    return [name for name, job in jobs.items() if not job["deleted"] and not Path(job["exit"]).exists()]


async def until(told, wanted):
    """Wait for what a cluster tells; it does not say when it changes."""
    async with asyncio.timeout(PATIENCE_S):
        while not wanted(answer := await told()):  # noqa: ASYNC110  (see below)
            await asyncio.sleep(0.05)  # a poll of a poll: there is no event
    return answer


async def started(cluster, handle, tmp_path: Path, number: int = 1) -> None:
    log = tmp_path / "jobs" / "here" / (f"{number:02x}" * 16) / "log"
    await until(
        lambda: cluster.look(handle),
        lambda view: view.place is Place.RUNNING and log.exists() and "on" in log.read_text(),
    )


async def over(cluster, handle):
    async with asyncio.timeout(PATIENCE_S):
        return await cluster.observe(handle)


async def test_a_job_from_submission_to_its_own_end(opened, pbs, tmp_path):
    """The script asks for what the section says, without a secret; SIGTERM reaches the worker, its code comes back."""
    cluster = opened(
        FINISHES,
        partition="gpu",
        account="abc",
        gpus_per_node=2,
        memory_gb=64,
        cores_per_node=8,
        scheduler_options=["#PBS -l filesystems=home"],
        worker_init=["export SITE=1"],
    )
    handle = await cluster.submit(pilot())
    await started(cluster, handle, tmp_path)
    script = json.loads((pbs / "1.fake.json").read_text())
    for line in (
        "#PBS -l select=1:ncpus=8:ngpus=2:mem=64gb",
        "#PBS -l walltime=00:10:00",
        "#PBS -l filesystems=home",
        "#PBS -r n",
        "export SITE=1",
    ):
        assert f"\n{line}\n" in script["text"]
    assert script["queue"] == "gpu"
    assert pilot().ticket not in script["text"]
    assert not (tmp_path / "jobs" / "here" / pilot().lease / "job.json").exists()
    await cluster.stop(handle)
    ended = await over(cluster, handle)
    assert (ended.exit_code, ended.tail.splitlines()[-1], ended.reason) == (3, "finished", "")


async def test_a_queued_job_is_taken_back(opened, tmp_path):
    """It says why it waits and when it may start; stopped, it is gone, and its secret with it."""
    cluster = opened(partition="closed")
    handle = await cluster.submit(pilot())
    view = await until(lambda: cluster.look(handle), lambda view: view.words)
    assert view == JobView(Place.QUEUED, None, 2_000_000_000, "Queue not started.")
    await cluster.stop(handle)
    assert (await over(cluster, handle)).reason == "cancelled"
    assert list((tmp_path / "jobs").rglob("job.json")) == []


async def test_a_worker_that_does_not_stop_is_deleted(opened, tmp_path):
    """After the grace comes qdel."""
    cluster = opened("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVES, grace_s=0.3)
    handle = await cluster.submit(pilot())
    await started(cluster, handle, tmp_path)
    await cluster.stop(handle)
    assert (await over(cluster, handle)).reason == "cancelled"


async def test_rejected_leaves_nothing(opened, tmp_path):
    """The own words of qsub come back, and no file is left."""
    cluster = opened(partition="nowhere")
    with pytest.raises(SubmitFailed, match=r"^qsub: Unknown queue$"):
        await cluster.submit(pilot())
    assert list((tmp_path / "jobs" / "here").iterdir()) == []


@pytest.mark.parametrize("history", [True, False])
async def test_ended_with_and_without_history(opened, pbs, history):
    """A server that keeps no history says that it knows no such job: the worker's own exit code tells the rest."""
    if not history:
        (pbs / "no_history").touch()
    cluster = opened("print('last words'); sys.exit(4)")
    ended = await over(cluster, await cluster.submit(pilot()))
    assert (ended.exit_code, ended.tail, ended.reason) == (4, "last words", "")


@pytest.mark.parametrize(("switch", "words"), [("away", "cannot connect to server"), ("garbled", "can't be read")])
async def test_a_server_that_can_not_be_asked_ends_nobody(opened, pbs, tmp_path, switch, words):
    """It makes the cluster offline in its own words, and the job is there when it is back."""
    cluster = opened()
    handle = await cluster.submit(pilot())
    await started(cluster, handle, tmp_path)
    observing = asyncio.create_task(cluster.observe(handle))
    (pbs / switch).touch()
    health = await until(cluster.health, lambda health: not health.online)
    assert words in health.reason
    (pbs / switch).unlink()
    await until(cluster.health, lambda health: health.online)
    assert not observing.done()
    await cluster.stop(handle)
    assert (await observing).exit_code == -15


async def test_a_submission_without_answer_may_be_a_job(opened, pbs, tmp_path, monkeypatch):
    """Where the batch system was away in mid-submission, the job has no file to start from, and is taken back later."""
    cluster = opened()
    real = cluster._scheduler.submit

    def submit(request):
        real(request)
        raise Away("qsub: no answer within 30 s")

    monkeypatch.setattr(cluster._scheduler, "submit", submit)
    with pytest.raises(SubmitFailed, match="no answer within 30 s"):
        await cluster.submit(pilot())
    assert list((tmp_path / "jobs").rglob("job.json")) == []
    assert (pbs / "1.fake.json").exists()
    await until(lambda: asyncio.to_thread(running, pbs), lambda jobs: jobs == [])


async def test_the_next_run_finds_jobs_by_name(opened, tmp_path):
    """With its id, and without, where the run before ended in mid-submission; a server that is away loses nobody."""
    first = opened()
    first._tied = False
    handles = [await first.submit(pilot(number)) for number in (1, 2)]
    for number, handle in enumerate(handles, 1):
        await started(first, handle, tmp_path, number)
    await first.close()
    second = opened()
    assert await second.recover(pilot(1).lease, handles[0]) == handles[0]
    assert await second.recover(pilot(2).lease, None) == handles[1]
    assert await second.recover(pilot(3).lease, handles[0]) is None
    for handle in handles:
        await second.stop(handle)
        await over(second, handle)


async def test_recovery_while_the_server_is_away(opened, pbs, tmp_path):
    """A job that nobody can ask for counts as there; when the server is back it is found by its name."""
    first = opened()
    first._tied = False
    await started(first, handle := await first.submit(pilot()), tmp_path)
    await first.close()
    (pbs / "away").touch()
    second = opened()
    known = await second.recover(pilot().lease, None)
    assert known is not None
    (pbs / "away").unlink()
    await until(lambda: second.look(known), lambda view: view.place is Place.RUNNING)
    await second.stop(known)
    assert (await over(second, known)).exit_code == -15
    assert handle.split()[1] == "1.fake"


JOB = {"Job_Name": "stream-1", "Job_Owner": "me@here"}
RAN = "Job run at Thu Nov 26 at 18:00 on (node1:ncpus=1:mem=4gb) and "


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ({"job_state": "R"}, JobView(Place.RUNNING)),
        ({"job_state": "E"}, JobView(Place.RUNNING)),
        ({"job_state": "H"}, JobView(Place.QUEUED)),
        ({"job_state": "?"}, JobView(Place.UNKNOWN)),
        (
            {"job_state": "Q", "comment": "Not Running: Insufficient amount of resource: ngpus"},
            JobView(Place.QUEUED, words="Insufficient amount of resource: ngpus"),
        ),
        ({"job_state": "Q", "estimated": {"start_time": "Thu Jan 1 00:00:00 1970"}}, JobView(Place.QUEUED)),
        ({"job_state": "F", "Exit_status": 0, "comment": RAN + "finished"}, JobEnd(0)),
        ({"job_state": "F", "Exit_status": 1, "comment": RAN + "failed"}, JobEnd(1)),
        ({"job_state": "F", "Exit_status": 137, "comment": RAN + "failed"}, JobEnd(-9)),
        ({"job_state": "F", "Exit_status": 271, "comment": RAN + "terminated"}, JobEnd(-15)),
        (
            {"job_state": "F", "Exit_status": -29, "comment": RAN + "exceeded resource walltime"},
            JobEnd(None, "walltime reached"),
        ),
        (
            {"job_state": "F", "Exit_status": -27, "comment": RAN + "exceeded resource mem"},
            JobEnd(None, "out of memory"),
        ),
        ({"job_state": "F", "comment": "Not Running: deleted by administrator"}, JobEnd(None, "cancelled")),
    ],
)
def test_what_qstat_says_of_one_job(told, state):
    """States, exit codes and comments as the PBS User's Guide has them."""
    (sighting,) = read_jobs(json.dumps({"Jobs": {"1.fake": JOB | told}}), now=1000.0)
    assert (sighting.id, sighting.name, sighting.state) == ("1.fake", "stream-1", state)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"partition": "a; rm -rf x"}, "partition"),
        ({"account": "a b"}, "account"),
        ({"qos": "high"}, "qos"),
        ({"scheduler_options": ["#SBATCH --exclusive"]}, "scheduler_options.0"),
        ({"scheduler_options": ["#PBS -m n\nrm -rf x"]}, "scheduler_options.0"),
    ],
)
def test_a_section_that_can_not_be_used(fields, param):
    """What would become a shell line of somebody else's is refused, by the name of its field."""
    with pytest.raises(ConfigError) as caught:
        PbsPro(ParslConfig.model_validate({"scheduler": "pbspro", **fields}))
    assert caught.value.param == param


def test_a_folder_that_can_not_be_used(tmp_path):
    """A path with a blank would be two words for qsub."""
    config = ClusterConfig.model_validate({"name": "here", "backend": "parsl", "parsl": {"scheduler": "pbspro"}})
    with pytest.raises(ConfigError, match="may hold letters, digits"):
        open_cluster(config, command=[], state_dir=tmp_path / "a b", stop_grace_s=1)
