"""The pool as gateways see it, and how it is handed out."""

import asyncio

import pytest
from msgspec.structs import replace

from stream_core.envelope.keys import WorkerKey
from stream_core.rpc import hpc_dispatch_pb2 as pb
from stream_core.wire.payloads import Announcement, ModelOffer
from stream_hpc_dispatch.feed import PoolFeed
from stream_hpc_dispatch.leases import Lease
from stream_hpc_dispatch.plan import ClusterSpec, ClusterState, Phase, Pilot, PoolKey, PoolSpec, PoolState, State
from stream_hpc_dispatch.pool import model_state, snapshot
from stream_hpc_dispatch.states import Outcome

SPEC = PoolSpec(PoolKey("here", "tiny"), 1, 2, 3600, 60)
OFFERS = [ModelOffer("tiny", "tiny-q4", 4096, demo=True)]
STARTING, READY, DRAINING, LOST = (Pilot(1, phase, 0.0, 100.5) for phase in Phase)


def pool(*pilots, **changes):
    """A pool with these pilots."""
    return PoolState(SPEC, tuple(replace(pilot, number=index) for index, pilot in enumerate(pilots, 1)), **changes)


@pytest.mark.parametrize(
    ("state", "word", "reason"),
    [
        (pool(READY), "hot", "1 of 1 workers ready"),
        (pool(READY, LOST), "hot", "1 of 2 workers ready"),
        (pool(READY, failures=1, reason="x"), "hot", "1 of 1 workers ready"),
        (pool(STARTING), "starting", "a worker is starting"),
        (pool(replace(STARTING, note="loading")), "starting", "a worker is starting: loading"),
        (pool(DRAINING), "starting", "the last worker is on its way out, its successor follows"),
        (pool(), "starting", "a worker is about to be started"),
        (pool(LOST), "offline", "no sign of life from its workers"),
        (pool(LOST, STARTING), "starting", "a worker is starting"),
        (
            pool(failures=1, reason="no GPU"),
            "offline",
            "the last start failed: no GPU; the next try waits a little longer each time",
        ),
        (
            pool(STARTING, failures=3, reason="no GPU"),
            "offline",
            "3 starts in a row failed: no GPU; another try is under way",
        ),
        (
            replace(pool(failures=1, reason="no GPU"), spec=replace(SPEC, min_ready=0)),
            "offline",
            "the last start failed: no GPU; a request starts the next try",
        ),
        (replace(pool(), spec=replace(SPEC, min_ready=0)), "cold", "no worker runs; a request starts one"),
        (replace(pool(requested=True), spec=replace(SPEC, min_ready=0)), "starting", "a worker is about to be started"),
    ],
)
def test_model_state(state, word, reason):
    """One word and one sentence for every situation of a pool."""
    told = model_state(State((state,)), state)
    assert (told.id, told.cluster, told.state, told.reason) == ("tiny", "here", word, reason)
    assert model_state(State((state,), stopping=True), state).state == "offline"


WAITS = {"waits": (60.0, 90.0, 70.0), "startups": (20.0, 30.0, 25.0)}
QUEUED = replace(STARTING, queued=True, position=4, words="Priority", submitted=1000.0, ran_from=1010.0)


@pytest.mark.parametrize(
    ("state", "position", "ready_ms", "words"),
    [
        (pool(QUEUED), 4, 0, "a worker waits in its cluster's queue: Priority"),
        (pool(QUEUED, **WAITS), 4, 1_095_000, "a worker waits in its cluster's queue: Priority"),
        (
            pool(replace(QUEUED, starts=5000.5), **WAITS),
            4,
            5_025_000,
            "a worker waits in its cluster's queue: Priority",
        ),
        (pool(replace(QUEUED, queued=False, position=None), **WAITS), 0, 1_035_000, "a worker is starting"),
        (pool(QUEUED, replace(QUEUED, position=2), READY, **WAITS), 2, 0, "1 of 3 workers ready"),
    ],
)
def test_queue_and_estimate(state, position, ready_ms, words):
    """The first job's place in the queue, and when a worker will be ready as far as anything tells; no clock in it."""
    told = model_state(State((state,)), state)
    assert (told.queue_position, told.ready_unix_ms, told.reason) == (position, ready_ms, words)
    assert (told.ready, told.starting) == (sum(one.phase is Phase.READY for one in state.pilots), told.starting)
    assert told.starting == sum(one.phase is Phase.STARTING for one in state.pilots)


def test_a_failed_pool_tells_when_its_next_try_may_be_ready():
    """Requests may wait through a failed start's pause; not where no try follows soon, or none may be made."""
    failed = pool(failures=1, retry_at=2000.0, **WAITS)
    assert model_state(State((failed,)), failed).ready_unix_ms == 2_095_000
    spec = ClusterSpec("here")
    away = State((failed,), clusters=(ClusterState(spec, online=False, reason="away"),))
    given_up = replace(failed, failures=failed.spec.max_failures)
    assert model_state(away, failed).ready_unix_ms == 0
    assert model_state(State((given_up,)), given_up).ready_unix_ms == 0
    again_and_again = replace(failed, failures=4)
    assert model_state(State((again_and_again,)), again_and_again).ready_unix_ms == 0
    assert model_state(State((failed,), stopping=True), failed).ready_unix_ms == 0


def test_what_limits_a_cluster_is_told():
    """Each cluster with its priority, whether it is online, and the budget that stops a pool of it."""
    spec = ClusterSpec("here", priority=3)
    (told,) = snapshot(State((pool(),), clusters=(ClusterState(spec),)), lambda _: None, lambda _: OFFERS).clusters
    assert (told.name, told.priority, told.online, told.reason, told.failure_rate) == ("here", 3, True, "", 0)
    away = ClusterState(spec, online=False, reason="cluster 'here' is offline", outcomes=(Outcome(1, failed=True),))
    plan = State((pool(),), clusters=(away,))
    (told,) = snapshot(plan, lambda _: None, lambda _: OFFERS).clusters
    assert (told.online, told.reason, told.failure_rate) == (False, "cluster 'here' is offline", 1)
    assert model_state(plan, plan.pools[0]).reason == "cluster 'here' is offline"
    spent = State((pool(blocked="no hours left"),), clusters=(ClusterState(spec),))
    (told,) = snapshot(spent, lambda _: None, lambda _: OFFERS).clusters
    assert (told.online, told.reason) == (True, "no hours left")
    assert (model_state(spent, spent.pools[0]).state, model_state(spent, spent.pools[0]).reason) == (
        "offline",
        "no hours left",
    )
    hot = State((pool(READY, blocked="no hours left"),))
    assert model_state(hot, hot.pools[0]).reason == "1 of 1 workers ready; no further one is started: no hours left"


@pytest.mark.parametrize(
    ("pilot", "state"),
    [
        (STARTING, pb.WORKER_STATE_STARTING),
        (READY, pb.WORKER_STATE_READY),
        (DRAINING, pb.WORKER_STATE_DRAINING),
        (LOST, pb.WORKER_STATE_LOST),
        (replace(READY, stopping=True), pb.WORKER_STATE_DRAINING),
        (replace(LOST, stopping=True), pb.WORKER_STATE_LOST),
    ],
)
def test_worker_before_and_after_its_announcement(pilot, state):
    """Without a key the configured models are shown; with one, what the worker itself announced."""
    lease = Lease(b"L" * 16, 1, b"s" * 32)
    (worker,) = snapshot(State((pool(pilot),)), lambda _: lease, lambda _: OFFERS).workers
    assert (worker.lease_id, worker.cluster, worker.state, worker.expires_unix_ms) == (lease.id, "here", state, 100_500)
    assert ([model.id for model in worker.models], worker.x25519_public) == (["tiny"], b"")
    key = WorkerKey().public
    more = ModelOffer("tiny", "q4", 2048, ["text", "image"], ["tools"])
    lease.announcement = Announcement(key.mlkem768, key.x25519, [more], 7)
    (worker,) = snapshot(State((pool(pilot),)), lambda _: lease, lambda _: OFFERS).workers
    assert (worker.mlkem768_public, worker.x25519_public, worker.max_requests) == (key.mlkem768, key.x25519, 7)
    assert (worker.models[0].context_window, list(worker.models[0].modalities)) == (2048, ["text", "image"])
    assert (list(worker.models[0].capabilities), worker.models[0].demo) == (["tools"], False)


class Source:
    """A pool that the test changes."""

    def __init__(self):
        self.word = "cold"
        self.drawn = 0

    def __call__(self):
        self.drawn += 1
        return pb.Pool(models=[pb.ModelState(id="tiny", state=self.word)])


async def test_feed_gives_the_newest_and_skips_the_rest():
    """First message at once; a slow watcher gets the newest snapshot, not a queue; close ends it after the last."""
    source = Source()
    feed = PoolFeed(source, revision=5, interval_s=60)
    watch = feed.watch()
    assert (await anext(watch)).revision == 5
    for word in ("starting", "hot", "offline"):
        source.word = word
        feed.publish()
    pool = await anext(watch)
    assert (pool.revision, pool.models[0].state) == (8, "offline")
    source.word = "cold"
    feed.publish()
    feed.close()
    assert [pool.revision async for pool in watch] == [9]
    assert [pool.revision async for pool in feed.watch()] == [9]


async def test_feed_says_nothing_when_nothing_changed():
    """A change that leaves the pool as it was is no message."""
    feed = PoolFeed(Source(), revision=1, interval_s=60)
    feed.publish()
    watch = feed.watch()
    assert (await anext(watch)).revision == 1
    feed.close()
    assert [pool async for pool in watch] == []


async def test_feed_coalesces_changes():
    """Many changes within the interval are one snapshot: the first goes at once, the rest together."""
    source = Source()
    feed = PoolFeed(source, revision=1, interval_s=0.05)
    publishing = asyncio.create_task(feed.run())
    watch = feed.watch()
    await anext(watch)
    source.word = "starting"
    feed.changed()
    assert (await anext(watch)).models[0].state == "starting"
    for index in range(1000):
        source.word = f"word {index}"
        feed.changed()
        await asyncio.sleep(0)
    assert (await anext(watch)).models[0].state == "word 999"
    assert source.drawn == 3
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)
