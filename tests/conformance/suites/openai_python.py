"""The official Python SDK, feature by feature."""

import json
import os
import time
from typing import Literal

import openai
import pytest
from pydantic import BaseModel

MODEL = os.environ["OPENAI_MODEL"]
HELLO = [{"role": "user", "content": "hello"}]


class Weather(BaseModel):
    """A tool's arguments, and a form."""

    city: str
    unit: Literal["c", "f"]


@pytest.fixture
def client():
    with openai.OpenAI(max_retries=0) as made:
        yield made


def test_chat(client):
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, n=2)
    assert len(answer.choices) == 2
    assert answer.choices[0].message.content
    assert answer.usage.total_tokens == 20


def test_chat_streamed(client):
    with client.chat.completions.stream(model=MODEL, messages=HELLO, stream_options={"include_usage": True}) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert final.usage.completion_tokens == 8


def test_chat_parsed(client):
    answer = client.chat.completions.parse(model=MODEL, messages=HELLO, response_format=Weather)
    assert answer.choices[0].message.parsed == Weather(city="answer", unit="c")


def test_chat_tools(client):
    tools = [openai.pydantic_function_tool(Weather)]
    answer = client.chat.completions.parse(model=MODEL, messages=HELLO, tools=tools, tool_choice="required")
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.parsed_arguments == Weather(city="answer", unit="c")
    again = [*HELLO, answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    assert client.chat.completions.create(model=MODEL, messages=again, tools=tools).choices[0].message.content


def test_completions_and_embeddings(client):
    assert client.completions.create(model=MODEL, prompt="once").choices[0].text
    assert list(client.completions.create(model=MODEL, prompt="once", stream=True))
    vectors = client.embeddings.create(model="vectors", input=["a", "b"]).data
    assert len(vectors) == 2
    assert len(vectors[0].embedding) == 8


def test_models(client):
    names = [model.id for model in client.models.list()]
    assert {"auto", "stage/play", "vectors"} <= set(names)
    assert client.models.retrieve("auto").object == "model"


def test_responses(client):
    first = client.responses.create(model=MODEL, input="hello", metadata={"a": "b"})
    assert first.output_text
    second = client.responses.create(model=MODEL, input="go on", previous_response_id=first.id)
    assert client.responses.retrieve(second.id).previous_response_id == first.id
    assert [item.type for item in client.responses.input_items.list(second.id)] == ["message"]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


def test_responses_streamed_and_parsed(client):
    with client.responses.stream(model=MODEL, input="hello") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert final.output_text
    parsed = client.responses.parse(model=MODEL, input="hello", text_format=Weather)
    assert parsed.output_parsed == Weather(city="answer", unit="c")
    tools = [openai.pydantic_function_tool(Weather)["function"] | {"type": "function"}]
    with client.responses.stream(model=MODEL, input="hello", tools=tools, tool_choice="required") as stream:
        final = stream.get_final_response()
    assert json.loads(final.output[0].arguments) == {"city": "answer", "unit": "c"}


def test_files_and_batches(client):
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions"}
    line["body"] = {"model": MODEL, "messages": HELLO}
    file = client.files.create(file=("in.jsonl", json.dumps(line).encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    deadline = time.monotonic() + 300
    while batch.status not in {"completed", "failed", "expired"} and time.monotonic() < deadline:
        time.sleep(0.2)
        batch = client.batches.retrieve(batch.id)
    assert batch.status == "completed"
    result = json.loads(client.files.content(batch.output_file_id).text)
    assert result["response"]["status_code"] == 200
    assert file.id in [one.id for one in client.files.list()]
    assert client.files.delete(file.id).deleted


def test_errors(client):
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-wrong").models.list()
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nope", messages=HELLO)
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=HELLO, store=True)
    assert caught.value.code == "unsupported_parameter"
    with pytest.raises(openai.NotFoundError):
        client.images.generate(prompt="x", model=MODEL)
