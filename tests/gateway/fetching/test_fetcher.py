"""Fetching images: a real server, its redirects, sizes and lies, and hosts that mean the inside."""

import asyncio
import base64
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from stream_gateway.fetching.fetcher import Fetcher
from stream_gateway.fetching.links import UrlNotAllowed
from stream_gateway.settings import FetchSettings

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
CLASSES = ["public", "internal"]


class Host:
    """A server of images, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.port = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        match request.path:
            case "/away":
                raise web.HTTPFound(f"http://localhost:{self.port}/image.png")
            case "/inside":
                raise web.HTTPFound("http://169.254.169.254/latest/meta-data/")
            case "/round":
                raise web.HTTPFound("/round")
            case "/page":
                return web.Response(text="<html>", content_type="text/html")
            case "/svg":
                return web.Response(text="<svg/>", content_type="image/svg+xml")
            case "/packed":
                return web.Response(body=PNG, content_type="image/png", headers={"content-encoding": "gzip"})
            case "/endless":
                response = web.StreamResponse(headers={"content-type": "image/png"})
                await response.prepare(request)
                with contextlib.suppress(ConnectionError):
                    while True:
                        await response.write(bytes(65_536))
                return response
            case "/silent":
                await asyncio.Event().wait()
            case "/gone":
                raise web.HTTPGone
        return web.Response(body=PNG, content_type="image/png")


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    made = Host()
    app = web.Application()
    app.router.add_get("/{path:.*}", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    try:
        yield made
    finally:
        await runner.cleanup()


def fetcher(host: Host, *, public: Any = None, **fields: Any) -> Fetcher:
    """One that may ask this machine, unless `public` says otherwise."""
    settings = FetchSettings(hosts=[f"localhost:{host.port}"], **fields)
    return Fetcher(settings, public or (lambda _: True))


def body(url: str) -> dict[str, Any]:
    part = {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, part]}]}


async def fetched(by: Fetcher, url: str) -> str:
    asked = body(url)
    made = await by.inlined(asked, by.check(asked, CLASSES, "public"))
    part = made["messages"][0]["content"][1]["image_url"]
    assert part["detail"] == "low"
    return str(part["url"])


async def test_an_image_takes_the_place_of_its_address(host: Host) -> None:
    """It is fetched without credentials, and the engine gets the bytes."""
    url = await fetched(fetcher(host), f"http://localhost:{host.port}/image.png")
    assert url == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert host.asked == ["/image.png"]
    assert not {"authorization", "cookie", "referer", "traceparent"} & set(host.headers[0])
    assert await fetched(fetcher(host), f"http://localhost:{host.port}/away") == url


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/inside", "the host '169.254.169.254' is not one of those"),
        ("/round", "leads on more than 3 times"),
        ("/page", "it is 'text/html'"),
        ("/svg", "it is 'image/svg\\+xml'"),
        ("/packed", "it comes compressed"),
        ("/endless", "more than the 100,000 bytes"),
        ("/silent", "not there within 0.3 s"),
        ("/gone", "answers with status 410"),
    ],
)
async def test_what_is_no_image_is_refused(host: Host, path: str, words: str) -> None:
    """Redirects to the inside or in a circle, other types, compressed, endless or silent answers."""
    by = fetcher(host, max_bytes=100_000, timeout_s=0.3 if path == "/silent" else 30)
    with pytest.raises(UrlNotAllowed, match=words) as caught:
        await fetched(by, f"http://localhost:{host.port}{path}")
    assert caught.value.param == "messages[0].content[1].image_url.url"


async def test_the_inside_is_never_asked(host: Host) -> None:
    """With the real rule a listed host that means this machine gets no connection at all."""
    with pytest.raises(UrlNotAllowed, match="not on the public internet"):
        await fetched(Fetcher(FetchSettings(hosts=[f"localhost:{host.port}"])), f"http://localhost:{host.port}/x")
    assert host.asked == []


async def test_one_inner_address_among_outer_ones_is_enough(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that means both is refused: which one a connection takes is not ours to choose."""
    await lies(monkeypatch, [["8.8.8.8", "10.0.0.1"]])
    with pytest.raises(UrlNotAllowed, match="not on the public internet"):
        await fetched(fetcher(host, public=lambda address: address != "10.0.0.1"), f"http://localhost:{host.port}/x")


async def test_a_name_is_looked_up_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that means the inside a moment after it was checked (DNS rebinding) gains nothing."""
    asked = await lies(monkeypatch, [["127.0.0.1"], ["10.255.255.1"]])
    assert (await fetched(fetcher(host), f"http://localhost:{host.port}/x")).startswith("data:image/png")
    assert asked == ["localhost"]


async def lies(monkeypatch: pytest.MonkeyPatch, answers: list[list[str]]) -> list[str]:
    """Let the loop's resolver give one answer after the other; what it was asked."""
    asked: list[str] = []

    async def getaddrinfo(name: str, port: int, **_: Any) -> list[Any]:
        asked.append(name)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in answers.pop(0)]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    return asked


def refusal(by: Fetcher, asked: dict[str, Any], privacy: str = "public") -> str:
    with pytest.raises(UrlNotAllowed) as caught:
        by.check(asked, CLASSES, privacy)
    return caught.value.message


def test_without_hosts_nothing_is_fetched() -> None:
    """The default; the words say what to do, and don't repeat what may be secret."""
    words = refusal(Fetcher(FetchSettings()), body("https://example.org/a.png?token=secret"))
    assert "send the file itself as a data: URL" in words
    assert "https://example.org/a.png" in words
    assert "secret" not in words


def test_what_is_asked_for_has_a_class() -> None:
    """The address is a part of the text: a confidential request's is not told to its host."""
    by = Fetcher(FetchSettings(hosts=["example.org"]))
    assert len(by.check(body("https://example.org/a.png"), CLASSES, "public")) == 1
    assert "for text up to 'public', and the request is 'internal'" in refusal(
        by, body("https://example.org/a.png"), "internal"
    )


def test_limits_name_both_numbers() -> None:
    """Too many addresses, other things than images."""
    by = Fetcher(FetchSettings(hosts=["example.org"], max_urls=1))
    two = body("https://example.org/a.png")
    two["messages"] *= 2
    assert "2 addresses to fetch, at most 1 are allowed" in refusal(by, two)
    film = {"messages": [{"content": [{"type": "video_url", "video_url": {"url": "https://example.org/a"}}]}]}
    assert "only images are fetched" in refusal(by, film)
