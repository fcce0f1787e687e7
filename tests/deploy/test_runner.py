"""The overlay of one machine, run as it stands: every pod ready by its own probes, a real request through all of them.

The steps follow one another on one cluster, as an operator's would.
"""

import asyncio
import re

import aiohttp
import pytest
import pytest_asyncio
from deploy.cluster import run_cluster
from deploy.load import Load
from deploy.rendered import why_no_kubectl

pytestmark = [
    pytest.mark.process,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(bool(why_no_kubectl()), reason=why_no_kubectl()),
]
SERVICES = ("judge", "summarizer", "relay", "hpc-dispatch", "gateway")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory):
    """All pods, ready."""
    async with run_cluster("single-node", tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def load(cluster):
    """Who asks."""
    folder = cluster.installation.folder
    key = (folder / "admin.key").read_text().strip()
    return Load(f"https://{cluster.hosts['gateway']}:8080", key, folder / "authority" / "inside.pem")


async def test_every_pod_is_ready(cluster):
    """Each container started and answers its readiness probe."""
    assert {name for name in SERVICES if cluster.of(name)} == set(SERVICES)
    assert all(pod.ready for pod in cluster.pods)


async def test_a_request_goes_through_all_of_them(cluster, load):
    """The judge is asked, the local engine answers; and through dispatch, broker and relay a worker does."""
    async with load.session() as session:
        # The worker is a job that starts: who asks for it waits.
        for model in ("hpc", "local"):
            assert await load.ask(session, model) == ""
        await all_asked(cluster, load, session)
    assert load.answers["hpc"] >= 1
    assert load.answers["local"] >= 1


async def test_two_judges_take_turns(cluster, load):
    """A judge that is added is found and asked by a gateway that runs: within 30 s its connections are made anew."""
    await cluster.add("judge")
    async with load.session() as session:
        await all_asked(cluster, load, session)


async def test_two_relays(cluster, load):
    """A relay that is added is ready, and takes the workers of one that goes."""
    await cluster.add("relay")
    assert all(pod.ready for pod in cluster.of("relay"))


@pytest.mark.parametrize("name", SERVICES)
async def test_a_rollout_fails_nobody(cluster, load, name):
    """Every pod of a service is replaced while people ask all tiers: no request fails."""
    before, asked = {pod.name for pod in cluster.of(name)}, load.answers.total()
    async with load.running(("auto", "local", "hpc")):
        await cluster.roll(name)
    assert load.failures == []
    assert load.answers.total() > asked
    assert not before & {pod.name for pod in cluster.of(name)}


async def test_nobody_was_sick(cluster):
    """No liveness probe failed on the way."""
    assert [name for pod in cluster.pods for name in pod.sick] == []


async def test_all_end_in_time(cluster):
    """SIGTERM ends every container within its grace period, of its own accord."""
    for names in (SERVICES, ("nats",)):  # the broker last: nobody leaves without saying goodbye to it
        await asyncio.gather(*(cluster.remove(pod) for name in names for pod in cluster.of(name)))
    for ending in cluster.endings:
        assert ending.took_s < ending.grace_s, ending
        # nats-server says 1 after lame duck mode is over.
        assert set(ending.codes.values()) <= {0, 1 if ending.name.startswith("nats") else 0}, ending


async def all_asked(cluster, load, session):
    """Ask until every judge has scored a request since now."""
    before = {pod.name: await scored(pod) for pod in cluster.of("judge")}
    async with asyncio.timeout(120):
        while any([await scored(pod) <= before[pod.name] for pod in cluster.of("judge")]):
            # The judge remembers what it was asked, and counts that all the same.
            assert await load.ask(session, "auto", tokens=4) == ""


async def scored(judge):
    """How many requests a judge has scored, by its own metrics."""
    url = f"http://{judge.places.address}:{judge.ports['metrics']}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        found = re.search(r"^stream_judge_seconds_count (\d+)", await answer.text(), re.MULTILINE)
    return int(found[1]) if found else 0
