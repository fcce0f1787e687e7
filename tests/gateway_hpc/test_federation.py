"""Two clusters offer one model: who answers, who may, and what happens when one of them is gone."""

import asyncio
import json
from typing import Any

import nats
import openai
import pytest
from gateway.stage import error_of, until
from gateway_hpc.dispatched import Scene, cluster
from nats.aio.msg import Msg

from stream_core.ids import new_id
from stream_core.rpc import hpc_dispatch_pb2
from stream_core.wire import subjects

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
SCRIPT = {"continue": "vllm", "tokens": 60, "text": " w{n}", "interval_ms": 20}
PATIENCE_S = 30.0
TEXT = "".join(f" w{n}" for n in range(60))


async def pair(stage: Scene, **alpha: Any) -> tuple[hpc_dispatch_pb2.Worker, hpc_dispatch_pb2.Worker]:
    """A worker on each of two clusters; alpha is the site's favourite."""
    first = cluster("alpha", **alpha) | {"priority": 1}
    await stage.play(first, cluster("beta", **alpha))
    mine, other = await stage.hire("alpha"), await stage.hire("beta")
    await stage.dispatch.say("alpha", "hot", mine)
    await stage.dispatch.say("beta", "hot", other)
    await both_hot(stage)
    # The gateway is the module's: what another test's alpha did counts against this one for some seconds.
    async with asyncio.timeout(PATIENCE_S):
        while (await ask(stage))[0] != "alpha":  # noqa: ASYNC110  (see below)
            await asyncio.sleep(0.2)  # the gateway tells nobody when it forgets
    return mine, other


async def both_hot(stage: Scene) -> None:
    def hot(told: Any) -> bool:
        return [of["state"] for of in told["stream"]["clusters"]] == ["hot", "hot"]

    await stage.told("/v1/models/hpc", hot)


async def ask(stage: Scene, model: str = "hpc", **fields: Any) -> tuple[str, str]:
    """A short answer: (cluster, reason)."""
    async with stage.ask(model, script={"tokens": 2}, **fields) as response:
        assert response.status == 200
        await response.read()
        return response.headers["x-stream-cluster"], response.headers["x-stream-reason"]


async def read(stage: Scene, model: str, *, killing: bytes | None) -> tuple[str, bytes]:
    """Read an answer and kill a worker in its middle: (cluster that began, body)."""
    body = b""
    async with stage.ask(model, script=SCRIPT) as response:
        async for data in response.content.iter_any():
            body += data
            if killing is not None and b" w5" in body:
                stage.programs[killing].process.kill()
                await stage.dispatch.say("alpha", "offline", reason="its nodes are gone")
                killing = None
        return response.headers["x-stream-cluster"], body


def text_of(body: bytes) -> str:
    """All deltas."""
    chunks = [json.loads(line[6:]) for line in body.split(b"\n\n") if line.startswith(b"data: {")]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", ()))


async def test_any_cluster_and_a_named_one(stage: Scene) -> None:
    """`hpc/<model>` goes by priority among equals, `hpc/<cluster>/<model>` to that one; header and reason say which."""
    await pair(stage)
    name, reason = await ask(stage)
    assert name == "alpha"
    assert reason.startswith("named by the caller; on alpha")
    assert (await ask(stage, "hpc/scripted"))[0] == "alpha"
    for name in ("alpha", "beta"):
        assert (await ask(stage, f"hpc/{name}/scripted"))[0] == name
    # A line is written once its answer is out.
    await until(lambda: stage.gateway.lines("request")[-1].get("cluster") == "beta")
    async with stage.ask("hpc/gamma/scripted") as response:
        assert response.status == 404


async def test_a_key_for_one_cluster(stage: Scene) -> None:
    """Its requests go there only, other clusters are not shown to it, and are 403 where it names them."""
    await pair(stage)
    assert (await ask(stage, key="beta only"))[0] == "beta"
    async with stage.ask("hpc/alpha/scripted", key="beta only") as response:
        assert response.status == 403
        assert "may not use the cluster 'alpha'" in error_of(await response.read())["message"]
    listed = await stage.get("/v1/models", key="beta only")
    assert [entry["id"] for entry in listed["data"]] == ["auto", "hpc", "hpc/scripted", "hpc/beta/scripted"]
    assert "alpha" not in json.dumps([listed, await stage.get("/v1/tiers", key="beta only")])


@pytest.mark.parametrize("model", ["hpc", "hpc/scripted"])
async def test_an_answer_goes_on_on_another_cluster(stage: Scene, model: str) -> None:
    """The cluster that answers dies in mid-answer: the other one goes on, and the client reads one whole text."""
    mine, _ = await pair(stage)
    began, body = await read(stage, model, killing=mine.lease_id)
    assert (began, text_of(body)) == ("alpha", TEXT)
    assert b'"continued":1' in body
    assert body.endswith(b"data: [DONE]\n\n")
    assert (await ask(stage))[0] == "beta"


async def test_a_named_cluster_is_never_replaced(stage: Scene) -> None:
    """Who names a cluster that is gone gets an error with its reason, and so does a key that may use no other."""
    _, _ = await pair(stage)
    await stage.dispatch.say("beta", "offline", reason="its nodes are gone")
    await stage.told("/v1/models/hpc", lambda told: told["stream"]["clusters"][1]["state"] == "offline")
    for model, key in (("hpc/beta/scripted", "all"), ("hpc", "beta only")):
        async with stage.ask(model, key=key) as response:
            assert response.status == 503
            assert "its nodes are gone" in error_of(await response.read())["message"]


async def test_an_unreachable_cluster_costs_no_error(stage: Scene) -> None:
    """A worker that nobody can reach is passed over before the first byte, and its cluster comes last for a while."""
    _, other = await pair(stage)
    ghost = hpc_dispatch_pb2.Worker()
    ghost.CopyFrom(other)
    ghost.lease_id, ghost.cluster = new_id(), "alpha"
    opened = 0

    async def count(_message: Msg) -> None:
        nonlocal opened
        opened += 1

    listener = await nats.connect(stage.parts.nats_url)
    await listener.subscribe(subjects.lease_in(ghost.lease_id), cb=count)
    await listener.flush()
    # Between the two workers it is seen to be away: "hot" is then the ghost's.
    await stage.dispatch.say("alpha", "offline", reason="between two workers")
    await stage.told("/v1/models/hpc", lambda told: told["stream"]["clusters"][0]["state"] == "offline")
    await stage.dispatch.say("alpha", "hot", ghost)
    await both_hot(stage)
    assert (await ask(stage))[0] == "beta"
    await listener.flush()
    assert (tried := opened) > 0
    assert (await ask(stage))[0] == "beta"
    await listener.flush()
    assert opened == tried, "the ghost was not asked again"
    await listener.close()


async def test_states_that_users_see(stage: Scene) -> None:
    """Each cluster's state with queue, estimate and reason; the best of them is the model's; ids pin a cluster."""
    await stage.play(cluster("alpha"), cluster("beta"), cluster("gamma"))
    await stage.dispatch.say("alpha", "starting", reason="in the queue", queue_position=3, starting=1, in_s=40)
    await stage.dispatch.say("beta", "offline", reason="its endpoint is offline")
    worker = await stage.hire("gamma")
    told = await stage.told("/v1/models/hpc", lambda told: told["stream"]["clusters"][1]["state"] == "offline")
    state = told["stream"]
    assert (state["state"], state["queue_position"]) == ("starting", 3)
    assert 0 < state["ready_in_s"] <= 40
    alpha, beta, gamma = state["clusters"]
    assert (alpha["name"], alpha["state"], alpha["starting"], alpha["queue_position"]) == ("alpha", "starting", 1, 3)
    assert (beta["state"], beta["reason"], beta["ready_in_s"]) == ("offline", "its endpoint is offline", None)
    assert (gamma["state"], gamma["ready"]) == ("cold", 0)
    await stage.dispatch.say("gamma", "hot", worker, reason="1 of 1 workers ready")
    told = await stage.told("/v1/models/hpc", lambda told: told["stream"]["state"] == "hot")
    assert (told["stream"]["reason"], told["stream"]["ready_in_s"]) == (None, None)
    await ask(stage)
    gamma = (await stage.get("/v1/models/hpc/gamma/scripted"))["stream"]["clusters"][0]
    assert (gamma["ready"], gamma["first_token_ms"] > 0) == (1, True)
    assert worker.lease_id.hex() not in json.dumps(await stage.get("/v1/models"))


async def test_the_official_client_lists_them(stage: Scene, cloud: dict[str, Any]) -> None:
    """`models.list()` reads the list, with the states as extra fields; /v1/tiers has the tiers in their order."""
    await stage.play(cluster("alpha"), cluster("beta"), tiers=(cloud,))
    key = stage.gateway.stage.keys["all"]
    async with openai.AsyncOpenAI(base_url=f"{stage.gateway.url}/v1", api_key=key, max_retries=0) as client:
        models = {model.id: model.stream for model in (await client.models.list()).data}
    assert list(models) == [
        *("auto", "hpc", "cloud", "hpc/scripted", "hpc/alpha/scripted", "hpc/beta/scripted", "cloud/cloud-model"),
    ]
    assert (models["hpc"]["state"], models["hpc"]["reason"]) == (
        "cold",
        "alpha: no worker runs; beta: no worker runs",
    )
    assert [of["name"] for of in models["hpc/beta/scripted"]["clusters"]] == ["beta"]
    tiers = await stage.told("/v1/tiers", lambda told: told["data"][1]["state"] == "hot")
    assert tiers["object"] == "list"
    assert [(of["id"], of["kind"], of["privacy"], of["state"]) for of in tiers["data"]] == [
        ("hpc", "hpc", "restricted", "cold"),
        ("cloud", "http", "restricted", "hot"),
    ]
    assert [model["model"] for model in tiers["data"][0]["models"]] == ["scripted"]
    assert [of["state"] for of in tiers["data"][0]["models"][0]["clusters"]] == ["cold", "cold"]


async def test_a_cluster_that_dispatch_does_not_know(stage: Scene) -> None:
    """A pool of the deployment that hpc_dispatch says nothing of is offline, and who names it hears why."""
    await stage.play(cluster("alpha"), cluster("beta"))
    stage.dispatch.forget()
    await stage.dispatch.say("beta", "cold")
    await stage.told("/v1/models/hpc", lambda told: told["stream"]["clusters"][0]["state"] == "offline")
    async with stage.ask("hpc/alpha/scripted") as response:
        assert response.status == 503
        assert "hpc_dispatch runs no such pool" in error_of(await response.read())["message"]
