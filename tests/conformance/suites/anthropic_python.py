"""Anthropic's official Python SDK, feature by feature."""

import os

import anthropic
import pytest
from pydantic import BaseModel

MODEL = os.environ["OPENAI_MODEL"]
HELLO = [{"role": "user", "content": "hello"}]
TOOL = {
    "name": "weather",
    "description": "Tells it.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


class Weather(BaseModel):
    """A form."""

    city: str


@pytest.fixture
def client():
    with anthropic.Anthropic(max_retries=0) as made:
        yield made


def test_message(client):
    message = client.messages.create(model=MODEL, max_tokens=64, messages=HELLO, system="Be brief.")
    assert message.content[0].text
    assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", 8)


def test_streamed(client):
    with client.messages.stream(model=MODEL, max_tokens=64, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert final.content[0].text == text
    assert final.usage.input_tokens == 12


@pytest.mark.parametrize("streamed", [False, True])
def test_tools(client, streamed):
    ask = {"model": MODEL, "max_tokens": 64, "tools": [TOOL], "messages": HELLO}
    if streamed:
        with client.messages.stream(**ask) as stream:
            message = stream.get_final_message()
    else:
        message = client.messages.create(**ask)
    call = next(block for block in message.content if block.type == "tool_use")
    assert (call.input, message.stop_reason) == ({"city": "answer"}, "tool_use")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "rain"}]}
    ask["messages"] = [*HELLO, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    assert client.messages.create(**ask).content[0].type == "text"


def test_parsed(client):
    message = client.messages.parse(model=MODEL, max_tokens=64, messages=HELLO, output_format=Weather)
    assert message.parsed_output == Weather(city="answer")


def test_images_and_counting(client):
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    messages = [{"role": "user", "content": [{"type": "image", "source": source}, {"type": "text", "text": "?"}]}]
    assert client.messages.create(model=MODEL, max_tokens=64, messages=messages).content
    assert client.messages.count_tokens(model=MODEL, messages=HELLO).input_tokens > 0


def test_errors(client):
    with pytest.raises(anthropic.AuthenticationError):
        client.with_options(api_key="sk-wrong").messages.create(model=MODEL, max_tokens=1, messages=HELLO)
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="nope", max_tokens=1, messages=HELLO)
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(
            model=MODEL, max_tokens=1, messages=HELLO, tools=[{"type": "web_search_20250305", "name": "web_search"}]
        )
