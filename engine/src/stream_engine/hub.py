"""The Hugging Face hub's routes that a download needs: a repository's files, and one file with resume.

Routes: `GET /api/models/<repo>?blobs=true` lists files with size and SHA-256; `GET /<repo>/resolve/<commit>/<file>`
answers with the bytes or redirects to where they lie.
"""

import asyncio
import hashlib
import ipaddress
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
from yarl import URL

from stream_core.errors import InvalidRequest, ModelNotFound, NotAllowed, RemoteError, UpstreamUnavailable

DEFAULT_ENDPOINT: Final = "https://huggingface.co"
CHUNK: Final = 1024 * 1024
MAX_LISTING: Final = 16 * 1024 * 1024
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=60)
_GONE: Final = "download the model when there is a network, or go on with the demo model"

Progress = Callable[[int], None]
"""Called with the number of bytes that are on disk now."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository."""

    name: str
    size: int
    sha256: str
    """Hexadecimal; empty when the hub publishes none."""


@dataclass(frozen=True)
class Repository:
    """A repository at one commit."""

    name: str
    commit: str
    licence: str
    """As its card states it; empty when it states none."""
    files: tuple[RemoteFile, ...]


def _licence(facts: dict[str, Any]) -> str:
    card = facts.get("cardData")
    named = card.get("license_name") or card.get("license") if isinstance(card, dict) else None
    if isinstance(named, list):
        named = ", ".join(str(item) for item in named)
    tags = (str(tag) for tag in facts.get("tags") or [])
    text = str(named or next((tag[8:] for tag in tags if tag.startswith("license:")), ""))
    return "".join(character for character in text if character.isprintable())[:100]


def _hexadecimal(value: object, length: int) -> str:
    """Return a hash that the hub names, or nothing: it becomes part of a file's name and of a URL."""
    text = str(value).lower()
    return text if re.fullmatch(rf"[0-9a-f]{{{length}}}", text) else ""


def _file(facts: dict[str, Any]) -> RemoteFile:
    lfs = facts.get("lfs") or {}
    size = int(lfs.get("size") or facts.get("size") or 0)
    return RemoteFile(str(facts["rfilename"]), size, _hexadecimal(lfs.get("sha256") or lfs.get("oid"), 64))


def may_carry_token(url: URL) -> bool:
    """Tell whether a token may be sent to a URL: encrypted, or on this machine."""
    if url.scheme == "https" or url.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(url.host or "").is_loopback
    except ValueError:
        return False


class Hub:
    """A client of the hub; use it as `async with`."""

    def __init__(
        self, endpoint: str = DEFAULT_ENDPOINT, token: str = "", *, attempts: int = 5, pause_s: float = 1.0
    ) -> None:
        """Take where and as whom to ask.

        Args:
            endpoint: base URL; a mirror's works too.
            token: of the user, or empty; never sent unencrypted to another machine, nor to where a redirect leads.
            attempts: how often a broken download is taken up again without progress.
            pause_s: before the first further attempt; doubles each time.
        """
        self._endpoint = URL(endpoint.rstrip("/"))
        self._headers = {"User-Agent": "stream-engine"}
        if token and may_carry_token(self._endpoint):
            self._headers["Authorization"] = f"Bearer {token}"
        self._attempts = attempts
        self._pause_s = pause_s

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=_TIMEOUT, trust_env=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def describe(self, repo: str) -> Repository:
        """Ask for the files of a repository.

        Raises:
            ModelNotFound: there is none of this name.
            NotAllowed: it asks for a token or an accepted licence.
            UpstreamUnavailable: the hub cannot be reached.
            RemoteError: its answer makes no sense.
        """
        url = self._endpoint / "api" / "models" / repo
        try:
            async with self._session.get(url.with_query(blobs="true")) as response:
                self._check(response, repo)
                body = bytearray()
                async for piece in response.content.iter_chunked(CHUNK):
                    body += piece
                    if len(body) > MAX_LISTING:
                        raise RemoteError(f"the list of files has more than {MAX_LISTING:,} bytes")
                facts = _parse(bytes(body))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error
        try:
            files = tuple(_file(item) for item in facts["siblings"])
            return Repository(repo, _hexadecimal(facts.get("sha"), 40) or "main", _licence(facts), files)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RemoteError(f"{self._endpoint} lists {repo} in a form that is not the hub's") from error

    async def download(self, repository: Repository, file: RemoteFile, target: Path, progress: Progress) -> None:
        """Download one file, taking up a partial download, and put it in place when its hash is right.

        Args:
            repository: from `describe`.
            file: one of its files.
            target: where it shall lie; replaced as a whole.
            progress: told of every piece.

        Raises:
            RemoteError: size or SHA-256 differ from the published ones; nothing is kept.
            UpstreamUnavailable: broken off too often; the part stays for the next time.
            NotAllowed, ModelNotFound: as `describe`.
        """
        if not file.sha256 or file.size <= 0:
            raise RemoteError(f"{repository.name} publishes no size and SHA-256 of {file.name}: it cannot be verified")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{file.sha256[:12]}.part")
        failures = 0
        while (before := part.stat().st_size if part.exists() else 0) < file.size:
            try:
                await self._fetch(repository, file, part, before, progress)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if isinstance(error, OSError) and error.filename is not None:
                    raise InvalidRequest(f"cannot write {part}: {error.strerror}") from error
                failures = 1 if part.exists() and part.stat().st_size > before else failures + 1
                if failures >= self._attempts:
                    raise self._unreachable(error) from error
                await asyncio.sleep(self._pause_s * 2 ** (failures - 1))
        await asyncio.to_thread(_verify, part, file)
        part.replace(target)

    async def _fetch(
        self, repository: Repository, file: RemoteFile, part: Path, start: int, progress: Progress
    ) -> None:
        """Append the bytes from `start` on; a server that ignores the range starts the part anew."""
        url = self._endpoint / repository.name / "resolve" / repository.commit / file.name
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        async with self._session.get(url, headers=headers) as response:
            self._check(response, repository.name)
            given = response.headers.get("Content-Range", "")
            resumed = response.status == HTTPStatus.PARTIAL_CONTENT and given.startswith(f"bytes {start}-")
            with part.open("ab" if resumed else "wb") as out:
                done = start if resumed else 0
                async for piece in response.content.iter_chunked(CHUNK):
                    done += len(piece)
                    if done > file.size:
                        await asyncio.to_thread(part.unlink)
                        raise RemoteError(f"{file.name} has more than the published {file.size:,} bytes")
                    await asyncio.to_thread(out.write, piece)
                    progress(done)
        if done < file.size:
            raise aiohttp.ClientPayloadError(f"{done:,} of {file.size:,} bytes")

    def _check(self, response: aiohttp.ClientResponse, repo: str) -> None:
        match response.status:
            case 200 | 206:
                return
            case 401 | 403:
                raise NotAllowed(
                    f"{repo} is private, gated or not there: accept its licence on {self._endpoint}/{repo}"
                    " and set HF_TOKEN"
                )
            case 404:
                raise ModelNotFound(f"{self._endpoint} has no {repo}, or not this file")
            case status if status < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise RemoteError(f"{self._endpoint} answers with status {status}")
            case status:
                raise aiohttp.ClientError(f"status {status}")

    def _unreachable(self, error: Exception) -> UpstreamUnavailable:
        reason = str(error) or type(error).__name__
        return UpstreamUnavailable(f"cannot reach {self._endpoint.host} ({reason}); {_GONE}")


def _parse(body: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(body)
    except ValueError as error:
        raise RemoteError("the hub's list of files is no JSON") from error
    if not isinstance(facts, dict):
        raise RemoteError("the hub's list of files is no JSON object")
    return facts


def _verify(part: Path, file: RemoteFile) -> None:
    size = part.stat().st_size
    with part.open("rb") as data:
        found = hashlib.file_digest(data, "sha256").hexdigest()
        os.fsync(data.fileno())
    if size != file.size or found != file.sha256.lower():
        part.unlink()
        raise RemoteError(
            f"{file.name} is not what the hub publishes: {size:,} bytes with SHA-256 {found[:12]}…, expected"
            f" {file.size:,} bytes with {file.sha256[:12]}…; deleted, try again"
        )
