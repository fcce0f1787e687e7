"""The built images at work: `make test-images`, after `make images`; elsewhere skipped, since it needs them.

The overlay of one machine, each container in its own image with the manifest's user, read-only root and no capability.
"""

import asyncio
from pathlib import Path

import pytest
import pytest_asyncio
from deploy.cluster import run_cluster
from deploy.containers import run_containers, why_no_images
from deploy.load import Load
from deploy.rendered import why_no_kubectl

_REASON = why_no_images() or why_no_kubectl()
pytestmark = [
    pytest.mark.process,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(bool(_REASON), reason=_REASON),
]
SERVICES = ("judge", "summarizer", "relay", "hpc-dispatch", "gateway")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory):
    """All pods, ready."""
    folder = tmp_path_factory.mktemp("images")
    with run_containers(folder / "containers") as images:
        async with run_cluster("single-node", folder / "cluster", images) as running:
            yield running


async def test_every_container_is_nobody(cluster):
    """Each process is the manifest's user, without a capability or a way to one, and its root can't be written."""
    for pod in cluster.pods:
        for process in pod.processes.values():
            [inside] = _children(process.pid)
            told = dict(line.split(":\t", 1) for line in _text(inside, "status").splitlines() if ":\t" in line)
            assert told["Uid"].split() == ["10001"] * 4
            assert {int(told[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
            assert told["NoNewPrivs"] == "1"
            roots = [line.split() for line in _text(inside, "mounts").splitlines() if line.split()[1] == "/"]
            assert roots[-1][3].split(",")[0] == "ro"


async def test_a_request_goes_through_all_images(cluster):
    """The local engine answers, and through dispatch, broker and relay a worker does; the judge scores."""
    folder = cluster.installation.folder
    key = (folder / "admin.key").read_text().strip()
    load = Load(f"https://{cluster.hosts['gateway']}:8080", key, folder / "authority" / "inside.pem")
    async with load.session() as session:
        for model in ("hpc", "local", "auto"):
            assert await load.ask(session, model) == ""
    assert load.answers["hpc"] >= 1


async def test_all_end_in_time(cluster):
    """SIGTERM reaches every program in its container, and ends it within its grace period."""
    for names in (SERVICES, ("nats",)):  # the broker last: nobody leaves without saying goodbye to it
        await asyncio.gather(*(cluster.remove(pod) for name in names for pod in cluster.of(name)))
    for ending in cluster.endings:
        assert ending.took_s < ending.grace_s, ending
        assert set(ending.codes.values()) <= {0, 1 if ending.name.startswith("nats") else 0}, ending


def _children(pid):
    """The processes that one has started."""
    return [int(each) for each in _text(pid, f"task/{pid}/children").split()]


def _text(pid, name):
    return Path(f"/proc/{pid}/{name}").read_text()
