"""What the scripted engine answers besides chat: the same to the same question."""

import base64
import hashlib
import struct
from typing import Any

import orjson

_DIMENSIONS = 8


def completion(body: dict[str, Any], script: dict[str, Any]) -> dict[str, Any]:
    """A whole completion of `tokens` times `text` for each prompt."""
    count = script.get("tokens", 8)
    prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
    text = script.get("text", " token") * count
    return {
        "id": "cmpl-scripted",
        "object": "text_completion",
        "created": 1763650000,
        "model": body["model"],
        "choices": [
            {"index": index, "text": text, "logprobs": None, "finish_reason": "stop"} for index in range(len(prompts))
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": count, "total_tokens": 5 + count},
    }


def completion_events(body: dict[str, Any], script: dict[str, Any]) -> list[bytes]:
    """The same as a stream."""
    whole = completion(body, script)
    count, usage = script.get("tokens", 8), whole.pop("usage")
    chunks = [{"index": 0, "text": script.get("text", " token"), "logprobs": None, "finish_reason": None}] * count
    chunks.append({"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"})
    events = [orjson.dumps({**whole, "choices": [chunk]}) for chunk in chunks]
    if (body.get("stream_options") or {}).get("include_usage"):
        events.append(orjson.dumps({**whole, "choices": [], "usage": usage}))
    return [b"data: " + event + b"\n\n" for event in [*events, b"[DONE]"]]


def answer(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Vectors made of a hash, verdicts that nothing is bad, or one token for each word."""
    if path == "/tokenize":
        tokens = [len(word) for word in str(body.get("content", body.get("messages"))).split()]
        return {"tokens": tokens}
    inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
    if path.endswith("/moderations"):
        results = [{"flagged": False, "categories": {}, "category_scores": {}} for _ in inputs]
        return {"id": "modr-scripted", "model": body["model"], "results": results}
    packed = body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(text, packed=packed)}
        for index, text in enumerate(inputs)
    ]
    usage = {"prompt_tokens": 5, "total_tokens": 5}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}


def _vector(text: object, *, packed: bool) -> list[float] | str:
    digest = hashlib.sha256(str(text).encode()).digest()
    values = [digest[place] / 255 - 0.5 for place in range(_DIMENSIONS)]
    return base64.b64encode(struct.pack(f"<{_DIMENSIONS}f", *values)).decode() if packed else values
