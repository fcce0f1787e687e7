"""A gateway's life: its start and what stops it, changes under its feet, its drain."""

import asyncio
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from gateway.stage import Gateway, Stage, chat, configure, error_of, events_of, tier, until

from stream_core.testing import programs

pytestmark = pytest.mark.process
PATH = "/v1/chat/completions"


@pytest.fixture
def stage(tmp_path: Path, engine: str) -> Stage:
    """Files of a gateway of this test alone."""
    return Stage(tmp_path, {"tiers": [tier("local", engine)]})


def failed_start(stage: Stage, **settings: object) -> str:
    """Start a gateway that can't start; its one line."""
    with programs.start("stream_gateway", env=stage.env(**settings), ready_timeout_s=None) as program:
        assert program.process.wait(20) == 1
        return program.log().rstrip("\n")


def test_its_version() -> None:
    """`--version` prints one line."""
    found = subprocess.run([sys.executable, "-m", "stream_gateway", "--version"], capture_output=True, check=True)
    assert found.stdout == b"stream-gateway 0.1.0\n"


def test_a_busy_port(stage: Stage) -> None:
    """A busy port is one line that names it, and exit code 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert failed_start(stage, port=port) == (
            f"stream-gateway: port: can't listen on 127.0.0.1:{port}: Address already in use"
        )


def test_a_wrong_setting(stage: Stage) -> None:
    """A wrong setting or deployment is one line, with the variable or the file's line, and exit code 1."""
    line = failed_start(stage, max_body_bytes="many")
    assert line.startswith("stream-gateway: STREAM_GATEWAY__MAX_BODY_BYTES: ")
    stage.write_deployment("tiers:\n  - name: local\n    base_url: x\n    colour: red\n")
    assert "stream.yaml:4: tiers.0.colour" in failed_start(stage)


def test_wrong_files_for_https(stage: Stage) -> None:
    """A certificate that is not there, or of another key, is one line that names the setting."""
    tls = stage.folder / "tls"
    for certificate, key in ((tls / "none.pem", tls / "gateway.key"), (tls / "gateway.pem", tls / "judge.key")):
        line = failed_start(stage, https__certificate=certificate, https__key=key)
        assert line.startswith("stream-gateway: https: ")
        assert str(certificate) in line


async def test_https_of_its_own(stage: Stage) -> None:
    """With certificate and key the gateway ends TLS itself, verified by who trusts their authority."""
    tls = stage.folder / "tls"
    context = ssl.create_default_context(cafile=tls / "ca.pem")
    with stage.run(https__certificate=tls / "gateway.pem", https__key=tls / "gateway.key") as gateway:
        url = f"https://127.0.0.1:{gateway.port}/v1/models"
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, ssl=context, headers=gateway.headers()) as answer,
        ):
            assert answer.status == 200


async def test_a_deployment_that_changes(bare: Gateway, engine: str, client: aiohttp.ClientSession) -> None:
    """A running stream survives the loss of its tier; new requests see the new tiers; a broken file changes nothing."""
    await configure(bare, tier("local", engine), tier("old", engine))
    script = {"tokens": 40, "interval_ms": 20}
    async with client.post(bare.url + PATH, json=chat("old", script=script), headers=bare.headers()) as running:
        assert running.status == 200
        await running.content.readuntil(b"token")
        await configure(bare, tier("local", engine), tier("new", engine))
        for name, status in (("old", 404), ("new", 200), ("local", 200)):
            async with client.post(bare.url + PATH, json=chat(name), headers=bare.headers()) as response:
                assert response.status == status
        rest = await running.content.read()
    assert rest.endswith(b"data: [DONE]\n\n")
    for broken in ("tiers: [", "tiers:\n  - name: local\n    base_url: ftp://x/v1\n"):
        before = len(bare.program.log())
        bare.stage.write_deployment(broken)
        await until(lambda start=before: "the last good one goes on" in bare.program.log()[start:])
        async with client.post(bare.url + PATH, json=chat("new"), headers=bare.headers()) as response:
            assert response.status == 200


async def test_a_revoked_key(bare: Gateway, engine: str, client: aiohttp.ClientSession) -> None:
    """A new key works and a revoked one does not, soon after the file says so."""
    await configure(bare, tier("local", engine))
    bare.stage.add_key("guest")
    async with asyncio.timeout(60):
        await expect_status(bare, client, "guest", 200)
        bare.stage.records[-1] = type(bare.stage.records[-1])(
            **{
                **{name: getattr(bare.stage.records[-1], name) for name in bare.stage.records[-1].__struct_fields__},
                "revoked": True,
            }
        )
        bare.stage.write_keys()
        await expect_status(bare, client, "guest", 401)
        await expect_status(bare, client, "all", 200)


async def test_a_drain(stage: Stage, client: aiohttp.ClientSession) -> None:
    """After SIGTERM probes say 503 at once, new requests are refused, the running stream ends whole, exit code 0."""
    with stage.run() as gateway:
        async with client.get(f"{gateway.url}/readyz") as response:
            assert response.status == 200
        script = {"tokens": 60, "interval_ms": 20}
        async with client.post(
            gateway.url + PATH, json=chat("local", script=script), headers=gateway.headers()
        ) as running:
            await running.content.readuntil(b"token")
            gateway.program.process.terminate()
            await until(lambda: bool(gateway.lines("draining")))
            async with client.get(f"{gateway.url}/readyz") as response:
                assert (response.status, await response.text()) == (503, "draining\n")
            async with client.get(f"{gateway.url}/livez") as response:
                assert response.status == 200
            async with client.post(gateway.url + PATH, json=chat(), headers=gateway.headers()) as response:
                assert response.status == 503
                assert "shutting down" in error_of(await response.read())["message"]
            rest = await running.content.read()
        assert rest.endswith(b"data: [DONE]\n\n")
        assert await asyncio.to_thread(gateway.program.process.wait, 10) == 0
        assert "Traceback" not in gateway.program.log()


async def test_a_drain_that_takes_too_long(stage: Stage, client: aiohttp.ClientSession) -> None:
    """At the end of the grace time a stream is cut with an error event, never with a success, and exit code 0."""
    with stage.run(grace_s=0.3) as gateway:
        script = {"tokens": 100_000, "interval_ms": 20}
        async with client.post(
            gateway.url + PATH, json=chat("local", script=script), headers=gateway.headers()
        ) as running:
            await running.content.readuntil(b"data: ")
            gateway.program.process.terminate()
            body = b"data: " + await running.content.read()
        assert error_of(events_of(body)[-1].removeprefix(b"data: "))["message"] == "the gateway had to stop"
        assert b"[DONE]" not in body
        assert await asyncio.to_thread(gateway.program.process.wait, 10) == 0


async def expect_status(gateway: Gateway, client: aiohttp.ClientSession, key: str, wanted: int) -> None:
    status = 0
    while status != wanted:
        async with client.get(f"{gateway.url}/v1/models", headers=gateway.headers(key)) as response:
            status = response.status
