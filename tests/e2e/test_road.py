"""The main road: the official client's question through every part to an answer."""

import json

import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI

pytestmark = pytest.mark.process

QUESTION = [{"role": "user", "content": "What is a relay?"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": "Looks a word up",
            "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
        },
    }
]
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "verdict",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"answer": {"type": "string", "enum": ["yes", "no"]}},
            "required": ["answer"],
            "additionalProperties": False,
        },
    },
}


@pytest.mark.parametrize("model", ["auto", "local", "hpc", "local/stream-demo", "hpc/stream-demo"])
def test_whole_answer(client, model):
    """A question to each name of a model gets one whole answer, with usage and where it came from."""
    raw = client.chat.completions.with_raw_response.create(model=model, messages=QUESTION, max_tokens=24)
    answer = raw.parse()
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens > 0
    tier = model.partition("/")[0]
    assert raw.headers["x-stream-tier"] == ("local" if tier == "auto" else tier)
    assert raw.headers["x-stream-model"] == "stream-demo"
    assert raw.headers["x-stream-reason"]
    assert len(raw.headers["x-request-id"]) == 32


@pytest.mark.parametrize("model", ["auto", "local", "hpc"])
def test_streamed_answer(client, model):
    """The same, streamed: deltas, a finish reason, and a usage chunk with empty choices because it was asked for."""
    chunks = list(
        client.chat.completions.create(
            model=model, messages=QUESTION, max_tokens=24, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] in {"stop", "length"}
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens > 0


@pytest.mark.parametrize("model", ["local", "hpc"])
def test_same_seed_same_text(client, model):
    """`seed` and `temperature` reach the engine: the same seed gives the same text on every tier."""

    def ask(seed: int) -> str:
        answer = client.chat.completions.create(
            model=model, messages=QUESTION, max_tokens=32, seed=seed, temperature=1.0
        )
        return answer.choices[0].message.content

    assert ask(7) == ask(7)
    assert len({ask(seed) for seed in (1, 2, 3, 4)}) > 1


@pytest.mark.parametrize("model", ["local", "hpc"])
def test_logprobs(client, model):
    """`logprobs` reach the engine, and every token's alternatives come back."""
    answer = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=8, logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    assert all(len(token.top_logprobs) == 3 for token in content)


@pytest.mark.parametrize("model", ["local", "hpc"])
def test_json_schema(client, model):
    """`response_format` reaches the engine: even a demo model's answer has the schema's shape."""
    answer = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=64, response_format=SCHEMA)
    assert json.loads(answer.choices[0].message.content)["answer"] in {"yes", "no"}


def test_tools_reach_the_engine(house, client):
    """Tool definitions travel sealed and arrive at the engine as they were sent."""
    client.chat.completions.create(model="hpc", messages=QUESTION, max_tokens=4, tools=TOOLS)
    seen = b"".join(bytes(buffer) for buffer in house.engine.sent)
    assert b'"name":"look_up"' in seen.replace(b'": "', b'":"')


@pytest.mark.parametrize(
    "extra",
    [{}, {"logprobs": True, "top_logprobs": 2}, {"tools": TOOLS}, {"stream_options": {"include_usage": True}}],
    ids=["plain", "logprobs", "tools", "usage"],
)
def test_every_byte_of_the_stream_is_the_engines(house, extra):
    """On the HPC tier each SSE data line that the client gets is, byte for byte, one that the engine sent.

    All but one: the engine is always asked for the usage, and its event goes to those alone who asked for it.
    """
    before = len(house.engine.answered)
    body = {"model": "hpc", "messages": QUESTION, "max_tokens": 16, "stream": True, **extra}
    headers = {"authorization": f"Bearer {house.api_key}"}
    answer = httpx.post(f"{house.base_url}/chat/completions", json=body, headers=headers, timeout=60)
    got = [line for line in answer.content.split(b"\n") if line.startswith(b"data: ")]
    assert got[-1] == b"data: [DONE]"
    # The worker may ask over a connection that was open before.
    said = _dechunked(house.engine.answered, since=before)
    assert len(got) > 10
    sent = [line for line in said.split(b"\n") if line.startswith(b"data: ")]
    if "stream_options" not in extra:
        sent = [line for line in sent if b'"choices":[]' not in line]
    assert b"\n".join(got) in b"\n".join(sent)


def _dechunked(connections: list[bytearray], *, since: int) -> bytes:
    """The bodies of the connections' answers, without the sizes of HTTP's chunks."""
    kept = []
    for raw in connections[max(0, since - 4) :]:
        rest = bytes(raw)
        while rest:
            line, _, rest = rest.partition(b"\r\n")
            try:
                size = int(line, 16)
            except ValueError:
                continue
            kept.append(rest[:size])
            rest = rest[size + 2 :]
    return b"".join(kept)


def test_models_list(client):
    """`/v1/models` shows `auto`, the tiers and each concrete model, and says which is a demo."""
    models = {model.id: model for model in client.models.list()}
    assert {"auto", "local", "hpc", "local/stream-demo", "hpc/stream-demo"} <= set(models)
    assert "cloud" not in models
    assert models["hpc/stream-demo"].stream["demo"] is True


def test_long_conversation_is_made_to_fit(client):
    """A conversation larger than the model's window is condensed and answered, and the reason says so."""
    turns = [
        {"role": role, "content": f"Turn {number}: the relay number {number} is in room {number * 7}. " * 12}
        for number in range(60)
        for role in ("user", "assistant")
    ]
    messages = [{"role": "system", "content": "Be brief."}, *turns, {"role": "user", "content": "Where is relay 3?"}]
    raw = client.chat.completions.with_raw_response.create(model="local", messages=messages, max_tokens=16)
    assert raw.parse().usage.prompt_tokens < 8192
    assert "tokens" in raw.headers["x-stream-reason"]


def test_no_tier_sees_an_image(client):
    """An image makes tiers without vision no candidates: a clear error that says so, and nothing is sent."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, picture]}]
    with pytest.raises(openai.APIStatusError, match="image") as caught:
        client.chat.completions.create(model="auto", messages=messages)
    assert caught.value.status_code in {400, 404, 503}


def test_langchain(house):
    """The README's LangChain example works, streamed too."""
    model = ChatOpenAI(model="auto", base_url=house.base_url, api_key=house.api_key, max_tokens=16, max_retries=0)
    assert model.invoke("What is a relay?").content
    assert "".join(chunk.content for chunk in model.stream("What is a relay?"))
