"""`stream chat`: ask the running gateway, and see who answers."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from stream_cli import leftovers
from stream_cli.home import Home
from stream_cli.readiness import dialled
from stream_core.errors import ConfigError, RemoteError, StreamBroken, StreamError, UpstreamUnavailable
from stream_core.openai.sse import EventSplitter, data_of, is_done

_CONNECT_TIMEOUT_S: Final = 5.0
_IDLE_TIMEOUT_S: Final = 600.0


@dataclass(frozen=True)
class Server:
    """Where to ask, and with which key."""

    base_url: str
    key: str


@dataclass(frozen=True)
class Answered:
    """Who answered, by the gateway's headers."""

    tier: str
    model: str
    reason: str
    demo: bool


def find(home: Path) -> Server:
    """Find the gateway that `stream up` started.

    Raises:
        ConfigError: none runs under this state folder.
    """
    folder = Home(home.expanduser().absolute())
    record = leftovers.read(folder)
    if record is None or not record.alive or not record.port:
        raise ConfigError(f"no `stream up` is ready under {folder.root}; start it, or give its --home")
    try:
        key = folder.api_key.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"can't read {folder.api_key}: {error.strerror}") from error
    return Server(f"http://{dialled(record.host)}:{record.port}/v1", key)


class Conversation:
    """A conversation with the gateway: it keeps both sides' turns."""

    def __init__(self, server: Server, model: str) -> None:
        self._server = server
        self._model = model
        self._turns: list[dict[str, str]] = []

    async def ask(self, question: str, write: Callable[[str], None]) -> Answered:
        """Ask one question and write the answer as it comes.

        Returns:
            Who answered.

        Raises:
            StreamError: refused, not reachable, or broken off; the turn is then forgotten.
        """
        turns = [*self._turns, {"role": "user", "content": question}]
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S, sock_read=_IDLE_TIMEOUT_S)
        headers = {"Authorization": f"Bearer {self._server.key}"}
        body = {"model": self._model, "messages": turns, "stream": True}
        parts: list[str] = []
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
                session.post(f"{self._server.base_url}/chat/completions", json=body) as response,
            ):
                if response.status != HTTPStatus.OK:
                    raise refusal(response.status, await response.read())
                async for piece in pieces(response.content.iter_any()):
                    parts.append(piece)
                    write(piece)
                tier, model, reason = who(response.headers)
                demo = await self._is_demo(session, f"{tier}/{model}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UpstreamUnavailable(f"{self._server.base_url}: {error or type(error).__name__}") from error
        self._turns = [*turns, {"role": "assistant", "content": "".join(parts)}]
        return Answered(tier, model, reason, demo)

    async def _is_demo(self, session: aiohttp.ClientSession, name: str) -> bool:
        """Ask the gateway whether a model is the demo model; one that it no longer lists was none."""
        async with session.get(f"{self._server.base_url}/models/{quote(name)}") as response:
            return response.status == HTTPStatus.OK and demo_mark(await response.read())


async def pieces(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Turn the bytes of an OpenAI event stream into pieces of text.

    Raises:
        StreamBroken: an error event, or an end without "[DONE]".
    """
    splitter = EventSplitter()
    async for chunk in chunks:
        for event in splitter.feed(chunk):
            if is_done(event):
                return
            data = data_of(event)
            if data is not None:
                yield text_of(data)
    raise StreamBroken("the answer ended before it was complete")


def text_of(data: bytes) -> str:
    """Read the text of one event; most have some, the first and the last have none.

    Raises:
        StreamBroken: it says that the answer failed, or is no chunk of an answer.
    """
    try:
        event: Any = json.loads(data)
        if "error" in event:
            raise StreamBroken(message_of(event))
        return "".join(choice["delta"].get("content") or "" for choice in event.get("choices", ()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StreamBroken(f"an event is no chunk of an answer: {data[:80]!r}") from error


def message_of(body: Any) -> str:
    """Read the message of an OpenAI error body."""
    error = body.get("error") if isinstance(body, dict) else None
    found = error.get("message") if isinstance(error, dict) else error
    return str(found or "no reason given")


def refusal(status: int, body: bytes) -> StreamError:
    """Turn an error answer into our error, with the status and the gateway's own words."""
    try:
        told = message_of(json.loads(body))
    except ValueError:
        told = body[:200].decode("utf-8", "replace")
    return RemoteError(f"{told} (HTTP {status})")


def who(headers: Mapping[str, str]) -> tuple[str, str, str]:
    """Read (tier, model, reason) from the gateway's headers."""
    return (
        headers.get("x-stream-tier", "?"),
        headers.get("x-stream-model", "?"),
        headers.get("x-stream-reason", ""),
    )


def demo_mark(body: bytes) -> bool:
    """Read from a model's description whether its answers are not to be believed."""
    try:
        return bool(json.loads(body)["stream"]["demo"])
    except (ValueError, KeyError, TypeError):
        return False
