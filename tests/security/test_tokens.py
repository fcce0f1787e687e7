"""Access tokens made to be believed: other algorithms, other keys, other times, other services. All are 401."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_accounts.provider import AUDIENCE, Provider
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, RSAKey
from security.fort import Fort, chat, error_of, run_fort, status_of

pytestmark = pytest.mark.process
HOUR = 3600


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def by_hand(head: dict[str, Any], claims: dict[str, Any] | bytes, signature: bytes = b"x" * 256) -> str:
    """Write a token with any header, claims and signature."""
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return f"{b64(json.dumps(head).encode())}.{b64(payload)}.{b64(signature)}"


def with_secret(head: dict[str, Any], claims: dict[str, Any], secret: bytes) -> str:
    """Sign with a secret, as HS256 does."""
    signed = by_hand(head, claims).rpartition(".")[0]
    return f"{signed}.{b64(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def signed_by(key: RSAKey | ECKey | OctKey, head: dict[str, Any], claims: dict[str, Any]) -> str:
    """Sign with any key."""
    token = jws.serialize_compact(head, json.dumps(claims).encode(), key, algorithms=[head["alg"]])
    return token if isinstance(token, str) else token.decode()


def forged(provider: Provider, trap: str) -> Iterator[tuple[str, str]]:
    """Tokens of whoever has no key of the issuer, by name."""
    claims, good = provider.claims(), provider.token()
    key = provider.signing["first"]
    head = {"alg": "RS256", "kid": "first"}
    own, own_ec = RSAKey.generate_key(2048), ECKey.generate_key("P-256")
    for name in ("none", "None", "NONE", "nOnE", "", "null", "HS256 ", "rs256", "RS256\x00"):
        yield f"alg {name!r}", by_hand({"alg": name, "kid": "first"}, claims)
        yield f"alg {name!r}, no signature", by_hand({"alg": name, "kid": "first"}, claims).rpartition(".")[0] + "."
    for value in (None, 1, True, [], ["RS256"], {"RS256": 1}):
        yield f"alg {value!r}", by_hand({"alg": value, "kid": "first"}, claims)
    yield "no alg", by_hand({"kid": "first"}, claims)
    # The public key, which everybody has, in the place of a secret.
    for form in (key.as_pem(private=False), key.as_der(private=False), json.dumps(provider.published[0]).encode()):
        for name in ("HS256", "HS512"):
            yield f"{name} with the public key", with_secret({"alg": name, "kid": "first"}, claims, form)
    for secret in (b"", b"\0", b"secret"):
        yield f"HS256 with {secret!r}", with_secret({"alg": "HS256", "kid": "first"}, claims, secret)
    yield "another key of the same name", signed_by(own, head, claims)
    yield "another kind of key", signed_by(own_ec, {"alg": "ES256", "kid": "first"}, claims)
    yield "an algorithm that is not allowed", signed_by(own, {"alg": "RS512", "kid": "first"}, claims)
    mine = own.as_dict(private=False)
    for name, value in (("jwk", mine), ("jku", trap), ("x5u", trap), ("x5c", ["AA=="]), ("kid", trap)):
        yield f"its own key in {name}", signed_by(own, {**head, name: value}, claims)
    for kid in ("../../../dev/null", "/dev/null", "' OR 1=1 --", "first\x00", "", "x" * 5_000, 1, None, ["first"], {}):
        yield f"kid {str(kid)[:20]!r}", by_hand({"alg": "RS256", "kid": kid}, claims)
    body = good.split(".")
    yield (
        "other claims under a good signature",
        ".".join([body[0], by_hand({}, {**claims, "sub": "root"}).split(".")[1], body[2]]),
    )
    yield "another header over a good signature", ".".join([b64(b'{"alg":"RS256","kid":"first","x":1}'), *body[1:]])
    yield "half a signature", good[:-20]
    yield "a signature of zeros", ".".join([*body[:2], b64(bytes(256))])
    yield "two signatures", f"{good}.{body[2]}"
    yield "five parts", f"{good}.{body[1]}.{body[2]}"
    yield "a token in a token", by_hand({"alg": "none", "cty": "JWT"}, good.encode())
    yield "no claims", by_hand(head, b"")
    yield "claims that are a list", by_hand(head, b"[]")
    yield "claims nested too deep", by_hand(head, b'{"iss":' + b"[" * 3_000 + b"]" * 3_000 + b"}")
    yield "claims that are no text", by_hand(head, b"\xff\xfe{}")
    yield "a very long one", by_hand(head, {**claims, "x": "y" * 12_000})


def misused(provider: Provider) -> Iterator[tuple[str, str]]:
    """Tokens that the issuer did sign, and that let nobody in all the same."""
    now = int(time.time())
    token = provider.token
    yield "expired", token(exp=now - HOUR)
    yield "expired long ago", token(exp=1)
    yield "expired before the epoch", token(exp=-1)
    yield "without an end", token(exp=None)
    yield "not valid yet", token(nbf=now + HOUR)
    yield "from the future", token(iat=now + HOUR)
    for value in ("soon", str(now + HOUR), True, [now + HOUR], {"a": 1}):
        yield f"exp {value!r}", token(exp=value)
    yield "of nobody", token(sub=None)
    for value in ("", 1, ["ann"], "a\nb", "x" * 5_000):
        yield f"sub {str(value)[:9]!r}", token(sub=value)
    for value in (
        None,
        "",
        "https://other.example.org",
        [],
        ["https://other.example.org"],
        {"a": AUDIENCE},
        1,
        AUDIENCE + "/",
    ):
        yield f"aud {value!r}", token(aud=value)
    for value in (None, "https://other.example.org", provider.url + "/", provider.url.upper(), [provider.url], 1):
        yield f"iss {value!r}", token(iss=value)
    yield "an ID token", token(at_hash="x")
    yield "an unknown extension that must be understood", token(header={"crit": ["exp2"], "exp2": 1})
    yield "an unencoded payload", token(header={"crit": ["b64"], "b64": False})


def with_token(token: str) -> bytes:
    data = json.dumps(chat("believed")).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n"
    return head.encode() + f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data


async def test_only_the_issuers_own_tokens_let_in(tmp_path: Path) -> None:
    """A good token is answered before and after; each forged or misused one is 401, and nobody is asked for its key."""
    knocks: list[Any] = []

    async def knock(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        knocks.append(writer)
        writer.close()

    server = await asyncio.start_server(knock, "127.0.0.1", 0)
    trap = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks.json"
    with contextlib.ExitStack() as stack:
        async with server, Provider().running() as provider:
            issuer = {"issuer": provider.url, "audience": [AUDIENCE], "refetch_pause_s": 0.1}
            fort: Fort = await asyncio.to_thread(stack.enter_context, run_fort(tmp_path, oidc=json.dumps([issuer])))
            assert status_of(await fort.say(with_token(provider.token()))) == 200
            before = len(fort.engine.bodies)
            seen = [*forged(provider, trap), *misused(provider)]
            for name, token in seen:
                answer = await fort.say(with_token(token))
                assert status_of(answer) == 401, (name, answer)
                assert error_of(answer)["code"] == "invalid_api_key", name
                assert token.encode() not in answer
            assert len(fort.engine.bodies) == before or not fort.engine.was_asked("believed" * 2)
            assert status_of(await fort.say(with_token(provider.token()))) == 200
            log = fort.gateway.program.log()
            assert "Traceback" not in log
            assert not [name for name, token in seen if len(token) > 100 and token in log]
            assert provider.token().split(".")[2] not in log
            await asyncio.to_thread(stack.close)
    assert not knocks
