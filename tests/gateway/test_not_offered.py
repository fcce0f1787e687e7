"""What OpenAI's client can ask for and this gateway does not have: 404 with a code for each part, never silence."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import openai
import pytest
import pytest_asyncio
from gateway.stage import Gateway
from openai._resource import AsyncAPIResource

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
SERVED = {"batches", "chat", "completions", "embeddings", "files", "models", "moderations", "responses"}
Call = Callable[[openai.AsyncOpenAI], Any]
HI: list[Any] = [{"role": "user", "content": "hello"}]
PARTS: dict[str, Call] = {
    "admin": lambda client: client.admin.organization.users.list(),
    "audio": lambda client: client.audio.speech.create(model="m", voice="v", input="x"),
    "beta": lambda client: client.beta.agents.list(),
    "containers": lambda client: client.containers.list(),
    "content_provenance_checks": lambda client: client.content_provenance_checks.create(file=b"x"),
    "conversations": lambda client: client.conversations.create(),
    "decisions": lambda client: client.post("/decisions", cast_to=object),
    "evals": lambda client: client.evals.list(),
    "fine_tuning": lambda client: client.fine_tuning.jobs.list(),
    "images": lambda client: client.images.generate(prompt="x"),
    "live": lambda client: client.post("/live", cast_to=object),
    "realtime": lambda client: client.realtime.client_secrets.create(),
    "safety": lambda client: client.safety.alerts.retrieve("alert_1"),
    "skills": lambda client: client.skills.list(),
    "uploads": lambda client: client.uploads.create(bytes=1, filename="x", mime_type="text/plain", purpose="batch"),
    "vector_stores": lambda client: client.vector_stores.list(),
    "videos": lambda client: client.get("/videos", cast_to=object),
    "webhooks": lambda client: client.webhooks.list(),
}
MORE: dict[str, Call] = {
    "stored chat completions": lambda client: client.chat.completions.list(),
    "a stored chat completion": lambda client: client.chat.completions.retrieve("chatcmpl-1"),
    "its messages": lambda client: client.chat.completions.messages.list("chatcmpl-1"),
    "its change": lambda client: client.chat.completions.update("chatcmpl-1", metadata={"a": "b"}),
    "its end": lambda client: client.chat.completions.delete("chatcmpl-1"),
    "compaction": lambda client: client.responses.compact(model="auto", input="x"),
    "counts of tokens": lambda client: client.responses.input_tokens.count(model="auto", input="x"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def official(gateway: Gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    """The client, which does not try again by itself."""
    key = gateway.stage.keys["all"]
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key, admin_api_key=key, max_retries=0) as made:
        yield made


async def test_all_parts_are_told_of(official: openai.AsyncOpenAI) -> None:
    """The tables have the parts that the installed client has: a new one must be decided upon."""
    parts = {name for name in dir(official) if not name.startswith(("_", "with_"))}
    assert {name for name in parts if isinstance(getattr(official, name), AsyncAPIResource)} == SERVED | set(PARTS)


@pytest.mark.parametrize("part", [*PARTS, *MORE])
async def test_it_is_not_there(official: openai.AsyncOpenAI, part: str) -> None:
    """404 with the code `not_found`, in OpenAI's form."""
    with pytest.raises(openai.NotFoundError) as caught:
        await {**PARTS, **MORE}[part](official)
    assert caught.value.code == "not_found"


async def test_a_completion_that_is_to_be_kept(official: openai.AsyncOpenAI) -> None:
    """`store: true` is refused where no engine keeps it, and says so; without it nothing is promised."""
    with pytest.raises(openai.BadRequestError) as caught:
        await official.chat.completions.create(model="local", messages=HI, store=True)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "store")
    assert (await official.chat.completions.create(model="local", messages=HI, store=False)).choices
    with pytest.raises(openai.NotFoundError) as listed:
        await official.chat.completions.list()
    assert "POST /v1/responses" in listed.value.message
    with pytest.raises(openai.APIStatusError) as changed:
        await official.put("/chat/completions", cast_to=object)
    assert (changed.value.status_code, changed.value.response.headers["allow"]) == (405, "GET, POST")


async def test_a_response_in_the_background(official: openai.AsyncOpenAI) -> None:
    """`background: true` is refused, also streamed; so is streaming a kept one again."""
    for streamed in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            await official.responses.create(model="local", input="x", background=True, stream=streamed)
        assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "background")
    with pytest.raises(openai.BadRequestError) as again:
        await official.responses.retrieve("resp_1", stream=True, starting_after=3)
    assert (again.value.code, again.value.param) == ("unsupported_parameter", "stream")


async def test_a_model_that_is_to_be_deleted(official: openai.AsyncOpenAI) -> None:
    """The path is there for reading: 405, and the answer says what is allowed."""
    with pytest.raises(openai.APIStatusError) as caught:
        await official.models.delete("auto")
    assert (caught.value.status_code, caught.value.code) == (405, "method_not_allowed")
    assert caught.value.response.headers["allow"] == "GET"
