"""llama.cpp in this process: its parameters from our settings, its start, its end."""

import asyncio
import contextlib
import logging
import os
import socket
import sys
from typing import Any, Final, NoReturn

import xllamacpp

from stream_core.errors import ConfigError
from stream_core.settings import read_secret
from stream_engine.models import FIELD, Model
from stream_engine.settings import EngineSettings

log = logging.getLogger(__name__)

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
MAX_DEFAULT_CONTEXT: Final = 8192
HTTP_THREADS: Final = 128  # each open request holds one; when all are taken, even /health waits
SMALL_MODEL: Final = 100_000_000  # bytes
_MODEL_LOAD_FAILED: Final = "llama.cpp cannot load it: damaged, incomplete, or too large for this machine"


def context_of(settings: EngineSettings, model: Model) -> int:
    """Return the context window of one request in tokens."""
    if settings.context:
        return settings.context
    return min(model.header.context or MAX_DEFAULT_CONTEXT, MAX_DEFAULT_CONTEXT)


def threads_of(settings: EngineSettings, model: Model) -> int:
    """Return how many threads compute; 0 leaves it to llama.cpp, which takes one per physical core."""
    if settings.threads or model.size > SMALL_MODEL:
        return settings.threads
    # The threads of a small model mostly wait for each other: on two busy cores, one is six times as fast as two.
    return 1


def capabilities(model: Model) -> list[str]:
    """Return what callers may use with this model, as measured in README.md."""
    if model.header.embedding_only:
        return ["embeddings", "tokenize"]
    found = ["completions", "stream", "usage", "logprobs", "json_schema", "seed", "tokenize"]
    return [*found, "chat", "tools", "apply_template", "continue"] if model.header.has_chat_template else found


def check_addresses(settings: EngineSettings) -> None:
    """Refuse ports that somebody else has, and an engine that is open to the network without a key.

    Raises:
        ConfigError: the message names the setting and what to do.
    """
    if settings.api_key_file is None and settings.host not in LOOPBACK:
        raise ConfigError(
            f"{settings.host} is open to other machines; set STREAM_ENGINE__API_KEY_FILE, or listen on 127.0.0.1",
            param="STREAM_ENGINE__HOST",
        )
    if settings.port and settings.port == settings.health_port:
        raise ConfigError(
            f"{settings.port} is the API's port too; set another, or 0 for a free one",
            param="STREAM_ENGINE__HEALTH_PORT",
        )
    _check_port(settings.host, settings.port, "PORT")
    _check_port(settings.host, settings.health_port, "HEALTH_PORT")


def _check_port(host: str, port: int, field: str) -> None:
    if not port:
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host} port {port} ({error.strerror}); set another port, or 0 for a free one",
                param=f"STREAM_ENGINE__{field}",
            ) from error


def parameters(settings: EngineSettings, model: Model) -> Any:
    """Return llama.cpp's parameters.

    Raises:
        ConfigError: the key file is missing or empty.
    """
    params = xllamacpp.CommonParams()
    params.model.path = str(model.path)
    params.model_alias = {settings.alias or model.alias}
    params.hostnames = [settings.host]
    params.port = settings.port
    params.n_parallel = settings.parallel
    params.n_ctx = context_of(settings, model) * settings.parallel
    params.n_batch = params.n_ubatch = settings.batch
    params.n_gpu_layers = settings.gpu_layers
    if threads := threads_of(settings, model):
        params.cpuparams.n_threads = threads
    params.n_threads_http = HTTP_THREADS
    params.cache_ram_mib = settings.prompt_cache_mib
    params.embedding = model.header.embedding_only
    if settings.api_key_file is not None:
        try:
            params.api_keys = [read_secret(settings.api_key_file)]
        except ConfigError as error:
            raise ConfigError(error.message, param="STREAM_ENGINE__API_KEY_FILE") from error
    params.offline = True
    params.endpoint_slots = False  # it shows the prompts of running requests
    params.ui = False
    params.cors_origins = ""  # no web page may call the engine from a browser
    # Always 0, silence: its warnings about a bad request quote the request.
    params.verbosity = 0
    return params


class Llama:
    """A running llama.cpp server; make it with `start`. It ends with the process, see `leave`."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.port = int(str(server.listening_address).rpartition(":")[2])

    @classmethod
    async def start(cls, params: Any, *, explain: bool) -> "Llama":
        """Load the model and listen; returns when requests are answered.

        Args:
            params: from `parameters`.
            explain: whether llama.cpp writes to stderr why it refuses a model.

        Raises:
            ConfigError: llama.cpp refuses the model.
        """
        try:
            return cls(await asyncio.to_thread(xllamacpp.Server, params))
        except RuntimeError as error:
            if explain:
                await asyncio.to_thread(_say_why, params)
            raise ConfigError(
                f"{params.model.path}: {_MODEL_LOAD_FAILED}; STREAM_ENGINE__LOG_LEVEL=DEBUG shows why", param=FIELD
            ) from error


def silence() -> None:
    """Leave stderr to Python alone; call it before logs are configured.

    llama.cpp writes a grammar or a JSON schema that it cannot use straight to the process's stderr, at any verbosity,
    and with it what a caller sent.
    """
    kept = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    sys.stderr = kept


def _say_why(params: Any) -> None:
    """Load once more, with llama.cpp's own errors on stderr: no request has come yet that they could quote."""
    os.dup2(sys.stderr.fileno(), 2)
    params.verbosity = 1
    with contextlib.suppress(RuntimeError):
        xllamacpp.Server(params)


def leave() -> NoReturn:
    """End the process with exit code 0, whatever llama.cpp is doing."""
    # llama.cpp's destructor waits for every open stream, up to 30 s, and holds the interpreter's lock while it waits.
    # There is nothing to save: callers see their streams cut, and never a `[DONE]`.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
