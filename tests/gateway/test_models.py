"""GET /v1/models: what a key may use, and how it is doing."""

import aiohttp
import pytest
from gateway.stage import Gateway, chat, configure, error_of, tier
from gateway.upstream import DONE, FINISH, STREAM_HEAD, upstream

from stream_core.testing.engine import scripted_engine

PATH = "/v1/chat/completions"
pytestmark = pytest.mark.process


async def names(gateway: Gateway, client: aiohttp.ClientSession, key: str) -> list[str]:
    async with client.get(f"{gateway.url}/v1/models", headers=gateway.headers(key)) as response:
        assert response.status == 200
        listed = await response.json()
    assert listed["object"] == "list"
    for entry in listed["data"]:
        assert entry["object"] == "model"
        assert isinstance(entry["created"], int)
        assert entry["owned_by"]
    return [entry["id"] for entry in listed["data"]]


async def test_a_key_sees_what_it_may_use(gateway: Gateway, client: aiohttp.ClientSession) -> None:
    """`auto`, the tiers and their models; without the tiers that the key, or its privacy class, shuts out."""
    assert await names(gateway, client, "all") == ["auto", "local", "cloud", "local/local-model", "cloud/huge"]
    assert await names(gateway, client, "local only") == ["auto", "local", "local/local-model"]
    assert await names(gateway, client, "internal") == ["auto", "local", "local/local-model"]


async def test_every_listed_name_can_be_asked_for(gateway: Gateway, client: aiohttp.ClientSession) -> None:
    """What the list offers is found by its name, and answers."""
    for name in await names(gateway, client, "all"):
        async with client.get(f"{gateway.url}/v1/models/{name}", headers=gateway.headers()) as response:
            assert (await response.json())["id"] == name
        async with client.post(
            f"{gateway.url}/v1/chat/completions", json=chat(name, stream=False), headers=gateway.headers()
        ) as response:
            assert response.status == 200


async def test_what_is_told_of_a_model(gateway: Gateway, client: aiohttp.ClientSession) -> None:
    """Tier, state, window and modalities are there; an unknown or hidden model is 404."""
    async with client.get(f"{gateway.url}/v1/models/cloud/huge", headers=gateway.headers()) as response:
        told = (await response.json())["stream"]
    assert (told["tier"], told["model"], told["state"], told["demo"]) == ("cloud", "huge", "hot", False)
    assert (told["context_window"], told["modalities"]) == (8192, ["image", "text"])
    for name, key in (("nope", "all"), ("cloud/huge", "local only")):
        async with client.get(f"{gateway.url}/v1/models/{name}", headers=gateway.headers(key)) as response:
            assert response.status == 404
            assert error_of(await response.read())["code"] == "model_not_found"


async def test_states_follow_the_engine(bare: Gateway, client: aiohttp.ClientSession) -> None:
    """A model is offline, with the reason, while its engine is away, and hot when it is there; demos say so."""
    model = {"id": "m", "demo": True}
    with scripted_engine() as engine:
        port = int(engine.rpartition(":")[2])
    await configure(bare, tier("local", engine, models=[model]))
    away = await _state(bare, client, "offline")
    assert away["state"] == "offline"
    assert (away["reason"], away["demo"]) == ("no connection", True)
    with scripted_engine(port=port):
        assert (await _state(bare, client, "hot"))["reason"] is None
        async with client.post(f"{bare.url}{PATH}", json=chat("m"), headers=bare.headers()) as response:
            assert "demo model, not to be believed" in response.headers["x-stream-reason"]


async def test_a_key_in_the_environment_that_is_not_there(bare: Gateway, client: aiohttp.ClientSession) -> None:
    """A tier whose API key is missing is away and says which variable to set; it is never asked."""
    await configure(bare, tier("cloud", "http://127.0.0.1:9", api_key_env="NO_SUCH_KEY"))
    assert "NO_SUCH_KEY" in (await _state(bare, client, "offline"))["reason"]
    async with client.post(f"{bare.url}/v1/chat/completions", json=chat("cloud"), headers=bare.headers()) as response:
        assert response.status == 503
        assert "NO_SUCH_KEY" in error_of(await response.read())["message"]


async def test_an_hpc_tier_whose_other_side_is_away(bare: Gateway, client: aiohttp.ClientSession) -> None:
    """Without broker and dispatch the tier is listed as offline, answers 503 when named, and `auto` says so."""
    hpc = {"name": "hpc", "kind": "hpc", "privacy": "internal"}
    cluster = {"name": "alpha", "pools": [{"model": {"id": "large"}, "engine_command": ["true"]}]}
    async with upstream(STREAM_HEAD + FINISH + DONE) as engine:
        await configure(bare, hpc, tier("local", engine.url), clusters=[cluster])
        assert (await _state(bare, client, "hot"))["state"] == "offline"
        for model in ("hpc", "hpc/large", "large"):
            async with client.post(f"{bare.url}{PATH}", json=chat(model), headers=bare.headers()) as response:
                assert response.status == 503
                assert error_of(await response.read())["code"] == "upstream_unavailable"
        async with client.post(f"{bare.url}{PATH}", json=chat(), headers=bare.headers()) as response:
            assert response.headers["x-stream-tier"] == "local"
            assert "hpc is away" in response.headers["x-stream-reason"]


async def test_the_document_tells_the_truth(gateway: Gateway, client: aiohttp.ClientSession) -> None:
    """The OpenAPI document has every route, the request's own schema, and no reference into nothing."""
    async with client.get(f"{gateway.url}/openapi.json") as response:
        document = await response.json()
    paths = {path for path in document["paths"] if not path.startswith("/admin/v1/")}
    assert len(document["paths"]) > len(paths)
    assert paths == {
        "/livez",
        "/readyz",
        "/health",
        "/metrics",
        "/v1/models",
        "/v1/models/{model}",
        "/v1/tiers",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/moderations",
        "/v1/tokenize",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/responses",
        "/v1/responses/{response_id}",
        "/v1/responses/{response_id}/cancel",
        "/v1/responses/{response_id}/input_items",
        "/v1/route",
        "/v1/feedback",
        "/v1/files",
        "/v1/files/{file_id}",
        "/v1/files/{file_id}/content",
        "/v1/batches",
        "/v1/batches/{batch_id}",
        "/v1/batches/{batch_id}/cancel",
        "/v1/usage",
        "/v1/audit",
        "/v1/audit/verify",
    }
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert not any("422" in operation["responses"] for operation in operations)  # a wrong field is 400 here
    assert set(document["components"]["schemas"]["ChatBody"]["required"]) == {"model", "messages"}
    references = set(_references(document))
    assert references
    for reference in references:
        place = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


async def _state(gateway: Gateway, client: aiohttp.ClientSession, wanted: str) -> dict[str, object]:
    for _ in range(2_000):
        async with client.get(f"{gateway.url}/v1/models/auto", headers=gateway.headers()) as response:
            if (await response.json())["stream"]["state"] == wanted:
                break
    async with client.get(f"{gateway.url}/v1/models", headers=gateway.headers()) as response:
        told: dict[str, object] = (await response.json())["data"][1]["stream"]
    return told


def _references(value: object) -> list[str]:
    match value:
        case dict():
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [found for item in value.values() for found in _references(item)]
        case list():
            return [found for item in value for found in _references(item)]
    return []
