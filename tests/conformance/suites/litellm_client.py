"""litellm as a client, in OpenAI's and in Anthropic's dialect."""

import os

import litellm
import pytest

HELLO = [{"role": "user", "content": "hello"}]
MODEL = os.environ["OPENAI_MODEL"]
WAYS = {
    "openai": {"model": f"openai/{MODEL}", "api_base": os.environ["OPENAI_BASE_URL"]},
    "anthropic": {"model": f"anthropic/{MODEL}", "api_base": os.environ["ANTHROPIC_BASE_URL"]},
}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@pytest.mark.parametrize("way", WAYS)
def test_chat(way):
    ask = {**WAYS[way], "api_key": os.environ["OPENAI_API_KEY"], "messages": HELLO, "num_retries": 0}
    assert litellm.completion(**ask, max_tokens=50).choices[0].message.content
    pieces = [chunk.choices[0].delta.content or "" for chunk in litellm.completion(**ask, max_tokens=50, stream=True)]
    assert "".join(pieces)
    called = litellm.completion(**ask, max_tokens=50, tools=[TOOL], tool_choice="required")
    assert called.choices[0].message.tool_calls[0].function.name == "weather"


def test_embeddings():
    made = litellm.embedding(
        model="openai/vectors",
        input=["a"],
        api_base=os.environ["OPENAI_BASE_URL"],
        api_key=os.environ["OPENAI_API_KEY"],
        encoding_format="float",
    )
    assert len(made.data[0]["embedding"]) == 8


def test_errors():
    ask = {**WAYS["openai"], "messages": HELLO, "num_retries": 0}
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(**ask, api_key="sk-wrong")
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**{**ask, "model": "openai/nope"}, api_key=os.environ["OPENAI_API_KEY"])
