"""A tier behind HTTP: any OpenAI-compatible server, nearby (the local engine) or far away (a cloud provider)."""

import asyncio
import contextlib
import io
import logging
import os
import socket
from dataclasses import dataclass
from http import HTTPStatus
from types import SimpleNamespace
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import orjson

from stream_core.deployment import TierConfig
from stream_core.errors import (
    ConfigError,
    InvalidRequest,
    StreamError,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from stream_core.ids import to_hex
from stream_core.openai.requests import OUTSIDE
from stream_core.settings import read_secret
from stream_core.trace_context import outgoing
from stream_gateway.backends.contract import Answer, Call, OfferedModel, offered
from stream_gateway.backends.health import Health, is_nearby
from stream_gateway.backends.http_answer import HttpAnswer
from stream_gateway.phases import Phases
from stream_gateway.standing import Standing

_log = logging.getLogger(__name__)

_IDLE_CONNECTION_S: Final = 4.0  # below the 5 s after which uvicorn and llama.cpp close: a dead one is never reused
_RECEIVE_BUFFER: Final = 256 * 1024
_MAX_ERROR_BODY: Final = 64 * 1024
_ERROR_BODY_S: Final = 5.0
_LARGE_BODY: Final = 1 << 20  # aiohttp wants larger ones as a file
_FIRST_PROBE_PAUSE_S: Final = 0.1
_PROBE_TIMEOUT_S: Final = 5.0
_CANCEL_AGAIN_S: Final = 1.0


@dataclass(slots=True)
class _Way:
    """How a request goes out."""

    phases: Phases
    kept: bool = False
    """Whether on a connection that was kept."""


def _watching_ways() -> aiohttp.TraceConfig:
    """Fill in the `_Way` that a request brings."""

    async def reused(
        _: aiohttp.ClientSession, context: SimpleNamespace, __: aiohttp.TraceConnectionReuseconnParams
    ) -> None:
        if isinstance(context.trace_request_ctx, _Way):
            context.trace_request_ctx.kept = True

    async def sent(
        _: aiohttp.ClientSession, context: SimpleNamespace, __: aiohttp.TraceRequestHeadersSentParams
    ) -> None:
        if isinstance(context.trace_request_ctx, _Way):
            context.trace_request_ctx.phases.lap("network")

    config = aiohttp.TraceConfig()
    config.on_connection_reuseconn.append(reused)
    config.on_request_headers_sent.append(sent)
    return config


class HttpBackend:
    """One tier of kind http."""

    def __init__(self, tier: TierConfig, *, probe_interval_s: float) -> None:
        """Describe it; `start` connects.

        Args:
            tier: of the deployment.
            probe_interval_s: seconds between two probes of a nearby server; a far one is never probed.

        Raises:
            ConfigError: no usable base_url.
        """
        _check_url(tier)
        self._tier = tier
        self._url = tier.base_url.rstrip("/")
        self._engine_models = {model.id: model.engine_model for model in tier.models}
        self._offered = [offered(model) for model in tier.models]
        self._nearby = is_nearby(tier.base_url)
        self._health = Health(probed=self._nearby)
        self._probe_interval_s = probe_interval_s
        self._suspicion = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._key_fault: str | None = None
        self._authorization: dict[str, str] = {}

    def models(self) -> list[OfferedModel]:
        """What the configuration lists."""
        return self._offered

    def unavailable(self, model: str) -> str | None:  # noqa: ARG002  (one server: its models share its fate)
        """Why it can't be asked now."""
        return self._key_fault or self._health.fault(_now())

    async def start(self) -> None:
        """Open the connection pool and begin to watch."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=_IDLE_CONNECTION_S, socket_factory=_bounded_socket
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[_watching_ways()],
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._tier.connect_timeout_s),
            # An institution's proxy leads out of the house; what is nearby must never be sent there.
            trust_env=not self._nearby,
        )
        self._read_key()
        self._watcher = asyncio.create_task(self._watch(), name=f"watch tier {self._tier.name}")

    async def aclose(self) -> None:
        """Stop watching and close every connection."""
        if self._watcher is not None:
            # A cancellation that meets the end of a probe's own timeout can get lost in the library: then once more.
            while not self._watcher.done():
                self._watcher.cancel()
                await asyncio.wait([self._watcher], timeout=_CANCEL_AGAIN_S)
        if self._session is not None:
            await self._session.close()

    def standings(self, model: str) -> dict[str, Standing]:  # noqa: ARG002  (there are none)
        """No clusters."""
        return {}

    def wake(self, model: str, clusters: frozenset[str] | None) -> None:
        """Nothing that can be started."""

    def note(self) -> str:
        """Nothing."""
        return ""

    async def open(self, call: Call) -> Answer:
        """Send the request and wait for status 200."""
        if self._session is None or self._key_fault is not None:
            fault = self._key_fault or "it is not started"
            raise UpstreamUnavailable(f"the tier '{self._tier.name}' is away: {fault}")
        try:
            body = orjson.dumps({**call.request, "model": self._engine_models[call.model]})
        except orjson.JSONEncodeError as error:
            raise InvalidRequest(f"the request can't be written as JSON: {error}") from error
        headers = {
            "accept": "text/event-stream" if call.stream else "application/json",
            "accept-encoding": "identity",  # the bytes are passed on as they come
            "content-type": "application/json",
            "x-request-id": to_hex(call.request_id),
            **call.headers,
            **outgoing(),
            **self._authorization,
        }
        limit_s = self._tier.first_token_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                response = await self._post(self._session, call, body, headers)
        except aiohttp.ServerTimeoutError as error:
            raise self._away(f"no connection within {self._tier.connect_timeout_s:g} s") from error
        except TimeoutError as error:
            self._away(f"no answer within {limit_s:g} s")
            raise UpstreamTimeout(f"the tier '{self._tier.name}' gave no answer within {limit_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._away(_in_words(error)) from error
        if response.status != HTTPStatus.OK:
            raise await self._refused(response)
        self._health.succeeded()
        return HttpAnswer(response, first_timeout_s=limit_s, idle_timeout_s=self._tier.idle_timeout_s)

    async def _post(
        self, session: aiohttp.ClientSession, call: Call, body: bytes, headers: dict[str, str]
    ) -> aiohttp.ClientResponse:
        """Ask; a kept connection that turns out to be closed is not the server's answer, and is passed over.

        Engines close them when they please, llama.cpp after each stream. A far service is asked once: it may have
        begun, and would be paid twice.
        """
        url = (self._url.removesuffix("/v1") if call.path in OUTSIDE else self._url) + call.path
        while True:
            data = body if len(body) < _LARGE_BODY else io.BytesIO(body)
            way = _Way(call.phases)
            try:
                return await session.post(url, data=data, headers=headers, allow_redirects=False, trace_request_ctx=way)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if not (self._nearby and way.kept):
                    raise

    async def _refused(self, response: aiohttp.ClientResponse) -> StreamError:
        """Tell what an answer with another status than 200 means; the connection is given back or closed."""
        tier, status = self._tier.name, response.status
        body = await _error_body(response)
        match status:
            case HTTPStatus.UNAUTHORIZED | HTTPStatus.PAYMENT_REQUIRED | HTTPStatus.FORBIDDEN:
                # About our credentials, not the caller's; its text may quote our key, which may have been replaced.
                self._read_key()
                return self._away(f"it refuses the gateway's credentials (HTTP {status})")
            case HTTPStatus.REQUEST_TIMEOUT:
                return UpstreamTimeout(f"the tier '{tier}' says that the request took too long (HTTP {status})")
            case HTTPStatus.BAD_GATEWAY | HTTPStatus.SERVICE_UNAVAILABLE | HTTPStatus.GATEWAY_TIMEOUT:
                return self._away(f"it is not ready (HTTP {status})")
            case _ if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
                message = f"the tier '{tier}' refuses the request (HTTP {status})"
                return UpstreamRejected(message, status=status, body=body, content_type=response.content_type)
            case _:
                return UpstreamUnavailable(f"the tier '{tier}' failed (HTTP {status})")

    def _away(self, reason: str) -> UpstreamUnavailable:
        self._health.failed(reason, _now())
        self._suspicion.set()
        return UpstreamUnavailable(f"the tier '{self._tier.name}' is away: {reason}")

    def _read_key(self) -> None:
        """Read the key from where the configuration says; without one the tier is away until it is there."""
        name, file, fault = self._tier.api_key_env, self._tier.api_key_file, None
        key = ""
        try:
            if file is not None:
                key = read_secret(file)
            elif name:
                key = os.environ.get(name, "").strip()
                fault = None if key else f"the environment variable {name} with its API key is not set"
        except ConfigError as error:
            fault = error.message
        if fault is not None and fault != self._key_fault:
            _log.error("tier %s: %s", self._tier.name, fault)
        self._key_fault = fault
        self._authorization = {"authorization": f"Bearer {key}"} if key else {}

    async def _watch(self) -> None:
        """Probe a nearby server, soon again while it is away; of a far one only the key is looked after."""
        pause_s = _FIRST_PROBE_PAUSE_S
        while True:
            if self._key_fault is not None:
                self._read_key()
            if self._nearby:
                await self._probe()
            if self.unavailable("") is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._probe_interval_s):
                        await self._suspicion.wait()
                pause_s = _FIRST_PROBE_PAUSE_S
            await asyncio.sleep(pause_s)  # also after a suspicion: a flood of failures is one
            pause_s = min(2 * pause_s, self._probe_interval_s)
            self._suspicion.clear()

    async def _probe(self) -> None:
        if self._session is None:
            return
        before = self._health.fault(_now())
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                async with self._session.get(
                    f"{self._url}/models", headers=self._authorization, allow_redirects=False
                ) as response:
                    status = response.status
        except TimeoutError:
            self._health.failed(f"no answer to a probe within {_PROBE_TIMEOUT_S:g} s", _now())
        except (aiohttp.ClientError, OSError) as error:
            self._health.failed(_in_words(error), _now())
        else:
            if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
                self._health.failed(f"it refuses the gateway's credentials (HTTP {status})", _now())
            elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                self._health.failed(f"it is not ready (HTTP {status})", _now())
            else:
                self._health.succeeded()
        after = self._health.fault(_now())
        if after != before:
            _log.info("tier %s: %s", self._tier.name, after or "up", extra={"tier": self._tier.name})


def _bounded_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Open a socket whose unread bytes stay few: the kernel would keep megabytes for a client that does not read."""
    made = socket.socket(*address[:3])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    return made


def _check_url(tier: TierConfig) -> None:
    try:
        scheme, host = urlsplit(tier.base_url)[:2]
    except ValueError as error:
        raise ConfigError(f"tier {tier.name!r}: base_url {tier.base_url!r}: {error}") from error
    if scheme not in {"http", "https"} or not host:
        raise ConfigError(f"tier {tier.name!r}: base_url {tier.base_url!r} must begin with http:// or https://")
    if scheme == "http" and (tier.api_key_env or tier.api_key_file) and not is_nearby(tier.base_url):
        raise ConfigError(f"tier {tier.name!r}: its API key would travel in the clear: base_url must be https://")


async def _error_body(response: aiohttp.ClientResponse) -> bytes:
    """Read what an error says, within bounds, and close the connection."""
    body = b""
    try:
        async with asyncio.timeout(_ERROR_BODY_S):
            while len(body) < _MAX_ERROR_BODY and (data := await response.content.readany()):
                body += data
    except (TimeoutError, aiohttp.ClientError):
        pass  # the status says enough
    finally:
        response.close()
    return body


def _in_words(error: Exception) -> str:
    """Describe a failed connection without addresses and without content."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "its name can't be resolved"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return "its certificate can't be trusted"
        case aiohttp.ClientConnectorError() | ConnectionRefusedError():
            return "no connection"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            return "the connection was lost before an answer"
        case _:
            return f"no valid answer ({type(error).__name__})"


def _now() -> float:
    return asyncio.get_running_loop().time()
