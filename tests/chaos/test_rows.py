"""Nothing lost: each row does the deed to real processes while 64 streams run, and compares byte for byte.

How long the pauses were is printed by `make chaos`; here it is only shown that nothing is lost.
"""

import asyncio
from collections.abc import Iterator

import pytest
from chaos import deeds

from stream_core.testing.road import Road, run_road, wait_hot

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def road(tmp_path_factory) -> Iterator[Road]:
    """Two relays behind a network that can be cut, two workers, judge and summarizer."""
    with run_road(tmp_path_factory.mktemp("road"), relays=2, workers=2, judge=True, gates=True) as running:
        asyncio.run(wait_hot(running, workers=2))
        yield running


@pytest.mark.parametrize(
    "deed",
    [
        deeds.kill_relay,
        deeds.drain_relay,
        deeds.restart_broker,
        deeds.drop_broker_clients,
        deeds.freeze_gateway,
        deeds.cut_network,
        deeds.kill_service("judge"),
        deeds.kill_service("summarizer"),
        deeds.kill_service("hpc_dispatch"),
    ],
    ids=[
        "relay killed",
        "relay drained",
        "broker restarted",
        "broker drops its clients",
        "gateway frozen",
        "network cut",
        "judge killed",
        "summarizer killed",
        "dispatch killed",
    ],
)
async def test_streams_go_on(road, deed):
    """Every stream's bytes are those of an undisturbed run: none lost, doubled or reordered."""
    await wait_hot(road, workers=2)
    outcome = await deeds.under_load(road, deed)
    assert outcome.lost == 0, outcome.complaints


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Iterator[Road]:
    """A road whose broker keeps little for a client that does not read."""
    with run_road(tmp_path_factory.mktemp("small"), relays=2, broker_limits=deeds.SMALL_BROKER) as running:
        yield running


@pytest.mark.parametrize(
    ("deed", "who"), [(deeds.starve_gateway, "gateway"), (deeds.starve_relay, "relay")], ids=["gateway", "relay"]
)
async def test_broker_disconnects_a_slow_consumer(small, deed, who):
    """nats-server itself disconnects who does not read; the streams' bytes are those of an undisturbed run."""
    await wait_hot(small)
    outcome = await deeds.under_load(small, deed, script=deeds.FAST_SCRIPT)
    assert who in small.brokers[0].slow_consumers()
    assert outcome.lost == 0, outcome.complaints


async def test_worker_killed(road):
    """The answers of a killed worker go on on the other one: every client's text is the undisturbed one."""
    await wait_hot(road, workers=2)
    outcome = await deeds.under_load(road, deeds.kill_worker, compare=deeds.text_of)
    assert outcome.lost == 0, outcome.complaints


async def test_one_node_of_three_brokers(tmp_path):
    """A node of a three-node broker cluster is killed: every stream goes on through the others."""
    with run_road(tmp_path, brokers=3) as road:
        await wait_hot(road)
        outcome = await deeds.under_load(road, deeds.kill_broker_node)
        assert outcome.lost == 0, outcome.complaints


async def test_client_leaves(road):
    """A client that leaves aborts the engine's request, and no worker counts it any more."""
    await wait_hot(road, workers=2)
    async with asyncio.timeout(60):
        assert await deeds.leave(road) > 0
        await deeds.leave_nothing(road)


async def test_gateway_drains(road):
    """A gateway told to stop says so at once, finishes what runs, and takes nothing new."""
    await wait_hot(road, workers=2)
    gateway = road.services["gateway"]
    refused = deeds.Watch()

    async def terminate(running: Road) -> None:
        gateway.process.terminate()
        while await deeds.ready_status(running) == 200:
            pass  # the signal is on its way
        assert await deeds.ready_status(running) == 503
        async with deeds.client(running) as session:
            await deeds.watch(running, session, refused, {"tokens": 1})

    outcome = await deeds.under_load(road, terminate)
    assert outcome.lost == 0, outcome.complaints
    assert refused.status == 503
    assert await asyncio.to_thread(gateway.process.wait, 20) == 0
    await asyncio.to_thread(road.start_service, "gateway")
