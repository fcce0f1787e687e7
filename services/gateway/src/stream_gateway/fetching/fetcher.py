"""Fetches images that a request names by their address, where the institution allows that, and puts them into it.

A host is looked up once and asked at the addresses that were found then, all of which must be public: a name that
means another address a moment later (DNS rebinding) gains nothing. A redirect is a new address, checked like the first.
"""

import asyncio
import base64
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import SplitResult, urljoin

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from stream_core.privacy import may_see
from stream_gateway.fetching.addresses import is_listed, is_public, split_url
from stream_gateway.fetching.links import Link, UrlNotAllowed, links_of, with_files
from stream_gateway.fetching.pixels import demand_pixels
from stream_gateway.settings import MOST_PIXELS, FetchSettings

_KINDS: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 3
_OK: Final = 200


class Fetcher:
    """What may be fetched, and the way to it.

    Args:
        settings: without a host nothing is fetched.
        public: tells whether an address may be asked.
        most_pixels: of one image, sent along or fetched.
    """

    def __init__(
        self,
        settings: FetchSettings,
        public: Callable[[str], bool] = is_public,
        most_pixels: int = MOST_PIXELS,
    ) -> None:
        self._settings = settings
        self._public = public
        self._most_pixels = most_pixels

    def check(self, body: Mapping[str, Any], classes: list[str], privacy: str) -> list[Link]:
        """List the addresses in a request that are to be fetched, and look at the images that it brings along.

        Args:
            body: of the request.
            classes: the policy's.
            privacy: the request's class: an address is a part of its text, and the host would see it.

        Raises:
            UrlNotAllowed: naming the first that may not be.
            ImageTooLarge: likewise.
        """
        found = list(links_of(body))
        demand_pixels((link for link in found if link.is_data), self._most_pixels)
        links = [link for link in found if not link.is_data]
        settings = self._settings
        for link in links:
            if not settings.hosts:
                raise _refused(link, "addresses are not fetched here, send the file itself as a data: URL")
            if not may_see(classes, settings.privacy, privacy):
                words = f"addresses are fetched for text up to {settings.privacy!r}, and the request is {privacy!r}"
                raise _refused(link, words)
            if not link.is_image:
                raise _refused(link, "only images are fetched, send the file itself")
            self._check_url(link, link.url)
        if len(links) > settings.max_urls:
            words = f"{len(links)} addresses to fetch, at most {settings.max_urls} are allowed"
            raise UrlNotAllowed(words, param=links[0].place)
        return links

    async def inlined(self, body: Mapping[str, Any], links: list[Link]) -> dict[str, Any]:
        """Fetch what `check` listed, and put it in.

        Raises:
            UrlNotAllowed: one of them can't be had.
            ImageTooLarge: one of them says that it is.
        """
        left = self._settings.max_bytes
        files: dict[tuple[str | int, ...], str] = {}
        for link in links:
            try:
                async with asyncio.timeout(self._settings.timeout_s):
                    kind, data = await self._fetch(link, left)
            except TimeoutError as error:
                raise _refused(link, f"it was not there within {self._settings.timeout_s:g} s") from error
            except (aiohttp.ClientError, OSError) as error:
                raise _refused(link, "it can't be fetched") from error
            left -= len(data)
            files[link.steps] = f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
        demand_pixels((replace(link, url=files[link.steps]) for link in links), self._most_pixels)
        return with_files(body, files)

    def _check_url(self, link: Link, url: str) -> SplitResult:
        parts = split_url(url)
        if parts is None:
            raise _refused(link, "an address with http:// or https:// and a host is expected")
        if not is_listed(parts, self._settings.hosts):
            raise _refused(link, f"the host {(parts.hostname or '')[:60]!r} is not one of those that are fetched from")
        return parts

    async def _fetch(self, link: Link, most: int) -> tuple[str, bytes]:
        url = link.url
        for _ in range(_MOST_REDIRECTS + 1):
            parts = self._check_url(link, url)
            found = await self._look_up(link, parts)
            connector = aiohttp.TCPConnector(resolver=_Pinned(found), use_dns_cache=False, force_close=True)
            # No proxy and no cookie: neither is meant for addresses of clients.
            async with (
                aiohttp.ClientSession(
                    connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False
                ) as session,
                session.get(
                    url, allow_redirects=False, headers={"accept": "image/*", "accept-encoding": "identity"}
                ) as response,
            ):
                if response.status in _REDIRECTS and "location" in response.headers:
                    url = urljoin(url, response.headers["location"])
                    continue
                if response.status != _OK:
                    raise _refused(link, f"its host answers with status {response.status}")
                return await _read(link, response, most)
        raise _refused(link, f"it leads on more than {_MOST_REDIRECTS} times")

    async def _look_up(self, link: Link, parts: SplitResult) -> list[ResolveResult]:
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        loop = asyncio.get_running_loop()
        infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        found = [
            ResolveResult(hostname=host, host=str(info[4][0]), port=port, family=info[0], proto=info[2], flags=0)
            for info in infos
        ]
        if not found or not all(self._public(each["host"]) for each in found):
            raise _refused(link, "its host is not on the public internet")
        return found


class _Pinned(AbstractResolver):
    """Answers with what was found before, whatever the name means now."""

    def __init__(self, found: list[ResolveResult]) -> None:
        self._found = found

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Give these addresses."""
        return [{**each, "hostname": host, "port": port} for each in self._found if family in {0, each["family"]}]

    async def close(self) -> None:
        """Nothing to close."""


async def _read(link: Link, response: aiohttp.ClientResponse, most: int) -> tuple[str, bytes]:
    kind = response.content_type
    if kind not in _KINDS:
        raise _refused(link, f"it is {kind[:40]!r}, and one of {', '.join(sorted(_KINDS))} is expected")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise _refused(link, "it comes compressed, which was not asked for")
    data = bytearray()
    async for part in response.content.iter_chunked(65_536):
        data += part
        if len(data) > most:
            raise _refused(link, f"it has more than the {most:,} bytes that may be fetched for this request")
    return kind, bytes(data)


def _refused(link: Link, words: str) -> UrlNotAllowed:
    return UrlNotAllowed(f"{link.place}: {link.shown!r}: {words}", param=link.place)
