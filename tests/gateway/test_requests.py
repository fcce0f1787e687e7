"""Bad requests: the right status, OpenAI's error body, the field's name; and the service lives on."""

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest
from gateway.stage import Gateway, chat, connection, error_of

pytestmark = pytest.mark.process
PATH = "/v1/chat/completions"
JSON = "application/json"


async def post(
    gateway: Gateway, client: aiohttp.ClientSession, data: Any, **headers: str
) -> tuple[aiohttp.ClientResponse, dict[str, Any]]:
    fields = {"content-type": JSON, **gateway.headers(), **headers}
    if isinstance(data, bytes):
        data = io.BytesIO(data)  # aiohttp wants large bodies as files
    async with client.post(gateway.url + PATH, data=data, headers=fields) as response:
        return response, error_of(await response.read())


@pytest.fixture(autouse=True)
async def lives_on(gateway: Gateway, client: aiohttp.ClientSession) -> AsyncIterator[None]:
    """After each test the same gateway answers a good request, and has logged no bug."""
    yield
    async with client.post(gateway.url + PATH, json=chat("local"), headers=gateway.headers()) as response:
        assert response.status == 200
        assert (await response.read()).endswith(b"data: [DONE]\n\n")
    assert "Traceback" not in gateway.program.log()


@pytest.mark.parametrize(
    ("data", "param"),
    [
        (b"", None),
        (b"{", None),
        (b'"text"', None),
        (b"[" * 100_000, None),
        (b'{"model":"auto","messages":' + b"[" * 5_000 + b"]" * 5_000 + b"}", None),
        (b'{"model":"auto","messages":[]}', "messages"),
        (b'{"model":"auto"}', "messages"),
        (b'{"model":"auto","messages":"hi"}', "messages"),
        (b'{"messages":[{"role":"user","content":"hi"}]}', "model"),
        (orjson.dumps({**chat(), "messages": [{"role": "wizard", "content": "x"}]}), "messages[0].role"),
        (orjson.dumps(chat(max_tokens="ten")), "max_tokens"),
        (orjson.dumps(chat(temperature="hot")), "temperature"),
        (orjson.dumps(chat(n=0)), "n"),
        (orjson.dumps(chat(tools="f")), "tools"),
        (orjson.dumps({**chat(), "stream": "yes"}), "stream"),
    ],
)
async def test_malformed_requests(
    gateway: Gateway, client: aiohttp.ClientSession, data: bytes, param: str | None
) -> None:
    """Each is 400 `invalid_request_error` and names its field."""
    response, error = await post(gateway, client, data)
    assert response.status == 400
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_request_error", param)
    assert len(response.headers["x-request-id"]) == 32


@pytest.mark.parametrize("model", ["gpt-7", "local/nope", "hpc", "", " auto"])
async def test_unknown_models(gateway: Gateway, client: aiohttp.ClientSession, model: str) -> None:
    """A model that is not there is 404 `model_not_found`; an empty name is malformed."""
    response, error = await post(gateway, client, orjson.dumps(chat(model)))
    assert (response.status, error["param"]) == (404 if model else 400, "model")
    assert error["code"] == ("model_not_found" if model else "invalid_request_error")


@pytest.mark.parametrize("header", [None, "Bearer sk-stream-wrong", "Basic abc", "Bearer"])
async def test_without_a_valid_key(gateway: Gateway, client: aiohttp.ClientSession, header: str | None) -> None:
    """No key, a wrong one and another scheme are 401 `invalid_api_key`, on every route that needs one."""
    headers = {"authorization": header} if header else {}
    for method, path in (("POST", PATH), ("GET", "/v1/models"), ("GET", "/v1/models/auto")):
        async with client.request(method, gateway.url + path, data=b"{}", headers=headers) as response:
            error = error_of(await response.read())
            assert (response.status, error["code"]) == (401, "invalid_api_key")
            assert response.headers["www-authenticate"] == "Bearer"
            assert len(response.headers["x-request-id"]) == 32


async def test_a_wrong_key_with_a_large_body(gateway: Gateway, client: aiohttp.ClientSession) -> None:
    """The refusal reaches a client that is still sending, and its connection goes on to work."""
    response, error = await post(gateway, client, b"x" * 5_000_000, authorization="Bearer wrong")
    assert (response.status, error["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit(gateway: Gateway, client: aiohttp.ClientSession, chunked: bool) -> None:
    """A body over 32 MiB is 413 with both numbers, whether its length was announced or not."""
    size = 32 * 1024 * 1024 + 1

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(0, size, 1 << 20):
            yield b"x" * (1 << 20)

    response, error = await post(gateway, client, pieces() if chunked else b"x" * size)
    assert (response.status, error["code"]) == (413, "request_too_large")
    assert "at most 33,554,432" in error["message"]
    assert ("33,554,433" in error["message"]) or chunked


async def test_an_announced_body_over_the_limit_is_refused_before_it_comes(gateway: Gateway) -> None:
    """Not one byte of the body is waited for."""
    async with connection(gateway) as (reader, writer):
        key = gateway.headers()["authorization"]
        writer.write(
            f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: {key}\r\ncontent-length: 9{'0' * 12}\r\n\r\n".encode()
        )
        async with asyncio.timeout(60):
            assert b"413" in await reader.readuntil(b"\r\n")


async def test_a_prompt_that_fits_nowhere(gateway: Gateway, client: aiohttp.ClientSession) -> None:
    """A prompt of 5 MB is 400 `context_length_exceeded` with both numbers, for a pin and for `auto`."""
    body = chat()
    body["messages"][0]["content"] = "word " * 1_000_000
    for model in ("auto", "local"):
        response, error = await post(gateway, client, orjson.dumps({**body, "model": model}))
        assert (response.status, error["code"]) == (400, "context_length_exceeded")
        assert "1,250,0" in error["message"]
        assert "8,192" in error["message"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_other_content_types(gateway: Gateway, client: aiohttp.ClientSession, kind: str) -> None:
    """A body that is not declared as JSON is 415 and says what is expected."""
    response, error = await post(gateway, client, b"{}", **{"content-type": kind})
    assert response.status == 415
    assert "application/json is expected" in error["message"]


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"])
async def test_json_by_other_names(gateway: Gateway, client: aiohttp.ClientSession, kind: str) -> None:
    """JSON with a parameter, in capitals, or as a suffix is JSON."""
    headers = {**gateway.headers(), "content-type": kind}
    async with client.post(gateway.url + PATH, data=orjson.dumps(chat("local")), headers=headers) as response:
        assert response.status == 200


async def test_privacy_headers(gateway: Gateway, client: aiohttp.ClientSession) -> None:
    """An unknown class is 400; a raised one shuts out the tiers below it; a lowered one changes nothing."""
    body = orjson.dumps(chat("cloud"))
    response, error = await post(gateway, client, body, **{"x-stream-privacy": "top-secret"})
    assert (response.status, error["code"]) == (400, "invalid_request_error")
    response, error = await post(gateway, client, body, **{"x-stream-privacy": "internal"})
    assert (response.status, error["code"]) == (403, "not_allowed")
    lowered = {**gateway.headers("internal"), "x-stream-privacy": "public"}
    response, error = await post(gateway, client, body, **lowered)
    assert (response.status, error["code"]) == (403, "not_allowed")


async def test_a_key_for_one_tier(gateway: Gateway, client: aiohttp.ClientSession) -> None:
    """A key uses its tiers and no other, also through `auto`."""
    headers = gateway.headers("local only")
    response, error = await post(gateway, client, orjson.dumps(chat("cloud/huge")), **headers)
    assert (response.status, error["code"]) == (403, "not_allowed")
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    seeing = {**chat(), "messages": [{"role": "user", "content": [image]}]}
    response, _ = await post(gateway, client, orjson.dumps(seeing), **headers)
    assert response.status == 400


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("POST", "/v1/images/generations", 404, "not_found"),
        ("GET", PATH, 404, "not_found"),
        ("DELETE", PATH, 405, "method_not_allowed"),
        ("OPTIONS", PATH, 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("PATCH", "/v1/files/file-1", 405, "method_not_allowed"),
        ("POST", "/livez", 405, "method_not_allowed"),
    ],
)
async def test_what_is_not_there(
    gateway: Gateway, client: aiohttp.ClientSession, method: str, path: str, status: int, code: str
) -> None:
    """Unknown paths and wrong methods have OpenAI's body too, the methods that there are, and no CORS header."""
    async with client.request(method, gateway.url + path, headers=gateway.headers()) as response:
        assert response.status == status
        assert error_of(await response.read())["code"] == code
        assert "access-control-allow-origin" not in response.headers
        assert ("allow" in response.headers) == (status == 405)
        if path.startswith("/v1/files"):
            assert response.headers["allow"] == "GET, DELETE"


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\xff\x13\x37\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST " + PATH.encode() + b" HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
        b"POST " + PATH.encode() + b" HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 50\r\n\r\n",
    ],
)
async def test_bytes_that_are_no_http(gateway: Gateway, data: bytes) -> None:
    """Broken HTTP is answered with 400 or a closed connection."""
    async with connection(gateway) as (reader, writer):
        writer.write(data)
        async with asyncio.timeout(60):
            line = await reader.readline()
        assert line == b"" or b" 400 " in line or b" 401 " in line


async def test_a_client_that_leaves_in_the_middle_of_its_body(gateway: Gateway) -> None:
    """Half a request is dropped without a word in the log but its line."""
    async with connection(gateway) as (reader, writer):
        key = gateway.headers()["authorization"]
        writer.write(
            f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: {key}\r\ncontent-length: 100\r\n\r\n{{".encode()
        )
        writer.write_eof()
        async with asyncio.timeout(60):
            assert await reader.read() == b""
