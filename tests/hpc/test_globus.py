"""Backend `globus` with the real SDK, the real endpoint agent, a real RabbitMQ and a real Slurm.

Only the web service is a stand-in (`hpc/globus/README.md`). The first half asks the backend itself, whose worker is a
shell; the second half is the whole product, from the client's HTTP request to the engine behind a worker that Globus
Compute started.
"""

import asyncio
import contextlib
import json
import re
import time
import uuid

import aiohttp
import psutil
import pytest
from hpc.globus import standin
from hpc.globus.endpoint import run_endpoint
from hpc.globus.lab import run_lab, why_not
from hpc.slurm import run_slurm
from hpc.slurm import why_not as why_no_slurm

from stream_core.cluster_config import ClusterConfig
from stream_core.testing.engine import MODEL
from stream_core.testing.road import run_road, wait_hot
from stream_core.wire.job import EngineSpec, PilotJob
from stream_hpc_dispatch.clusters.base import Place, SubmitFailed

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(bool(why_not() or why_no_slurm()), reason=why_not() or why_no_slurm()),
]

SUBMIT = "POST /v3/endpoints/.*/submit"
TRIAL = {"trial": True, "max_jobs": 4}
SLURM = {"walltime": "00:10:00", "cores": 1, "exclusive": False, "address": "127.0.0.1"}
HOT_S = 150.0
"""For user endpoint, batch job and worker; each starts a Python that imports much."""
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with run_lab(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture(scope="module")
def batch(lab):
    """A Slurm in the lab's network: its nodes must reach relay and endpoint."""
    with run_slurm() as running:
        yield running


@pytest.fixture(scope="module")
def function(lab):
    return lab.register_function()


@pytest.fixture(scope="module")
def site(lab, batch, function):
    """The institution's endpoint: the shipped template, one function allowed."""
    with run_endpoint(lab.endpoint("site", [function], batch.env)) as running:
        yield running


@pytest.fixture(autouse=True)
def known_routes(lab):
    """The stand-in was asked nothing that it only pretends to know."""
    yield
    standin.set_faults()
    assert standin.show("unknown") == []


@contextlib.contextmanager
def backend(lab, site, function, command, **more):
    """The backend itself, in this process, with a worker that is a shell."""
    from stream_hpc_dispatch.clusters.globus import GlobusCluster  # noqa: PLC0415  (its SDK looks for the lab)

    with pytest.MonkeyPatch.context() as patch:
        for name, value in lab.env.items():
            patch.setenv(name, value)
        section = lab.section(site.id, function_id=function, user_endpoint_config=TRIAL, **more)
        cluster = GlobusCluster(
            ClusterConfig.model_validate(
                {"name": "site", "backend": "globus", "worker_command": ["sh", "-c", command], "globus": section}
            )
        )
        # Whatever else goes wrong: nothing here has ever spoken to anybody's real service.
        assert cluster._service._client.web_service_address == standin.URL
        yield cluster


def pilot(expires_in_s=600.0):
    return PilotJob(
        lease=uuid.uuid4().hex,
        bootstrap_secret=b"s" * 32,
        ticket="ticket",
        relays=["ws://127.0.0.1:1"],
        expires_unix_s=time.time() + expires_in_s,
        models=[],
        engine=EngineSpec(),
    )


def tasks(job):
    """What the service has of a lease."""
    from stream_hpc_dispatch.clusters.globus_jobs import group_of  # noqa: PLC0415

    return [one for one in standin.show("task").values() if one["task_group_id"] == str(group_of(job.lease))]


async def test_the_job_reaches_the_worker_and_its_end_comes_back(lab, site, function):
    """The job arrives on standard input; exit code and the end of the log return."""
    job = pilot()
    with backend(lab, site, function, "cat; echo; echo to stderr >&2; exit 3") as cluster:
        handle = await cluster.submit(job)
        view = await cluster.look(handle)
        ended = await cluster.observe(handle)
    assert view.place in {Place.QUEUED, Place.UNKNOWN}
    assert ended.exit_code == 3
    assert json.loads(ended.tail.splitlines()[0])["lease"] == job.lease
    assert ended.tail.splitlines()[-1] == "to stderr"
    assert not ended.reason


async def test_no_engine_stays_behind(lab, site, function, tmp_path):
    """A worker's whole process group ends with it, and it has nothing of the agent's credentials."""
    with backend(lab, site, function, f"sleep 600 & echo $! >{tmp_path}/pid; env") as cluster:
        ended = await cluster.observe(await cluster.submit(pilot()))
    assert ended.exit_code == 0
    child = int((tmp_path / "pid").read_text())
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(child).wait(10)
    assert not psutil.pid_exists(child)
    assert lab.client[1] not in ended.tail
    assert "STREAM_DIE_WITH_PARENT=1" in ended.tail


async def test_a_worker_that_is_not_installed(lab, site, function):
    """The reason names what the operator has to install, and where."""
    with backend(lab, site, function, "true") as cluster:
        cluster._command = ["no-such-worker"]
        ended = await cluster.observe(await cluster.submit(pilot()))
    assert "no-such-worker: No such file or directory (on " in ended.reason


async def test_a_job_that_waited_past_its_lease_does_not_start(lab, site, function):
    """A job that comes out of a queue after its lease starts nothing."""
    with backend(lab, site, function, "true") as cluster:
        ended = await cluster.observe(await cluster.submit(pilot(expires_in_s=-1.0)))
    assert "its lease ended while it waited" in ended.reason


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (403, "may not use the endpoint"),
        (404, "knows no such endpoint"),
        (413, "larger than Globus Compute takes"),
        (422, "user_endpoint_config"),
        (423, "locked by its owner"),
        (429, "rate limit"),
    ],
)
async def test_a_refused_job_says_why_and_the_next_one_runs(lab, site, function, status, words):
    """A refusal is told at once, in words; nothing of the job is left; the same backend takes the next job."""
    job = pilot()
    with backend(lab, site, function, "true") as cluster:
        standin.set_faults({"route": SUBMIT, "status": status})
        with pytest.raises(SubmitFailed, match=words):
            await cluster.submit(job)
        assert tasks(job) == []
        assert (await cluster.observe(await cluster.submit(pilot()))).exit_code == 0


@pytest.mark.parametrize("fault", [{"drop": "after"}, {"delay_s": 3.0}], ids=["answer lost", "answer late"])
async def test_a_job_whose_answer_was_lost_is_found(lab, site, function, fault):
    """The service took the job and its answer did not come: it is found, and it is not sent again."""
    job = pilot()
    standin.set_faults({"route": SUBMIT, **fault})
    with backend(lab, site, function, "exit 4", submit_timeout_s=1.0) as cluster:
        ended = await cluster.observe(await cluster.submit(job))
    assert ended.exit_code == 4
    assert len(tasks(job)) == 1


@pytest.mark.parametrize("fault", [{"drop": "before"}, {"status": 500}], ids=["hung up", "500"])
async def test_a_job_that_was_not_taken_ends(lab, site, function, fault):
    """The service never took the job and did not say so: it ends, with the reason."""
    job = pilot()
    standin.set_faults({"route": SUBMIT, **fault})
    with backend(lab, site, function, "true", submit_timeout_s=1.0) as cluster:
        ended = await cluster.observe(await cluster.submit(job))
    assert ended.exit_code is None
    assert re.search("can't be reached|has a fault", ended.reason)
    assert tasks(job) == []


async def test_a_service_that_is_away_is_asked_again(lab, site, function):
    """The stand-in is killed and comes back with all that it knew: the job's end is heard, its state was told."""
    with backend(lab, site, function, "sleep 2; exit 5") as cluster:
        handle = await cluster.submit(pilot())
        lab.program.process.kill()
        lab.program.process.wait()
        cluster._health_at = 0.0
        health = await cluster.health()
        assert not health.online
        assert "can't be reached" in health.reason
        observing = asyncio.create_task(cluster.observe(handle))
        lab.start_service()
        assert (await observing).exit_code == 5


async def test_an_end_that_is_never_told(lab, site, function, tmp_path):
    """A task that never resolves is over some time after its lease."""
    clock, told = [time.time()], tmp_path / "pid"
    with backend(lab, site, function, f"echo $$ >{told}; exec sleep 600") as cluster:
        cluster._clock = lambda: clock[0]
        handle = await cluster.submit(job := pilot())
        clock[0] += 600 + 121
        ended = await cluster.observe(handle)
        assert "its lease is over" in ended.reason
    await until(lambda: told.exists() and told.read_text().strip())
    psutil.Process(int(told.read_text())).kill()
    await until(lambda: tasks(job)[0]["status"] == "success")


async def test_what_an_earlier_run_left_is_found(lab, site, function):
    """A later run finds a job by its handle, and by its lease alone; not one that has ended, or never was."""
    with backend(lab, site, function, "sleep 3; exit 6") as cluster:
        handle = await cluster.submit(job := pilot())
    with backend(lab, site, function, "true") as cluster:
        by_lease = await cluster.recover(job.lease, None)
        by_handle = await cluster.recover(job.lease, handle)
        assert by_lease is not None
        assert by_handle == handle
        assert (await cluster.observe(by_lease)).exit_code == 6
        assert await cluster.recover(job.lease, handle) is None
    with backend(lab, site, function, "true", submit_timeout_s=1.0) as cluster:
        # Whether this one is still on its way to the service, nobody can know at once.
        never = await cluster.recover(uuid.uuid4().hex, handle)
        assert never not in {None, handle}
        assert "has no task of it" in (await cluster.observe(never)).reason
    assert len(tasks(job)) == 1


async def test_tokens_that_end_are_renewed(lab, site, function):
    """All tokens are revoked: each next request gets a new one, and is made once."""
    job = pilot()
    with backend(lab, site, function, "true") as cluster:
        assert (await cluster.health()).online
        standin.revoke_tokens()
        handle = await cluster.submit(job)
        standin.revoke_tokens()
        assert (await cluster.observe(handle)).exit_code == 0
    assert len(tasks(job)) == 1


async def test_credentials_that_are_refused(lab, site, function, tmp_path):
    """A wrong secret is told as one, to who asks for health and to who submits."""
    wrong = tmp_path / "secret"
    wrong.write_text("wrong")
    wrong.chmod(0o600)
    with backend(lab, site, function, "true", client_secret_file=str(wrong)) as cluster:
        assert "client_secret_file is wrong" in (await cluster.health()).reason
        with pytest.raises(SubmitFailed, match="client_secret_file is wrong"):
            await cluster.submit(pilot())


async def test_another_function_is_not_run(lab, site):
    """The endpoint runs the one function that its operator allows."""
    with backend(lab, site, None, "true") as cluster, pytest.raises(SubmitFailed, match="not permitted"):
        await cluster.submit(pilot())


async def until(true, timeout_s=30.0):
    """Wait for what has no event."""
    async with asyncio.timeout(timeout_s):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.1)


# The whole product.


@contextlib.contextmanager
def product(folder, lab, site, function, config, **more):
    """Broker, relay, hpc_dispatch, gateway; workers come through the endpoint."""
    section = lab.section(site.id, function_id=function, user_endpoint_config=config)
    env = {**lab.env, "STREAM_HPC_DISPATCH__LOST_AFTER_S": "4", "STREAM_HPC_DISPATCH__REMOVE_AFTER_S": "1"}
    with run_road(folder, cluster={"backend": "globus", "globus": section}, env=env, **more) as road:
        yield road


@pytest.fixture(scope="module")
def road(tmp_path_factory, lab, site, function):
    """One for all tests on the endpoint's own machine."""
    with product(tmp_path_factory.mktemp("road"), lab, site, function, TRIAL) as running:
        asyncio.run(wait_hot(running, within_s=HOT_S))
        yield running


class Stream:
    """One client's stream, as long as it is wanted."""

    def __init__(self, road):
        self._road = road
        self._script = {"tokens": 100_000, "interval_ms": 50}
        self._body = b""
        self._news = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self):
        key = {"authorization": f"Bearer {self._road.api_key}"}
        asked = {"model": f"hpc/{MODEL}", "stream": True, "messages": MESSAGES, "script": self._script}
        async with (
            aiohttp.ClientSession(headers=key) as session,
            session.post(f"{self._road.gateway_url}/v1/chat/completions", json=asked) as response,
        ):
            assert response.status == 200, await response.text()
            reading = asyncio.create_task(self._read(response))
            await self.goes_on()
            yield
            await self.goes_on()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        text = said(self._body)
        assert text == await self._undisturbed(len(text)) != ""

    async def _read(self, response):
        async for data in response.content.iter_any():
            self._body += data
            self._news.set()

    async def goes_on(self):
        """More of the answer comes, again and again."""
        for _ in range(5):
            self._news.clear()
            async with asyncio.timeout(60):
                await self._news.wait()

    async def _undisturbed(self, length):
        """The engine's own answer, so long."""
        own = {"model": MODEL, "stream": True, "messages": MESSAGES, "script": {"tokens": 5_000, "interval_ms": 0}}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self._road.engine_url}/v1/chat/completions", json=own) as response,
        ):
            return said(await response.read())[:length]


def said(body):
    """The text of an answer."""
    lines = body.decode().rpartition("\n\n")[0].splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def streaming(road):
    """A stream goes on while the block does, and after it; all of it is what the engine said."""
    return Stream(road).running()


def started():
    """Ids of all tasks that the service ever took."""
    return set(standin.show("task"))


async def test_a_chat_through_a_worker_of_the_endpoint(road):
    """A streamed answer, byte for byte the engine's, by a worker that Globus Compute started."""
    async with streaming(road):
        pass
    assert len(road.workers()) == 1


async def test_rabbitmq_restarts(lab, road, site):
    """The broker between service and endpoint is killed and started again: the stream and the worker go on."""
    before, workers = started(), road.workers()
    async with streaming(road):
        lab.rabbit.kill()
        await asyncio.to_thread(lab.rabbit.start)
    heard = time.time()
    await until(lambda: standin.show("endpoint")[site.id]["heard"] > heard)
    assert (road.workers(), started()) == (workers, before)


async def test_tokens_end_while_a_worker_runs(road):
    """All tokens are revoked: nothing of it is seen."""
    before, workers = started(), road.workers()
    async with streaming(road):
        standin.revoke_tokens()
        await until(lambda: standin.show("token"))
    assert (road.workers(), started()) == (workers, before)


async def test_dispatch_is_killed_and_finds_its_worker_again(road):
    """Kill -9 of hpc_dispatch while a worker streams: the next run takes the job over, and submits none."""
    before, workers = started(), road.workers()
    async with streaming(road):
        road.services["hpc_dispatch"].process.kill()
        road.services["hpc_dispatch"].process.wait()
        road.start_service("hpc_dispatch")
        await until(lambda: "took a worker over" in road.services["hpc_dispatch"].log())
    async with streaming(road):
        pass
    assert (road.workers(), started()) == (workers, before)


async def test_a_worker_that_ends_is_replaced_and_its_end_is_known(road):
    """A killed worker's end comes back through Globus Compute, and a new one takes its place."""
    (worker,) = road.workers()
    before = started()
    standin.set_faults(*({"route": SUBMIT, "status": status} for status in (403, 429)))
    worker.kill()
    await until(lambda: len(started() - before) == 1)
    await wait_hot(road, within_s=HOT_S)
    assert worker not in road.workers()
    (new,) = [task for task in standin.show("task").values() if "completion_t" not in task]
    assert new["task_id"] not in before


async def test_stopped_dispatch_leaves_nothing(road):
    """SIGTERM: workers get STOP over the relay, end by themselves, and their end comes back; no process is left."""
    workers = road.workers()
    (task,) = [name for name, task in standin.show("task").items() if "completion_t" not in task]
    program = road.services["hpc_dispatch"]
    assert await asyncio.to_thread(program.stop, 30.0) == 0, program.log()
    assert not any(worker.is_running() for worker in workers)
    result = json.loads(standin.show("task")[task]["result"].partition("\n")[2])
    assert result["exit_code"] == 0
    assert "told to stop by hpc_dispatch" in result["tail"]


async def test_a_chat_through_a_job_of_slurm_while_the_endpoint_is_killed(tmp_path, lab, batch, site, function):
    """The endpoint is killed: the cluster is offline, the stream goes on. It comes back: a new worker does, too.

    In the end nothing is left in Slurm's queue or among the processes.
    """
    with product(tmp_path, lab, site, function, SLURM) as road:
        await wait_hot(road, within_s=HOT_S)
        (job,) = batch.jobs()
        async with streaming(road):
            with backend(lab, site, function, "true") as cluster:
                assert (await cluster.health()).online
                site.kill()
                await until(lambda: standin_says(site) == "offline")
                cluster._health_at = 0.0
                health = await cluster.health()
            assert not health.online
            assert "offline" in health.reason
            assert batch.jobs() == {job: "RUNNING"}
        async with streaming(road):
            pass
        site.start()
        (worker,) = road.workers()
        worker.kill()
        await until(lambda: worker not in road.workers() and road.workers(), HOT_S)
        await wait_hot(road, within_s=HOT_S)
        assert await asyncio.to_thread(road.services["hpc_dispatch"].stop, 30.0) == 0
        assert road.workers() == []
        assert await asyncio.to_thread(batch.wait_empty, 60.0) == ""


def standin_says(site):
    """Whether the service takes the endpoint for online."""
    endpoint = standin.show("endpoint")[site.id]
    return "online" if time.time() - endpoint["heard"] < 2 * endpoint["report"]["heartbeat_period"] else "offline"
