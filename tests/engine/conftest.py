"""The real engine as a process, and GGUF files small enough to write by hand."""

import json
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from stream_core.testing.programs import Program, start

Chat = Callable[..., Any]


def write_gguf(path: Path, **metadata: str | int) -> Path:
    """Write a GGUF of metadata alone: strings, and integers as uint32; `general__name` is the key general.name."""

    def text(value: str) -> bytes:
        data = value.encode()
        return struct.pack("<Q", len(data)) + data

    body = b""
    for key, value in metadata.items():
        body += text(key.replace("__", "."))
        body += struct.pack("<I", 8) + text(value) if isinstance(value, str) else struct.pack("<II", 4, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(metadata)) + body)
    return path


def chat_gguf(path: Path, **more: str | int) -> Path:
    """Write a GGUF whose header is that of a chat model."""
    facts = {"general__architecture": "llama", "llama__context_length": 4096, "tokenizer__chat_template": "{{ 1 }}"}
    return write_gguf(path, **facts, **more)


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The engine with the demo model, shared by the tests that only ask it something."""
    empty = str(tmp_path_factory.mktemp("nothing"))
    env = {"STREAM_ENGINE__MODEL": "auto", "STREAM_MODELS_DIR": empty, "HF_HUB_CACHE": empty}
    with start("stream_engine", env=env) as program:
        yield program


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that opens a connection per request: llama.cpp closes one after a stream, whatever its header says."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        yield session


@pytest.fixture
def chat(engine: Program, http: aiohttp.ClientSession) -> Chat:
    """Give a function that asks the shared engine a question, or messages, and decodes the answer."""

    async def ask(messages: str | list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        body = {"model": "stream-demo", "messages": messages, "max_tokens": 16, **fields}
        async with http.post(f"{engine.ready['base_url']}/chat/completions", json=body) as response:
            assert response.status == 200, await response.text()
            answer: dict[str, Any] = json.loads(await response.read())
            return answer

    return ask
