"""A batch from the command line: uploaded, followed, its results written; it goes on when nobody follows it."""

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self, TypeVar

import aiohttp
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from stream_cli.chat import Server, find, refusal
from stream_core.errors import ConfigError, StreamBroken, UpstreamUnavailable

ENDPOINT: Final = "/v1/chat/completions"
_ENDED: Final = frozenset({"completed", "failed", "expired", "cancelled"})
_LOOK_S: Final = 0.5
_GIVE_UP_S: Final = 60.0
"""A gateway that is away so long is given up; the batch does not need it to be followed."""
_PIECE: Final = 256 * 1024

_T = TypeVar("_T")


@dataclass(frozen=True)
class Outputs:
    """Where the results go."""

    answers: Path
    errors: Path

    @classmethod
    def of(cls, name: str, answers: Path | None) -> Self:
        """Name them after the batch's file or id."""
        return cls(answers or Path(f"{name}.results.jsonl"), Path(f"{name}.errors.jsonl"))


class Session(AbstractContextManager["Session"]):
    """A connection to the running gateway.

    Args:
        home: state folder of `stream up`.

    Raises:
        ConfigError: none runs there.
    """

    def __init__(self, home: Path) -> None:
        self._server: Server = find(home)
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        """Keep it open until the block ends."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self._runner.close()

    def start(self, file: Path, *, model: str = "", window: str = "24h") -> str:
        """Upload a file and make a batch of it.

        Args:
            file: JSONL.
            model: put into every line; empty leaves them as they are.
            window: completion window.

        Returns:
            The batch's id.

        Raises:
            StreamError: not readable, refused, or nobody there.
        """
        try:
            with file.open("rb") as content:
                source = _with_model(content, model) if model else content
                return self._run(lambda http: self._start(http, source, file.name, window))
        except OSError as error:
            raise ConfigError(f"can't read {file}: {error.strerror or error}", param="FILE") from error

    def follow(self, batch: str, outputs: Outputs) -> int:
        """Follow a batch to its end and write its results.

        Returns:
            Exit code: 0 when every line succeeded.

        Raises:
            StreamError: no such batch, or the gateway is away for too long.
        """
        console = Console(stderr=True)
        found = self._run(lambda http: self._follow(http, batch, outputs, console))
        counts = found["request_counts"]
        for problem in (found.get("errors") or {}).get("data", []):
            console.print(f"{problem['code']}: {problem['message']}", highlight=False, markup=False, soft_wrap=True)
        words = f"{found['status']}: {counts['completed']:,} of {counts['total']:,} lines succeeded"
        files = [str(path) for path in (outputs.answers, outputs.errors) if path.exists()]
        console.print(
            words + (f", {counts['failed']:,} failed" if counts["failed"] else ""), highlight=False, soft_wrap=True
        )
        console.print(f"written: {', '.join(files) or 'nothing'}", highlight=False, markup=False, soft_wrap=True)
        return 0 if found["status"] == "completed" and not counts["failed"] else 1

    def cancel(self, batch: str) -> str:
        """Cancel a batch; its status then."""
        found = self._run(lambda http: self._ask(http, "POST", f"/batches/{batch}/cancel"))
        return str(found["status"])

    def _run(self, work: Callable[[aiohttp.ClientSession], Awaitable[_T]]) -> _T:
        async def connected() -> _T:
            headers = {"Authorization": f"Bearer {self._server.key}"}
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=60)
            async with aiohttp.ClientSession(headers=headers, timeout=timeout) as http:
                try:
                    return await work(http)
                except (aiohttp.ClientError, TimeoutError) as error:
                    told = str(error) or type(error).__name__
                    raise UpstreamUnavailable(f"{self._server.base_url}: {told}") from error

        return self._runner.run(connected())

    async def _start(self, http: aiohttp.ClientSession, content: IO[bytes], name: str, window: str) -> str:
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", content, filename=name, content_type="application/jsonl")
        file = await self._ask(http, "POST", "/files", data=form)
        wish = {"input_file_id": file["id"], "endpoint": ENDPOINT, "completion_window": window}
        return str((await self._ask(http, "POST", "/batches", json=wish))["id"])

    async def _follow(
        self, http: aiohttp.ClientSession, id_: str, outputs: Outputs, console: Console
    ) -> dict[str, Any]:
        columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            bar = progress.add_task("waiting", total=None)
            seen = time.monotonic()
            while True:
                try:
                    batch = await self._ask(http, "GET", f"/batches/{id_}")
                    seen = time.monotonic()
                except (UpstreamUnavailable, aiohttp.ClientError, TimeoutError):
                    if time.monotonic() - seen > _GIVE_UP_S:
                        raise
                    progress.update(bar, description="gateway away")
                else:
                    counts = batch["request_counts"]
                    done = counts["completed"] + counts["failed"]
                    progress.update(bar, description=batch["status"], completed=done, total=counts["total"] or None)
                    if batch["status"] in _ENDED:
                        break
                await asyncio.sleep(_LOOK_S)
        for file, path in ((batch["output_file_id"], outputs.answers), (batch["error_file_id"], outputs.errors)):
            if file:
                await self._download(http, file, path)
        return batch

    async def _download(self, http: aiohttp.ClientSession, file: str, path: Path) -> None:
        part = path.with_name(f"{path.name}.part")
        async with http.get(f"{self._server.base_url}/files/{file}/content") as response:
            if response.status != HTTPStatus.OK:
                raise refusal(response.status, await response.read())
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as target:
                async for data in response.content.iter_chunked(_PIECE):
                    target.write(data)
                if target.tell() != response.content_length:
                    raise StreamBroken(f"{file}: {target.tell():,} bytes came of {response.content_length:,}")
        part.replace(path)

    async def _ask(self, http: aiohttp.ClientSession, method: str, path: str, **body: Any) -> dict[str, Any]:
        async with http.request(method, self._server.base_url + path, **body) as response:
            data = await response.read()
            if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
                raise UpstreamUnavailable(refusal(response.status, data).message)
            if response.status != HTTPStatus.OK:
                raise refusal(response.status, data)
            return dict(json.loads(data))


@contextmanager
def goes_on(batch: str) -> Iterator[None]:
    """Say at Ctrl-C that the batch does not end with who follows it."""
    try:
        yield
    except KeyboardInterrupt:
        words = f"\nThe batch goes on. See it again: stream batch follow {batch}"
        Console(stderr=True).print(words, highlight=False, soft_wrap=True)
        raise


def _with_model(content: IO[bytes], model: str) -> IO[bytes]:
    """Put a model into every line; a line that is no request stays as it is, and the gateway says so."""
    changed = tempfile.TemporaryFile()  # noqa: SIM115  (only its owner can open it, and it is gone with this process)
    for line in content:
        try:
            request = json.loads(line)
            request["body"]["model"] = model
        except (ValueError, TypeError, KeyError):
            changed.write(line)
        else:
            changed.write(json.dumps(request).encode() + b"\n")
    changed.seek(0)
    return changed
