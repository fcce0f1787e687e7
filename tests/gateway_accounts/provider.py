"""A real identity provider for tests: discovery, rotating keys, introspection, and Globus' dependent tokens and groups.

It signs with joserfc's encoder and speaks HTTP on loopback; faults are switched on by its attributes.
"""

import base64
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

CLIENT_ID = "stream"
CLIENT_SECRET = "of the stand-in"
AUDIENCE = "https://stream.example.org"


class Provider:
    """The provider; `url` is its issuer."""

    def __init__(self) -> None:
        self.url = ""
        self.signing: dict[str, RSAKey | ECKey] = {}
        """What it signs with, by key id."""
        self.published: list[dict[str, Any]] = []
        self.tokens: dict[str, dict[str, Any]] = {}
        """What introspection says of opaque tokens; others are not active."""
        self.groups: list[dict[str, Any]] = []
        self.away = False
        self.asked: list[str] = []
        """Paths of all questions."""
        self.rotate("first")

    def rotate(self, kid: str, *, kind: str = "RS256", keep: bool = False) -> None:
        """Sign with a new key from now on.

        Args:
            kid: its id.
            kind: "RS256" or "ES256".
            keep: whether the older ones stay published.
        """
        parameters = {"kid": kid, "use": "sig", "alg": kind}
        key = (
            ECKey.generate_key("P-256", parameters, private=True)
            if kind == "ES256"
            else RSAKey.generate_key(2048, parameters, private=True)
        )
        self.signing[kid] = key
        self.published = [*(self.published if keep else []), key.as_dict(private=False)]

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Claims of a good token; None takes one out."""
        now = int(time.time())
        claims = {"iss": self.url, "aud": AUDIENCE, "sub": "ann", "name": "Ann", "email": "ann@example.org"}
        claims |= {"iat": now, "nbf": now, "exp": now + 600, "scope": "openid stream", "groups": ["physics"], **changes}
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, kid: str = "first", header: dict[str, Any] | None = None, **changes: Any) -> str:
        """Sign a token with one of the keys."""
        key = self.signing[kid]
        head = {"alg": "ES256" if isinstance(key, ECKey) else "RS256", "kid": kid, **(header or {})}
        return jwt.encode(head, self.claims(**changes), key, algorithms=[head["alg"]])

    def count(self, path: str) -> int:
        """How often it was asked there."""
        return self.asked.count(path)

    @contextlib.asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator["Provider"]:
        """Serve until the block ends; port 0 takes a free one."""
        app = web.Application(middlewares=[self._gate])
        app.router.add_get("/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/jwks", self._jwks)
        app.router.add_post("/v2/oauth2/token/introspect", self._introspect)
        app.router.add_post("/v2/oauth2/token", self._dependent)
        app.router.add_get("/groups", self._my_groups)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()

    @web.middleware
    async def _gate(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(request.path)
        if self.away:
            raise web.HTTPServiceUnavailable
        return await handler(request)

    async def _discovery(self, _request: web.Request) -> web.Response:
        return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/jwks"})

    async def _jwks(self, _request: web.Request) -> web.Response:
        return web.json_response({"keys": self.published})

    async def _introspect(self, request: web.Request) -> web.Response:
        self._authorise(request)
        form = await request.post()
        return web.json_response(self.tokens.get(str(form["token"]), {"active": False}))

    async def _dependent(self, request: web.Request) -> web.Response:
        self._authorise(request)
        form = await request.post()
        assert form["grant_type"] == "urn:globus:auth:grant_type:dependent_token"
        given = {"resource_server": "groups.api.globus.org", "access_token": f"groups-{form['token']}"}
        return web.json_response([{"resource_server": "other", "access_token": "x"}, given])

    async def _my_groups(self, request: web.Request) -> web.Response:
        if not request.headers["authorization"].startswith("Bearer groups-"):
            raise web.HTTPUnauthorized
        return web.json_response(self.groups)

    def _authorise(self, request: web.Request) -> None:
        expected = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if request.headers["authorization"] != f"Basic {expected}":
            raise web.HTTPUnauthorized
