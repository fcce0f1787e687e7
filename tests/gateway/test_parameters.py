"""Every parameter of the official clients, by the names in their own types: none of them is lost in silence."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
import pytest_asyncio
from anthropic.types import tool_param
from anthropic.types.beta import message_create_params
from gateway import parameters
from gateway.parameters import HI, Fate, Here, No, Nothing, On
from gateway.stage import Gateway, Stage, tier
from openai.types import completion_create_params, embedding_create_params, moderation_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params, response_text_config_param
from openai.types.shared_params import reasoning

# One loop for all: making a client takes as long as ten requests.
pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]


@dataclass(frozen=True)
class Api:
    """One request of a client, or an object within one."""

    names: Any
    """The client's own type."""
    fates: dict[str, Fate]
    call: Callable[["Hands"], Any]
    """Finds the client's method."""
    ask: dict[str, Any]
    within: Callable[[dict[str, Any]], dict[str, Any]] = dict
    """Puts parameters into their place in the request."""
    models: tuple[str, str] = ("rich", "plain")
    """One that can do it all, and one that can do nothing of what needs a capability."""


def _in_a_tool(fields: dict[str, Any]) -> dict[str, Any]:
    return {"tools": [{"name": "f", "input_schema": parameters.SCHEMA, **fields}]}


def _responses(hands: "Hands") -> Any:
    return hands.openai.responses.create


def _messages(hands: "Hands") -> Any:
    return hands.anthropic.beta.messages.create


RESPONSE = {"input": "hello"}
MESSAGE = {"max_tokens": 20, "messages": HI}
APIS: dict[str, Api] = {
    "chat": Api(
        chat_create_params.CompletionCreateParamsStreaming,
        parameters.CHAT,
        lambda hands: hands.openai.chat.completions.create,
        {"messages": HI},
    ),
    "completions": Api(
        completion_create_params.CompletionCreateParamsStreaming,
        parameters.COMPLETIONS,
        lambda hands: hands.openai.completions.create,
        {"prompt": "once"},
    ),
    "embeddings": Api(
        embedding_create_params.EmbeddingCreateParams,
        parameters.EMBEDDINGS,
        lambda hands: hands.openai.embeddings.create,
        {"input": "a"},
        models=("rich-vectors", "plain-vectors"),
    ),
    "moderations": Api(
        moderation_create_params.ModerationCreateParams,
        parameters.MODERATIONS,
        lambda hands: hands.openai.moderations.create,
        {"input": "a"},
    ),
    "responses": Api(response_create_params.ResponseCreateParamsStreaming, parameters.RESPONSES, _responses, RESPONSE),
    "responses.reasoning": Api(
        reasoning.Reasoning, parameters.REASONING, _responses, RESPONSE, lambda fields: {"reasoning": fields}
    ),
    "responses.text": Api(
        response_text_config_param.ResponseTextConfigParam,
        parameters.TEXT,
        _responses,
        RESPONSE,
        lambda fields: {"text": fields},
    ),
    "messages": Api(message_create_params.MessageCreateParamsStreaming, parameters.MESSAGES, _messages, MESSAGE),
    "messages.tool": Api(tool_param.ToolParam, parameters.MESSAGES_TOOL, _messages, MESSAGE, _in_a_tool),
}
CASES = [(api, name) for api, told in APIS.items() for name, fate in told.fates.items() if not isinstance(fate, Here)]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Gateway]:
    """A model that has every capability and one that has none, and the same for vectors."""
    every = {fate.capability for api in APIS.values() for fate in api.fates.values() if isinstance(fate, On)} - {""}
    able = {
        "rich": ["chat", *sorted(every)],
        "plain": [],
        "rich-vectors": ["embeddings", "dimensions"],
        "plain-vectors": ["embeddings"],
    }
    models = {name: [{"id": name, "upstream": "scripted", "capabilities": held}] for name, held in able.items()}
    stage = Stage(
        tmp_path_factory.mktemp("house"), {"tiers": [tier(name, engine, models=each) for name, each in models.items()]}
    )
    with stage.run() as running:
        yield running


@dataclass(frozen=True)
class Hands:
    """The clients, which do not try again by themselves."""

    openai: openai.AsyncOpenAI
    anthropic: anthropic.AsyncAnthropic
    http: aiohttp.ClientSession
    engine: str

    async def seen(self) -> Any:
        """What the engine was asked last."""
        async with self.http.get(f"{self.engine}/requests") as response:
            return (await response.json())[-1]["body"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hands(house: Gateway, engine: str) -> AsyncIterator[Hands]:
    """All of them."""
    key: Any = {"api_key": house.stage.keys["all"], "max_retries": 0}
    async with (
        openai.AsyncOpenAI(base_url=f"{house.url}/v1", **key) as openais,
        anthropic.AsyncAnthropic(base_url=house.url, **key) as anthropics,
        aiohttp.ClientSession() as http,
    ):
        yield Hands(openais, anthropics, http, engine)


@pytest.mark.parametrize("api", APIS)
async def test_all_are_told_of(api: str) -> None:
    """The tables have the parameters that the installed client has: a new one must be decided upon."""
    names = APIS[api].names
    known = set(getattr(names, "__required_keys__", ())) | set(getattr(names, "__optional_keys__", ()))
    known = known or set(names.__annotations__)
    assert set(APIS[api].fates) == known, "a parameter is new, or gone: say in gateway/parameters.py what becomes of it"


@pytest.mark.parametrize(("api", "name"), CASES)
async def test_what_becomes_of_it(hands: Hands, api: str, name: str) -> None:
    """It reaches the engine, is refused with `code` and `param`, or is taken as documented; as its table says."""
    told = APIS[api]
    fate = told.fates[name]
    assert not isinstance(fate, Here)
    ask = {**told.ask, **told.within({name: fate.value}), **getattr(fate, "beside", {})}
    able, unable = told.models
    create = told.call(hands)
    match fate:
        case On():
            await create(model=able, **ask)
            assert (await hands.seen()).items() >= (fate.as_ or {name: fate.value}).items()
            if fate.capability:
                refused = await _refused(create, model=unable, **ask)
                assert refused == (400, "unsupported_parameter", fate.param or name)
        case No():
            assert await _refused(create, model=able, **ask) == (400, fate.code, fate.param or name)
        case Nothing():
            await create(model=able, **ask)


async def _refused(create: Callable[..., Any], **ask: Any) -> tuple[int, object, object]:
    """Ask for what must not be taken: (status, code, param)."""
    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as caught:
        await create(**ask)
    body: Any = caught.value.response.json()
    return caught.value.status_code, body["error"]["code"], body["error"]["param"]


async def test_fields_of_engines_pass_on(house: Gateway, hands: Hands) -> None:
    """A field that no API has reaches the engine, and the reason says so: nobody here knows whether it is honoured."""
    for path, ask in (("chat/completions", {"messages": HI}), ("responses", RESPONSE), ("messages", MESSAGE)):
        body = {"model": "rich", **ask, "top_k": 3, "min_p": 0.1}
        async with hands.http.post(f"{house.url}/v1/{path}", json=body, headers=house.headers()) as response:
            assert response.status == 200
            assert "2 fields passed on that only the engine may know" in response.headers["x-stream-reason"]
        assert (await hands.seen()).items() >= {"top_k": 3, "min_p": 0.1}.items()
