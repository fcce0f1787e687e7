"""Mutants of real requests: headers, tokens, bodies, uploads and paths as whoever holds no key, or one, may send them.

Each case has a random generator of its own, made from the seed and its number, so a single one can be run again.
"""

import base64
import contextlib
import copy
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from gateway_accounts.provider import Provider

Headers = list[tuple[bytes, bytes]]
PICTURE_HEADS: Final = [
    "iVBORw0KGgoAAAANSUhEUgAA6mAAAOpgCAYAAAA=",
    "/9j/4AAC/8AACwjqYOpgAQ",
    "R0lGODlh//8BAPcA",
    "R0lGODlhAQABAAAAACwAAAAA//8=",
    "UklGRgAAAABXRUJQVlA4WAAAAAAAAAAAX+oAX+oA",
    "\u20ac/9j/=",
]
"""Of a PNG, a JPEG, GIFs and a WebP that claim to be large, and of none."""
IMAGE: Final = "data:image/png;base64,iVBORw0KGgo="
TOOL: Final = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
CHAT: Final[dict[str, Any]] = {
    "model": "auto",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "x"},
                                     {"type": "image_url", "image_url": {"url": IMAGE}}]},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "42"},
    ],
    "temperature": 0.5, "top_p": 1, "n": 1, "max_tokens": 16, "seed": 7, "stop": ["x"], "user": "u",
    "logit_bias": {"5": 1.5}, "logprobs": True, "top_logprobs": 2, "stream": True,
    "stream_options": {"include_usage": True}, "tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False,
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    "reasoning_effort": "low", "metadata": {"a": "b"}, "presence_penalty": 1, "frequency_penalty": -1,
}  # fmt: skip
MESSAGES: Final[dict[str, Any]] = {
    "model": "local",
    "max_tokens": 16,
    "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": [
            {"type": "text", "text": "x"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "42", "is_error": False}]},
    ],
    "tools": [{"name": "f", "input_schema": {"type": "object"}}], "tool_choice": {"type": "auto"},
    "stream": False, "stop_sequences": ["x"], "thinking": {"type": "enabled", "budget_tokens": 1024},
    "temperature": 1, "top_k": 5, "top_p": 0.5, "metadata": {"user_id": "u"},
}  # fmt: skip
RESPONSES: Final[dict[str, Any]] = {
    "model": "local",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "x"}, {"type": "input_image", "image_url": IMAGE}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "42"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
    ],
    "instructions": "i", "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}],
    "text": {"format": {"type": "text"}, "verbosity": "low"}, "reasoning": {"effort": "low"}, "store": True,
    "metadata": {"a": "b"}, "max_output_tokens": 16, "temperature": 1, "stream": True, "include": [],
    "previous_response_id": None, "truncation": "auto", "tool_choice": "auto",
}  # fmt: skip
LINE: Final = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "local"}}


@dataclass(frozen=True)
class Sent:
    """One request."""

    method: str
    path: str
    body: bytes = b""
    headers: Headers = field(default_factory=list)
    query: bytes = b""


def form(*parts: tuple[str, bytes]) -> bytes:
    """Write multipart/form-data with the boundary "b"."""
    pieces = [
        f"--b\r\ncontent-disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n" for head, data in parts
    ]
    return b"".join(pieces) + b"--b--\r\n"


def _json(path: str, body: Any, method: str = "POST") -> Sent:
    return Sent(method, path, json.dumps(body).encode(), [(b"content-type", b"application/json")])


FILE_ID: Final = "file-" + "0" * 32
CORPUS: Final = [
    *[_json("/v1/chat/completions", CHAT)] * 4,
    _json("/v1/chat/completions", {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}),
    *[_json("/v1/messages", MESSAGES)] * 3,
    *[_json("/v1/responses", RESPONSES)] * 3,
    _json("/v1/completions", {"model": "local", "prompt": ["a", "b"], "suffix": "s", "echo": True, "logprobs": 1}),
    _json("/v1/completions", {"model": "local", "prompt": [1, 2, 3], "best_of": 2, "stream": True}),
    _json("/v1/embeddings", {"model": "local", "input": ["a"], "dimensions": 3, "encoding_format": "float"}),
    _json("/v1/moderations", {"input": ["a"], "model": "local"}),
    _json("/v1/tokenize", {"model": "local", "messages": [{"role": "user", "content": "x"}]}),
    _json("/v1/messages/count_tokens", MESSAGES),
    _json("/v1/route", CHAT),
    _json("/v1/feedback", {"request_id": "0" * 32, "good": True, "prompt": "p"}),
    _json("/v1/batches", {"input_file_id": FILE_ID, "endpoint": "/v1/chat/completions", "completion_window": "24h"}),
    *[
        Sent(
            "POST",
            "/v1/files",
            form(
                ('name="purpose"', b"batch"),
                ('name="expires_after[anchor]"', b"created_at"),
                ('name="expires_after[seconds]"', b"3600"),
                ('name="file"; filename="a.jsonl"', json.dumps(LINE).encode()),
            ),
            [(b"content-type", b"multipart/form-data; boundary=b")],
        )
    ]
    * 4,
    Sent("GET", "/v1/models"),
    Sent("GET", "/v1/tiers"),
    Sent("GET", "/v1/models/local"),
    Sent("GET", "/v1/files", query=b"limit=5&order=asc&after=x&purpose=batch"),
    Sent("GET", f"/v1/files/{FILE_ID}"),
    Sent("GET", f"/v1/files/{FILE_ID}/content"),
    Sent("DELETE", f"/v1/files/{FILE_ID}"),
    Sent("GET", "/v1/batches/batch_" + "0" * 32),
    Sent("POST", f"/v1/batches/batch_{'0' * 32}/cancel"),
    Sent("GET", "/v1/responses/resp_" + "0" * 48, query=b"include[]=x&stream=false"),
    Sent("GET", f"/v1/responses/resp_{'0' * 48}/input_items", query=b"limit=2&order=asc&after=y"),
    Sent("GET", "/v1/feedback"),
    _json("/admin/v1/users", {"name": "Ann", "email": "a@example.org", "tiers": ["local"], "privacy": "internal"}),
    _json("/admin/v1/groups", {"name": "g", "models": ["m"], "limits": {"requests_per_minute": 5}}),
    _json("/admin/v1/keys", {"name": "k", "tiers": None, "expires": 2**33}),
    _json("/admin/v1/limits/key/key-1", {"tokens_per_month": 5, "dollars_per_month": 1.5}, "PUT"),
    _json("/admin/v1/projects/project-1", {"name": "p", "privacy": None}, "PATCH"),
    Sent("GET", "/admin/v1/users", query=b"limit=5"),
    Sent("PUT", "/admin/v1/groups/g/members/u"),
    Sent("POST", "/admin/v1/keys/key-1/revoke"),
    Sent("GET", "/metrics"),
    Sent("GET", "/readyz"),
    Sent("GET", "/openapi.json"),
    Sent("GET", "/"),
]
VALUES: Final[list[Any]] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 2**64, 10**30, 0.5, 1e308, -0.0, 1e-320),
    *("", " ", "x", "auto", "local", "x" * 10_000, "\x00", "\ud800", "\U0001f4a5" * 50, "\r\nx: y", "../../etc/passwd"),
    *(
        "http://169.254.169.254/x",
        "data:,",
        *(f"data:image/x;base64,{head}" for head in PICTURE_HEADS),
        "{{7*7}}",
        "%s%n",
        "' OR 1=1 --",
        "\u202e",
        "null",
        "0x10",
        "NaN",
        "\uff11\uff12",
    ),
    *(
        [],
        {},
        [[]],
        [None],
        [{}],
        {"": None},
        {"type": "text"},
        {"type": None},
        [1, "a", None],
        [[1], ["a"]],
        {"a": {"b": []}},
    ),
]
FIELDS: Final = [
    *(b"x-stream-privacy", b"x-stream-context", b"x-request-id", b"traceparent", b"tracestate", b"content-type"),
    *(b"content-length", b"content-encoding", b"transfer-encoding", b"accept", b"range", b"host", b"cookie", b"origin"),
    *(b"authorization", b"x-api-key", b"anthropic-version", b"idempotency-key", b"expect", b"if-none-match"),
]
TEXTS: Final = [
    *(b"", b" ", b"full", b"auto", b"public", b"internal", b"restricted", b"PUBLIC", b"0", b"-1", b"9" * 30, b"\xb2"),
    *(b"\xff\xfe", b"a" * 5_000, b"application/json", b"application/json; charset=utf-16", b"text/plain", b"*/*"),
    *(b"multipart/form-data", b'multipart/form-data; boundary=""', b"multipart/form-data; boundary=" + b"c" * 300),
    *(
        b"gzip",
        b"identity",
        b"chunked",
        b"Bearer",
        b"Bearer ",
        b"Basic Og==",
        b"bytes=0-",
        b"\t",
        b"a,b;c=d",
        b"\x7f\x1b",
    ),
    *(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", b"application/vnd.x+json", b"%00", b"\xc3\xa9"),
]
CLAIMS: Final[list[Any]] = [
    *(0, -1, 1, 2**31, 2**63, 1e300, "soon", None, True, [], {}, [1], "x" * 5_000, "https://issuer.example", ["a", 1]),
    *(float("nan"), "\x00", "\ud800", {"a": {"b": 1}}),
]


_SIGNED: Final = 0.3
_CLAIMED: Final = ("iss", "aud", "sub", "exp", "nbf", "iat", "scope", "groups", "name", "email")


class Requests:
    """Draws requests.

    Args:
        seed: of all of them.
        keys: real keys, which go into credentials alone.
        provider: signs some tokens, whatever they claim.
    """

    def __init__(self, seed: int, keys: list[str], provider: Provider) -> None:
        self._seed = seed
        self._keys = keys
        self._provider = provider

    def case(self, number: int) -> Sent:
        """One of them."""
        chance = random.Random(f"{self._seed}/{number}")  # noqa: S311  (it must repeat)
        sent = chance.choice(CORPUS)
        for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
            change = chance.choice(_CHANGES)
            sent = change(sent, chance)
        return self._signed(sent, chance)

    def _signed(self, sent: Sent, chance: random.Random) -> Sent:
        key = chance.choice(self._keys).encode()
        name = b"x-api-key" if sent.path.startswith("/v1/messages") and chance.random() < 0.5 else b"authorization"
        scheme = b"" if name == b"x-api-key" else b"Bearer "
        if chance.random() < 0.8:
            return replace(sent, headers=[(name, scheme + key), *sent.headers])
        return replace(sent, headers=[(name, scheme + self._token(key, chance)), *sent.headers])

    def _token(self, key: bytes, chance: random.Random) -> bytes:
        """Something in the place of a key: a token that the issuer signed, whatever it says, or nothing of value."""
        if chance.random() < _SIGNED:
            claims = {name: chance.choice(CLAIMS) for name in chance.sample(_CLAIMED, chance.randrange(4))}
            with contextlib.suppress(ValueError, TypeError):  # what can't even be written
                return self._provider.token(**claims).encode()
        return _broken(key, chance)


def _broken(key: bytes, chance: random.Random) -> bytes:
    """Something in the place of a key: a broken key, a token of nobody, or junk."""
    match chance.randrange(5):
        case 0:
            place = chance.randrange(len(key))
            return key[:place] + bytes([chance.randrange(33, 127)]) + key[place + 1 :]
        case 1:
            return key[: chance.randrange(len(key))]
        case 2:
            return bytes(chance.choice([*range(32, 127), *range(128, 256)]) for _ in range(chance.randrange(600)))
        case _:
            return jwt(chance)


def jwt(chance: random.Random) -> bytes:
    """Write a token of nobody: whatever algorithm, key, type and claims, signed with nothing of value."""
    algorithm = chance.choice(
        ["none", "None", "nOnE", "HS256", "RS256", "ES256", "EdDSA", "", None, 1, [], "x" * 1_000]
    )
    head: dict[str, Any] = {"alg": algorithm, "typ": chance.choice(["JWT", "at+jwt", "", None, 1])}
    for name in chance.sample(["kid", "jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "cty"], chance.randrange(4)):
        head[name] = chance.choice([*CLAIMS, "../../dev/null", "http://127.0.0.1:9/jwks", {"kty": "oct", "k": "AA"}])
    claims = {name: chance.choice(CLAIMS) for name in ("iss", "aud", "sub", "exp", "nbf", "iat", "scope", "groups")}
    parts = [head, claims] if chance.random() < 0.9 else [claims, head]
    text = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    signature = chance.choice([b"", b"AA", base64.urlsafe_b64encode(chance.randbytes(64)).rstrip(b"="), b"=", b"\xff"])
    token = b".".join([*text, signature])
    match chance.randrange(6):
        case 0:
            return token[: chance.randrange(len(token))]
        case 1:
            return token.replace(b".", b"..", 1)
        case 2:
            return token + b"." + token
        case _:
            return token


def _headers(sent: Sent, chance: random.Random) -> Sent:
    """Another header, one twice, one less, or one with another value."""
    headers = list(sent.headers)
    match chance.randrange(4):
        case 0 if headers:
            headers.append(chance.choice(headers))
        case 1 if headers:
            headers.pop(chance.randrange(len(headers)))
        case 2 if headers:
            place = chance.randrange(len(headers))
            headers[place] = (headers[place][0], chance.choice(TEXTS))
        case _:
            headers.insert(0, (chance.choice(FIELDS), chance.choice(TEXTS)))
    return replace(sent, headers=headers)


def _bytes(sent: Sent, chance: random.Random) -> Sent:
    """Bits turned, bytes cut out, put in, or repeated."""
    body = bytearray(sent.body or b"{}")
    for _ in range(chance.choice([1, 1, 3, 20])):
        at = chance.randrange(len(body) + 1)
        match chance.randrange(5):
            case 0 if at < len(body):
                body[at] ^= 1 << chance.randrange(8)
            case 1:
                del body[at : at + chance.randrange(1, 40)]
            case 2:
                body[at:at] = chance.choice(
                    [b"\x00", b"\xff", b'"', b"\\ud800", b"[" * 300, b"{", b"\r\n--b\r\n", b"--b--", b"1e999"]
                )
            case 3:
                body[at:at] = body[: chance.randrange(200)]
            case _:
                body = body[:at]
        body = body or bytearray(b"{")
    return replace(sent, body=bytes(body))


def _values(sent: Sent, chance: random.Random) -> Sent:
    """Values of a JSON body replaced, taken out, doubled, renamed or wrapped, anywhere in it."""
    try:
        body = json.loads(sent.body)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict | list):
        return _bytes(sent, chance)
    if not isinstance(body, dict | list):
        return _bytes(sent, chance)
    body = copy.deepcopy(body)
    for _ in range(chance.choice([1, 1, 2, 5])):
        places = list(_places(body))
        if not places:
            break
        holder, step = chance.choice(places)
        match chance.randrange(7):
            case 0 if isinstance(holder, dict):
                del holder[step]
            case 1 if isinstance(holder, dict):
                holder[chance.choice(["", "type", "url", "content", "x" * 300, "\ud800", "__proto__"])] = holder.pop(
                    step
                )
            case 2 if isinstance(holder, list):
                holder *= chance.choice([0, 2, 50])
            case 3:
                holder[step] = [holder[step]] if chance.random() < 0.5 else {"type": holder[step]}
            case 4:
                other, name = chance.choice(places)
                holder[step] = copy.deepcopy(other[name])
            case _:
                holder[step] = copy.deepcopy(chance.choice(VALUES))
    return replace(sent, body=json.dumps(body).encode())


def _places(value: Any) -> Any:
    for step, inner in list(value.items()) if isinstance(value, dict) else list(enumerate(value)):
        yield value, step
        if isinstance(inner, dict | list):
            yield from _places(inner)


def _path(sent: Sent, chance: random.Random) -> Sent:
    """Another path, method or query."""
    match chance.randrange(4):
        case 0:
            method = chance.choice(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "X"])
            return replace(sent, method=method)
        case 1:
            return replace(
                sent,
                query=chance.choice(
                    [b"limit=-1", b"limit=" + b"9" * 5_000, b"after=%00", b"stream=x", b"a=" + b"%ff" * 50, b"&&=="]
                ),
            )
        case 2:
            end = chance.choice(["/", "/..", "/\x00", "//", "/\ufffd", "?", ";x", "/" + "y" * 3_000, "%2e%2e"])
            return replace(sent, path=sent.path + end)
        case _:
            parts = sent.path.split("/")
            parts[-1] = (
                str(chance.choice([value for value in VALUES if isinstance(value, str)]))
                .encode("utf-8", "replace")
                .decode()
            )
            return replace(sent, path="/".join(parts))


def _other(sent: Sent, chance: random.Random) -> Sent:
    """The body of another request."""
    return replace(sent, body=chance.choice(CORPUS).body)


_CHANGES: Final[list[Callable[[Sent, random.Random], Sent]]] = [
    *[_values] * 5,
    *[_bytes] * 3,
    *[_headers] * 3,
    _path,
    _other,
]
