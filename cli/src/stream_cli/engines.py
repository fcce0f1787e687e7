"""Engines of this machine: OpenAI-compatible servers on their default ports, and what the embedded engine has."""

import http.client
import json
import os
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from stream_cli.effective import EngineFacts, LocalServer
from stream_core.errors import ConfigError

_PROBE_TIMEOUT_S: Final = 1.0
_MAX_ANSWER: Final = 4 * 1024 * 1024
_LIST_TIMEOUT_S: Final = 60.0
_MIN_CONTEXT: Final = 256


@dataclass(frozen=True)
class Default:
    """A server and the port that it takes when nobody tells it another."""

    title: str
    port: int
    context: int
    """Tokens that it keeps by default, where its model list does not say."""


KNOWN: Final = (
    Default("Ollama", 11434, 4096),
    Default("LM Studio", 1234, 4096),
    Default("vLLM", 8000, 4096),
    Default("llama.cpp", 8080, 4096),
)
"""In order of preference."""


def offered(answer: Any, context: int) -> tuple[tuple[str, int], ...]:
    """Read a model list. Pure.

    Args:
        answer: of `GET /v1/models`, decoded; anything that is no model list offers nothing.
        context: window in tokens of a model whose entry does not say it.

    Returns:
        (id, context window) of each model that can chat, as far as the name tells.
    """
    entries = answer.get("data") if isinstance(answer, dict) else None
    found = []
    for entry in entries if isinstance(entries, list) else []:
        name = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(name, str) and 0 < len(name) <= 200 and "embed" not in name.lower():  # noqa: PLR2004  (ModelConfig's)
            window = entry.get("max_model_len")
            found.append((name, window if isinstance(window, int) and window >= _MIN_CONTEXT else context))
    return tuple(found)


def ask(
    port: int, path: str, *, host: str = "127.0.0.1", key: str = "", timeout_s: float = _PROBE_TIMEOUT_S
) -> tuple[int, bytes, str]:
    """GET a path of a server on this machine.

    Returns:
        (status, body, reason in words); status 0 when nobody answers.
    """
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read(_MAX_ANSWER), response.reason
    except (OSError, http.client.HTTPException) as error:
        return 0, b"", str(error) or type(error).__name__
    finally:
        connection.close()


def _probe(default: Default) -> LocalServer | None:
    status, body, _ = ask(default.port, "/v1/models")
    try:
        answer = json.loads(body) if status == http.client.OK else None
    except ValueError:
        answer = None
    models = offered(answer, default.context)
    return LocalServer(default.title, f"http://127.0.0.1:{default.port}/v1", models) if models else None


def find_server(*, skip_port: int, known: tuple[Default, ...] = KNOWN) -> LocalServer | None:
    """Look for a running server that offers a model; all ports are asked at once.

    Args:
        skip_port: our own gateway's.
        known: where to look, in order of preference.
    """
    places = [default for default in known if default.port != skip_port]
    with ThreadPoolExecutor(max_workers=len(places) or 1) as pool:
        return next((server for server in pool.map(_probe, places) if server is not None), None)


def facts_from(record: Mapping[str, Any]) -> EngineFacts:
    """Read the embedded engine's own words: its ready file, or one line of its model list. Pure but for the install.

    Raises:
        ConfigError: the record lacks what we need.
    """
    try:
        demo = bool(record["demo"])
        return EngineFacts(
            model=str(record["model"]),
            context=int(record["context"]),
            demo=demo,
            source=str(record["source"]),
            path=str(record.get("path") or record.get("file") or ""),
            capabilities=tuple(map(str, record.get("capabilities", ()))),
            tokenizer=demo_tokenizer() if demo else "",
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"the embedded engine does not say what it serves: {error!r}") from error


def demo_tokenizer() -> str:
    """Name the folder of the demo model's tokenizer, without importing the engine; empty when it is not installed."""
    spec = find_spec("stream_engine")
    places = spec.submodule_search_locations if spec else None
    folder = Path(places[0]) / "demo" if places else None
    return str(folder) if folder is not None and (folder / "tokenizer.json").exists() else ""


def list_facts(python: str, environ: Mapping[str, str], home: Path, wanted: str = "") -> EngineFacts:
    """Ask the embedded engine what it would serve, without starting it.

    Args:
        python: with the engine installed.
        environ: says where models lie.
        home: STREAM_HOME.
        wanted: a model's name or path; empty takes the first that can chat.

    Raises:
        ConfigError: the engine does not answer, or has nothing.
    """
    command = [python, "-m", "stream_engine.models"]
    env = {**environ, "STREAM_HOME": os.fspath(home)}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=_LIST_TIMEOUT_S)
        records = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", None) or str(error)
        raise ConfigError(f"the embedded engine does not list its models: {told.strip().splitlines()[-1:]}") from error
    for record in records:
        if wanted in {record.get("model"), record.get("path")} or (wanted in {"", "auto"} and record.get("chat")):
            return facts_from({**record, "context": min(int(record.get("context") or 8192), 8192)})
    raise ConfigError(f"the embedded engine has no model {wanted or 'that can chat'}; `stream models list` shows all")
