"""A scripted OpenAI engine: what it answers is written in the request, so one process plays every part.

Run it as `python -m stream_core.testing.engine`, or use `scripted_engine()`. A request's "script" object tells:

    tokens      how many content chunks to send (default 8)
    per_write   chunks per socket write; 0 sends as many as there are at once (default 1)
    interval_ms pause between writes (default 0)
    delay_ms    pause before the first byte
    text        of each chunk (default " token"); with "{n}" in it, the chunk's number stands there
    cut         after this many chunks the connection is closed, without end
    no_done     leaves out "[DONE]"
    no_finish   leaves out the chunk with the finish_reason
    status      answers with this HTTP status and an error body
    hang        sends headers, then nothing
    events      a list of strings sent verbatim as the stream's data lines, instead of tokens
    body        a string sent verbatim as the whole (not streamed) body
    die         after this many chunks the whole engine ends, as a crash does, with a last line on stderr
    sick        after this many chunks it says that its core has died: with an error event that ends the stream
                properly, as vLLM does, and from now on with 503 at `/health`
    waiting     what `/metrics` tells from now on (default 0)
    cache_use   likewise
    continue    goes on from a last message of the assistant, and keeps to max_tokens: "vllm" when the request says
                continue_final_message, with the new text only; "llama" always, and says the given text again, before
                the first new chunk; "llama-apart" in chunks of three characters; "refuse" answers 400. Requests
                without it are then treated alike

It also answers `/v1/completions` (the same script), `/v1/embeddings`, `/v1/moderations` and `/tokenize`: see
`other_answers`.

`GET /requests` tells what came and how it ended: [{"id", "body", "traceparent", "sent",
"ended": "complete" | "aborted" | null, "aborted_after_ms"}]; `GET /events?aborted=N` answers as soon as N requests were
aborted. It follows the caller's reading: a client that stops reading stops the engine (`sent` stands still).
`GET /largest` tells the bytes of the largest request, {"bytes"}; messages of more than 4 MiB are not kept.
`GET /metrics` speaks as vLLM does: what runs is counted, what waits and the cache's use are what the last script said.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web
from pydantic_settings import BaseSettings, SettingsConfigDict

from stream_core.lifecycle import announce_ready, run
from stream_core.testing import other_answers as other
from stream_core.testing import programs

MODEL = "scripted"
_KEPT_BODY = 4 * 1024 * 1024


class ScriptedEngineSettings(BaseSettings):
    """Environment `STREAM_CORE_TESTING_ENGINE__*`."""

    model_config = SettingsConfigDict(env_prefix="STREAM_CORE_TESTING_ENGINE__")

    port: int = 0
    api_key_file: Path | None = None
    api_key: str = ""
    ready_file: Path | None = None


class ScriptedEngine:
    """The engine's state: every request it has seen."""

    def __init__(self, api_key: str | None = None) -> None:
        self._api_key = api_key
        self._changed = asyncio.Condition()
        self.requests: list[dict[str, Any]] = []
        self._way: str | None = None
        self._load: dict[str, Any] = {}
        self._sick = False
        self._most = 0

    def app(self) -> web.Application:
        """Build its HTTP surface."""
        app = web.Application(client_max_size=256 * 1024 * 1024)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._chat)
        app.router.add_post("/v1/embeddings", self._other)
        app.router.add_post("/v1/moderations", self._other)
        app.router.add_post("/tokenize", self._other)
        app.router.add_get("/requests", self._seen)
        app.router.add_get("/events", self._wait)
        app.router.add_get("/largest", self._largest)
        return app

    async def _models(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "core died" if self._sick else "ok"}, status=503 if self._sick else 200)

    async def _metrics(self, _request: web.Request) -> web.Response:
        running = sum(record["ended"] is None for record in self.requests)
        values = {"num_requests_running": running, "num_requests_waiting": 0, "kv_cache_usage_perc": 0} | self._load
        lines = [f'vllm:{name}{{engine="0",model_name="{MODEL}"}} {float(value)}' for name, value in values.items()]
        return web.Response(text="\n".join(["# TYPE vllm:num_requests_running gauge", *lines, ""]))

    async def _seen(self, _request: web.Request) -> web.Response:
        return web.json_response(self.requests)

    async def _largest(self, _request: web.Request) -> web.Response:
        return web.json_response({"bytes": self._most})

    async def _wait(self, request: web.Request) -> web.Response:
        wanted = int(request.query["aborted"])
        async with self._changed:
            await self._changed.wait_for(lambda: sum(r["ended"] == "aborted" for r in self.requests) >= wanted)
        return web.json_response(self.requests)

    async def _other(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        self.requests.append({"id": len(self.requests), "body": body, "ended": "complete", "sent": 0})
        return web.json_response(other.answer(request.path, body))

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        if self._api_key and request.headers.get("authorization") != f"Bearer {self._api_key}":
            return web.json_response({"error": {"message": "wrong key", "code": "invalid_api_key"}}, status=401)
        data = await request.read()
        self._most = max(self._most, len(data))
        body = orjson.loads(data)
        if len(data) > _KEPT_BODY:
            body |= {"messages": []}  # told by `/largest` only
        script = dict(body.get("script", {}))
        self._way = script.get("continue", self._way)
        if self._way:
            _continue(body, script, self._way)
        if "sick" in script:
            self._sick = True
        for name, metric in (("waiting", "num_requests_waiting"), ("cache_use", "kv_cache_usage_perc")):
            if name in script:
                self._load[metric] = script[name]
        record = {"id": len(self.requests), "body": body, "ended": None, "sent": 0}
        record["traceparent"] = request.headers.get("traceparent", "")
        self.requests.append(record)
        started = time.monotonic()
        try:
            response = await self._answer(request, body, script, record)
        except (ConnectionResetError, asyncio.CancelledError):
            record["ended"] = "aborted"
            record["aborted_after_ms"] = round((time.monotonic() - started) * 1000)
            record["aborted_at"] = time.time()
            raise
        else:
            record["ended"] = "complete"
            return response
        finally:
            async with self._changed:
                self._changed.notify_all()

    async def _answer(
        self, request: web.Request, body: dict[str, Any], script: dict[str, Any], record: dict[str, Any]
    ) -> web.StreamResponse:
        if delay := script.get("delay_ms"):
            await asyncio.sleep(delay / 1000)
        if status := script.get("status"):
            error = {"message": "scripted", "type": "scripted", "param": None, "code": "scripted"}
            return web.json_response({"error": error}, status=status)
        if body.get("stream"):
            return await _stream(request, body, script, record)
        if "body" in script:
            return web.Response(text=script["body"], content_type="application/json")
        if request.path.endswith("/completions") and "prompt" in body:
            return web.json_response(other.completion(body, script))
        return web.json_response(_whole(body, script))


async def _stream(
    request: web.Request, body: dict[str, Any], script: dict[str, Any], record: dict[str, Any]
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    if script.get("hang"):
        await asyncio.Event().wait()
    events = _scripted(body, script)
    if "sick" in script:
        events = [
            *events[: script["sick"]],
            b'data: {"error": {"message": "the core has died"}}\n\n',
            b"data: [DONE]\n\n",
        ]
    cut = script.get("cut")
    if cut is not None:
        events = events[:cut]
    per_write, interval = script.get("per_write", 1), script.get("interval_ms", 0) / 1000
    step = per_write or len(events) or 1
    for start in range(0, len(events), step):
        await response.write(b"".join(events[start : start + step]))
        record["sent"] = start + step
        if start + step >= script.get("die", float("inf")):
            sys.stderr.write("scripted: out of memory\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        if interval:
            await asyncio.sleep(interval)
        elif start % (64 * step) == 0:
            await asyncio.sleep(0)
    if cut is not None and request.transport is not None:
        request.transport.close()
    return response


def _scripted(body: dict[str, Any], script: dict[str, Any]) -> list[bytes]:
    if "events" in script:
        return [f"data: {line}\n\n".encode() for line in script["events"]]
    return other.completion_events(body, script) if "prompt" in body else _events(body, script)


def _chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    head = {"id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": 1763650000, "model": MODEL}
    return b"data: " + orjson.dumps(head | {"choices": choices}) + b"\n\n"


def _usage(tokens: int, given: int = 0) -> dict[str, int]:
    return {"prompt_tokens": 5 + given, "completion_tokens": tokens, "total_tokens": 5 + given + tokens}


def _continue(body: dict[str, Any], script: dict[str, Any], way: str) -> None:
    """Find out where to begin and to end: "start", "tokens", "echo" and "finish" of the script."""
    last = body["messages"][-1] if body.get("messages") else {}
    given = last.get("content", "") if last.get("role") == "assistant" else ""
    if way == "refuse" and given:
        script["status"] = 400
    if way == "vllm" and not body.get("continue_final_message"):
        given = ""  # it would begin a new turn
    text, count = script.get("text", " token"), script.get("tokens", 8)
    start, said = 0, ""
    while len(said) < len(given):
        said += text.replace("{n}", str(start))
        start += 1
    room = body.get("max_completion_tokens") or body.get("max_tokens") or count
    script |= {
        "start": start,
        "tokens": min(max(0, count - start), room),
        "finish": "length" if count - start > room else "stop",
        "echo": []
        if way == "vllm"
        else [given]
        if way == "llama"
        else [given[i : i + 3] for i in range(0, len(given), 3)],
    }


def _events(body: dict[str, Any], script: dict[str, Any]) -> list[bytes]:
    count, start = script.get("tokens", 8), script.get("start", 0)
    events = [_chunk({"role": "assistant", "content": ""})]
    text = script.get("text", " token")
    if "{n}" in text:
        events += [_chunk({"content": text.replace("{n}", str(start + number))}) for number in range(count)]
    else:
        events += [_chunk({"content": text})] * count
    events[1:1] = [_chunk({"content": again}) for again in script.get("echo", ()) if again]
    if not script.get("no_finish"):
        events.append(_chunk({}, script.get("finish", "stop")))
    if (body.get("stream_options") or {}).get("include_usage"):
        usage = {"id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": 1763650000, "model": MODEL}
        events.append(b"data: " + orjson.dumps(usage | {"choices": [], "usage": _usage(count, start)}) + b"\n\n")
    if not script.get("no_done"):
        events.append(b"data: [DONE]\n\n")
    return events


def _whole(body: dict[str, Any], script: dict[str, Any]) -> dict[str, Any]:
    count = script.get("tokens", 8)
    message = {"role": "assistant", "content": script.get("text", " token") * count}
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": 1763650000,
        "model": body.get("model"),
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": _usage(count, script.get("start", 0)),
    }


@contextlib.contextmanager
def scripted_engine(*, api_key_file: Path | None = None, port: int = 0) -> Iterator[str]:
    """Run it as a process until the block ends.

    Yields:
        Its base URL, without /v1.
    """
    env = {"STREAM_CORE_TESTING_ENGINE__PORT": str(port)}
    if api_key_file is not None:
        env["STREAM_CORE_TESTING_ENGINE__API_KEY_FILE"] = str(api_key_file)
    with programs.start("stream_core.testing.engine", env=env) as program:
        yield f"http://127.0.0.1:{program.ready['port']}"


async def _serve(stop: asyncio.Event) -> None:
    settings = ScriptedEngineSettings()
    key = settings.api_key_file.read_text().strip() if settings.api_key_file else settings.api_key or None
    runner = web.AppRunner(ScriptedEngine(key).app(), handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", settings.port)
    await site.start()
    port = runner.addresses[0][1]
    announce_ready(settings.ready_file, port=port)
    sys.stderr.write(json.dumps({"msg": "ready", "port": port}) + "\n")
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    run("scripted-engine", _serve)
