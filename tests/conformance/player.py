"""An upstream that plays the engine for suites that ask for more than random weights can: tools, forms, vectors.

It calls a tool when there are tools and the last message is not a tool's result, fills in arguments and JSON by their
schema, and says a fixed text otherwise. Numbers are 3, strings are what stands in quotes in the question, "answer"
without any: what the suites look for.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from aiohttp import web

from stream_core.testing import other_answers

TEXT = "Hello, how are you? I am fine."
_QUOTED = re.compile(r"['\"]([^'\"]{1,60})['\"]")
_JOKE = {"setup": "Why?", "punchline": "Because."}
_DETAILS = {"prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0}}
USAGE = {"prompt_tokens": 12, "completion_tokens": 8, "total_tokens": 20, **_DETAILS}
_MOST_DEPTH = 8


def app() -> web.Application:
    """Build its HTTP surface."""
    player = web.Application(client_max_size=64 * 1024 * 1024)
    player.router.add_get("/v1/models", _models)
    player.router.add_post("/v1/chat/completions", _chat)
    player.router.add_post("/v1/completions", _other)
    for path in ("/v1/embeddings", "/v1/moderations", "/tokenize"):
        player.router.add_post(path, _other)
    return player


async def _models(_request: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": []})


async def _other(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    if not request.path.endswith("/completions"):
        return web.json_response(other_answers.answer(request.path, body))
    if not body.get("stream"):
        return web.json_response(other_answers.completion(body, {}))
    return await _send(request, other_answers.completion_events(body, {}))


async def _chat(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    message = _message(body)
    finish = "tool_calls" if message.get("tool_calls") else "stop"
    head = {"id": "chatcmpl-played", "created": 1763650000, "model": body["model"]}
    if not body.get("stream"):
        logprobs = {"content": [_logprob("Hello")]} if body.get("logprobs") else None
        choices = [
            {"index": index, "message": message, "finish_reason": finish, "logprobs": logprobs}
            for index in range(body.get("n") or 1)
        ]
        return web.json_response({**head, "object": "chat.completion", "choices": choices, "usage": USAGE})
    chunks: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in _deltas(message)
    ]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks.append({"choices": [], "usage": USAGE})
    whole = [json.dumps({**head, "object": "chat.completion.chunk", **chunk}) for chunk in chunks]
    return await _send(request, [f"data: {data}\n\n".encode() for data in [*whole, "[DONE]"]])


async def _send(request: web.Request, events: list[bytes]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for event in events:
        await response.write(event)
    return response


def _message(body: dict[str, Any]) -> dict[str, Any]:
    said = str(body["messages"][-1].get("content"))
    choice = body.get("tool_choice")
    tools = [tool["function"] for tool in body.get("tools") or () if tool["type"] == "function"]
    if isinstance(choice, dict):
        tools = [tool for tool in tools if tool["name"] == choice["function"]["name"]]
    answered = body["messages"][-1]["role"] == "tool" and choice in (None, "auto")
    if tools and choice != "none" and not answered:
        arguments = json.dumps(_instance(tools[0].get("parameters") or {}, said), ensure_ascii=False)
        call = {
            "id": "call_played1",
            "type": "function",
            "function": {"name": tools[0]["name"], "arguments": arguments},
        }
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    form = body.get("response_format") or {"type": "text"}
    text = TEXT
    if form["type"] == "json_object":
        text = json.dumps(_JOKE)
    elif form["type"] == "json_schema":
        text = json.dumps(_instance(form["json_schema"].get("schema") or {}, said))
    for stop in _stops(body):
        text = text.partition(stop)[0]
    return {"role": "assistant", "content": text}


def _stops(body: dict[str, Any]) -> list[str]:
    stop = body.get("stop") or []
    return [stop] if isinstance(stop, str) else stop


def _deltas(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": "" if message["content"] is not None else None}
    for piece in _pieces(message["content"] or ""):
        yield {"content": piece}
    for index, call in enumerate(message.get("tool_calls") or ()):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        head = {"index": index, "id": call["id"], "type": "function", "function": {"name": name, "arguments": ""}}
        yield {"tool_calls": [head]}
        for piece in _pieces(arguments):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _pieces(text: str) -> Iterator[str]:
    return (text[start : start + 6] for start in range(0, len(text), 6))


def _logprob(token: str) -> dict[str, Any]:
    return {"token": token, "bytes": list(token.encode()), "logprob": -0.1, "top_logprobs": []}


def _instance(schema: dict[str, Any], said: str, root: dict[str, Any] | None = None, depth: int = 0) -> Any:
    """Make a value that a schema allows."""
    root = schema if root is None else root
    if depth > _MOST_DEPTH:
        return None
    if "$ref" in schema:
        found: Any = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        return _instance(found, said, root, depth + 1)
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    if schema.get("enum"):
        return schema["enum"][0]
    for name in ("anyOf", "oneOf", "allOf"):
        if options := schema.get(name):
            chosen = next((option for option in options if option.get("type") != "null"), options[0])
            return _instance(chosen, said, root, depth + 1)
    kind = schema.get("type", "object")
    if kind == "array":
        return [_instance(schema.get("items") or {"type": "string"}, said, root, depth + 1)]
    if kind == "object":
        properties = schema.get("properties") or {}
        return {name: _instance(inner, said, root, depth + 1) for name, inner in properties.items()}
    return _plain(kind, said)


def _plain(kind: str, said: str) -> Any:
    quoted = _QUOTED.search(said)
    text = quoted[1] if quoted else "answer"
    return {"integer": 3, "number": 3, "boolean": True, "string": text}.get(kind)
