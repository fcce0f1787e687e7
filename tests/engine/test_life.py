"""How the engine starts, stops, and stops working for callers who left."""

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import stream_engine
from stream_core.testing.programs import Program, start

pytestmark = pytest.mark.process

LONG: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Tell me a story."}],
    "max_tokens": 8000,
    "ignore_eos": True,
    "stream": True,
}


async def first_events(response: aiohttp.ClientResponse, count: int) -> None:
    """Read some lines of a stream, so that it is surely running."""
    for _ in range(count):
        assert await response.content.readline()


@pytest.fixture
def single(tmp_path: Path) -> Any:
    """An engine that can answer one request at a time."""
    env = {"STREAM_ENGINE__MODEL": "demo", "STREAM_ENGINE__PARALLEL": "1", "STREAM_HOME": str(tmp_path)}
    with start("stream_engine", env=env) as program:
        yield program


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_the_engine_while_it_streams(
    single: Program, http: aiohttp.ClientSession, number: signal.Signals
) -> None:
    """SIGTERM and SIGINT end the process with exit code 0, and the open stream, which breaks without `[DONE]`."""
    async with http.post(f"{single.ready['base_url']}/chat/completions", json=LONG) as response:
        await first_events(response, 20)
        os.kill(single.process.pid, number)
        with pytest.raises(aiohttp.ClientError):
            while line := await response.content.readline():
                assert b"[DONE]" not in line
    assert single.process.wait(20) == 0


async def test_leaving_caller_stops_the_generation(single: Program, http: aiohttp.ClientSession) -> None:
    """When the caller of a long stream disconnects, the only slot is free for the next request at once."""
    url = f"{single.ready['base_url']}/chat/completions"
    async with http.post(url, json=LONG) as response:
        await first_events(response, 100)
        rate_from = time.monotonic()
        await first_events(response, 200)
        rest_s = (time.monotonic() - rate_from) / 100 * 7_800
        response.close()
    left = time.monotonic()
    async with http.post(url, json={**LONG, "max_tokens": 1}) as response:
        await response.read()
    waited_s = time.monotonic() - left
    assert waited_s < rest_s / 2


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("MODEL", "/nowhere/model.gguf", "cannot read /nowhere/model.gguf"),
        ("MODEL", "{noise}", "is no usable GGUF (does not begin with GGUF)"),
        ("MODEL", "{cut}", "llama.cpp cannot load it"),
        ("MODEL", "someone/some-model:Q8_0", "stream models pull someone/some-model:Q8_0"),
        ("MODEL", "no such thing", "is no file, no repository"),
        ("PORT", "{busy}", "set another port"),
        ("HEALTH_PORT", "{busy}", "set another port"),
        ("PORT", "70000", "less than or equal to 65535"),
        ("HOST", "0.0.0.0", "STREAM_ENGINE__API_KEY_FILE"),
        ("API_KEY_FILE", "/nowhere/key", "/nowhere/key"),
    ],
)
def test_start_error_is_one_line(tmp_path: Path, setting: str, value: str, says: str) -> None:
    """A wrong setting is one line on stderr that names the field and what to do, and exit code 1."""
    (tmp_path / "noise.gguf").write_bytes(bytes(range(256)) * 64)
    demo = Path(stream_engine.__file__).parent / "demo" / "demo.gguf"
    (tmp_path / "cut.gguf").write_bytes(demo.read_bytes()[:2_000_000])
    with socket.create_server(("127.0.0.1", 0)) as busy:
        given = value.format(noise=tmp_path / "noise.gguf", cut=tmp_path / "cut.gguf", busy=busy.getsockname()[1])
        env = {"STREAM_ENGINE__MODEL": "demo", "STREAM_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub")}
        with start("stream_engine", env={**env, f"STREAM_ENGINE__{setting}": given}, ready_timeout_s=None) as program:
            assert program.process.wait(20) == 1
            (line,) = program.log().splitlines()
    assert line.startswith("stream-engine: ")
    assert says in line
    assert f"STREAM_ENGINE__{setting}" in line


def test_debug_level_shows_why_a_model_is_refused(tmp_path: Path) -> None:
    """At log level DEBUG llama.cpp's own words about a file stand around our line: a thread of its own writes them."""
    demo = Path(stream_engine.__file__).parent / "demo" / "demo.gguf"
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(demo.read_bytes()[:2_000_000])
    env = {"STREAM_ENGINE__MODEL": str(cut), "STREAM_ENGINE__LOG_LEVEL": "DEBUG"}
    with start("stream_engine", env=env, ready_timeout_s=None) as program:
        assert program.process.wait(20) == 1
        lines = program.log().splitlines()
    assert any("corrupted or incomplete" in line for line in lines)
    assert sum(line.startswith("stream-engine: STREAM_ENGINE__MODEL: ") for line in lines) == 1
