"""What is not there, or was tampered with, is said clearly; chat goes on."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator

import aiohttp
import openai
import pytest
from batches.press import Press, eventually, gateway_env, jsonl, reach, request, start, upload
from gateway.stage import Stage, chat, error_of, tier

from stream_core import bus
from stream_core.settings import NatsSettings
from stream_core.testing.broker import SERVER, free_port

pytestmark = pytest.mark.process
ROUTES = [("GET", "/v1/files"), ("POST", "/v1/files"), ("GET", "/v1/batches"), ("GET", "/v1/files/file-x/content")]


@contextlib.contextmanager
def plain_broker(port: int) -> Iterator[None]:
    """A broker without JetStream."""
    broker = subprocess.Popen([str(SERVER), "-a", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        broker.terminate()
        broker.wait(10)


async def test_not_configured(tmp_path, engine) -> None:
    """Without the key file each route says which setting is missing; chat answers."""
    with Stage(tmp_path, {"tiers": [tier("local", engine)]}).run() as gateway:
        async with aiohttp.ClientSession(headers=gateway.headers()) as session:
            for method, path in ROUTES:
                async with session.request(method, gateway.url + path, data=b"") as response:
                    assert response.status == 404
                    error = error_of(await response.read())
                assert error["code"] == "batches_not_configured"
                assert "STREAM_GATEWAY__BATCH_KEY_FILE" in error["message"]
            async with session.post(f"{gateway.url}/v1/chat/completions", json=chat()) as response:
                assert response.status == 200


def test_wrong_key_file(tmp_path) -> None:
    """A key of another shape ends the program with one line that names the setting."""
    stage = Stage(tmp_path)
    (tmp_path / "batch.key").write_text("abc")
    env = {**stage.env(), **gateway_env(tmp_path, "nats://127.0.0.1:9")}
    done = subprocess.run(
        [sys.executable, "-m", "stream_gateway"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == f"stream-gateway: batch_key_file: {tmp_path / 'batch.key'} must hold 64 hex digits\n"


async def test_broker_away_then_without_jetstream(tmp_path, engine) -> None:
    """While the broker is away, or has no JetStream, files and batches say so with 503, and chat answers."""
    port = free_port()
    (tmp_path / "batch.key").write_text("5e" * 32)
    stage = Stage(tmp_path, {"tiers": [tier("local", engine)]})
    with stage.run(gateway_env(tmp_path, f"nats://127.0.0.1:{port}")) as gateway:
        async with aiohttp.ClientSession(headers=gateway.headers()) as session:

            async def reason() -> str:
                async with session.get(f"{gateway.url}/v1/files") as response:
                    assert response.status == 503
                    return str(error_of(await response.read())["message"])

            assert "not available now" in await reason()
            async with session.post(f"{gateway.url}/v1/chat/completions", json=chat()) as response:
                assert response.status == 200
            with plain_broker(port):
                while "no JetStream" not in await reason():
                    pass


async def test_broker_that_changes_something(press: Press, official: openai.AsyncOpenAI) -> None:
    """A changed chunk, a chunk in another's place, a made-up line: noticed, and never taken for the owner's text."""
    first = await upload(official, jsonl(request("first", "one")))
    second = await upload(official, jsonl(request("other", "two")))
    client = await bus.connect(NatsSettings(url=press.broker.url), name="tamperer")
    jetstream = client.jetstream()
    subject = f"stream.batch.file.{first}.0"
    of_second = (await jetstream.get_last_msg("stream-batch-files", f"stream.batch.file.{second}.0")).data or b""
    await jetstream.purge_stream("stream-batch-files", subject=subject)
    await jetstream.publish(subject, of_second)
    with pytest.raises(openai.APIError):
        await official.files.content(first)
    batch = await reach(official, (await start(official, first)).id)
    assert batch.status == "failed"
    assert [problem.code for problem in (batch.errors and batch.errors.data) or []] == ["input_unreadable"]
    good = await start(official, await upload(official, jsonl(request("slow", script={"delay_ms": 3_000}))))
    await reach(official, good.id, lambda b: b.status == "in_progress")
    await jetstream.publish(f"stream.batch.line.{good.id}.77", b"\x01" + b"x" * 60)
    await eventually(lambda: any("forged line" in line for line in press.gateway.program.log().splitlines()))
    assert (await reach(official, good.id)).status == "completed"
    await bus.close(client)


async def test_openapi(press: Press) -> None:
    """The routes stand in the OpenAPI document, with the form and the error body."""
    async with aiohttp.ClientSession() as session, session.get(f"{press.gateway.url}/openapi.json") as response:
        document = json.loads(await response.read())
    assert {"/v1/files", "/v1/files/{file_id}/content", "/v1/batches", "/v1/batches/{batch_id}/cancel"} <= set(
        document["paths"]
    )
    assert "multipart/form-data" in document["paths"]["/v1/files"]["post"]["requestBody"]["content"]
    assert {"Batch", "FileObject", "Error"} <= set(document["components"]["schemas"])
