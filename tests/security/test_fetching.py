"""Addresses in requests: by default nobody fetches anything, over whichever API and however the address is written."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from security.fort import Fort, run_fort, status_of

pytestmark = pytest.mark.process


@pytest.fixture
def trap() -> Iterator[socket.socket]:
    """A port of this machine that must not be knocked at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        yield listener


def untouched(listener: socket.socket) -> bool:
    try:
        listener.accept()
    except BlockingIOError:
        return True
    return False


def user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "x"}, *parts]}]


def requests(url: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """An address in every place of every API in which an engine would look for one."""
    image = {"type": "image_url", "image_url": {"url": url}}
    source = {"type": "image", "source": {"type": "url", "url": url}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [source]}
    output = [{"type": "input_image", "image_url": url}]
    chat, model = "/v1/chat/completions", {"model": "local"}
    return {
        "image_url": (chat, model | {"messages": user(image)}),
        "image_url as text": (chat, model | {"messages": user({"type": "image_url", "image_url": url})}),
        "no type": (chat, model | {"messages": user({"type": "text", "text": "x", "image_url": url})}),
        "route": ("/v1/route", model | {"messages": user(image)}),
        "messages": ("/v1/messages", model | {"max_tokens": 1, "messages": [{"role": "user", "content": [source]}]}),
        "tool result": ("/v1/messages", model | {"max_tokens": 1, "messages": [{"role": "user", "content": [result]}]}),
        "responses": ("/v1/responses", model | {"input": [{"role": "user", "content": output}]}),
        "output": (
            "/v1/responses",
            model | {"input": [{"type": "function_call_output", "call_id": "c", "output": output}]},
        ),
        "embeddings": ("/v1/embeddings", model | {"input": "x", "messages": user(image)}),
        "moderations": ("/v1/moderations", model | {"input": [image]}),
        "completions": ("/v1/completions", model | {"prompt": "x", "messages": user(image)}),
    }


SCHEMES = [
    "http://{host}/x.png",
    "HTTP://{host}/x",
    "https://{host}/x",
    "file:///etc/passwd",
    "ftp://{host}/x",
    "//{host}/x",
]


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_no_address_is_passed_on(fort: Fort, trap: socket.socket, scheme: str) -> None:
    """400 that names the place and says what to send; neither the gateway nor an engine gets to fetch it."""
    url = scheme.format(host=f"127.0.0.1:{trap.getsockname()[1]}")
    for name, (path, body) in requests(url).items():
        answer = await fort.say(fort.request(body, path))
        assert status_of(answer) == 400, (name, answer)
        assert b"url_not_allowed" in answer, (name, answer)
        assert not fort.engine.was_asked(url.removeprefix("file:")), name
    assert untouched(trap)


async def test_a_file_itself_is(fort: Fort) -> None:
    """An image as a data: URL reaches the engine as it is."""
    data = "data:image/png;base64,iVBORw0KGgo="
    path, body = requests(data)["image_url"]
    assert status_of(await fort.say(fort.request(body, path))) == 200
    assert fort.engine.was_asked(data)


async def test_the_inside_is_refused_where_fetching_is_on(
    tmp_path_factory: pytest.TempPathFactory, trap: socket.socket
) -> None:
    """A list of hosts does not open this machine: a listed name that means it is refused, and so is its address."""
    port = trap.getsockname()[1]
    hosts = f'["localhost:{port}", "127.0.0.1:{port}", "0.0.0.0:{port}"]'
    with run_fort(tmp_path_factory.mktemp("fetching"), fetch_urls=f'{{"hosts": {hosts}}}') as fort:
        for host in (
            "localhost",
            "127.0.0.1",
            "0.0.0.0",
            "127.1",
            "2130706433",
            "0x7f.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
        ):
            path, body = requests(f"http://{host}:{port}/x.png")["image_url"]
            answer = await fort.say(fort.request(body, path))
            assert status_of(answer) == 400, answer
            assert b"url_not_allowed" in answer
    assert untouched(trap)
