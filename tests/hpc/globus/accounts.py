"""Globus Auth, as far as SDK and endpoint ask it: tokens for client credentials, that end and are revoked."""

import base64
import binascii
import secrets
import time

from aiohttp import web
from hpc.globus.faults import Refused
from hpc.globus.state import Fact, State

COMPUTE = "funcx_service"
"""The compute service's name as a resource server; its scope is known by the id in it."""
_COMPUTE_SCOPE = "facd7ccc-c5f4-42aa-916b-a0e270e2c2a9"


class Accounts:
    """Clients and their tokens.

    Args:
        state: keeps them.
        lifetime_s: of a token.
    """

    def __init__(self, state: State, lifetime_s: float) -> None:
        self._state = state
        self._lifetime_s = lifetime_s

    def routes(self) -> list[web.RouteDef]:
        """What it answers."""
        return [
            web.post("/v2/oauth2/token", self._token),
            web.get("/v2/oauth2/userinfo", self._userinfo),
        ]

    def caller(self, request: web.Request, *, service: str = COMPUTE) -> str:
        """Identity behind a request's token.

        Raises:
            Refused: none, ended, revoked, or meant for another service.
        """
        token = self._state.get("token", request.headers.get("authorization", "").removeprefix("Bearer "))
        if token is None or token["ends"] < time.time():
            raise Refused(401)
        if token["service"] != service:
            raise Refused(403, "the token's scope is not this service's")
        return str(token["identity"])

    def revoke_all(self) -> None:
        """End all tokens now."""
        self._state.drop("token")

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        client = self._client(request.headers.get("authorization", ""))
        if client is None:
            error = {
                "status": "401",
                "title": "Unauthorized",
                "code": "UNAUTHORIZED",
                "detail": "Bad client credentials",
            }
            return web.json_response({"error": "invalid_client", "errors": [error]}, status=401)
        if form.get("grant_type") != "client_credentials":
            return web.json_response({"error": "unsupported_grant_type"}, status=400)
        scopes: dict[str, list[str]] = {}
        for scope in str(form.get("scope", "")).split():
            scopes.setdefault(COMPUTE if _COMPUTE_SCOPE in scope else "auth.globus.org", []).append(scope)
        granted = [self._grant(client, service, wanted) for service, wanted in scopes.items()]
        return web.json_response({**granted[0], "other_tokens": granted[1:]})

    def _client(self, authorization: str) -> str | None:
        try:
            decoded = base64.b64decode(authorization.removeprefix("Basic ")).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
        name, _, secret = decoded.partition(":")
        known = self._state.get("client", name)
        return name if known and secrets.compare_digest(known["secret"], secret) else None

    def _grant(self, client: str, service: str, scopes: list[str]) -> Fact:
        token = secrets.token_hex(24)
        self._state.put(
            "token", token, {"identity": client, "service": service, "ends": time.time() + self._lifetime_s}
        )
        return {
            "access_token": token,
            "scope": " ".join(scopes),
            "resource_server": service,
            "expires_in": int(self._lifetime_s),
            "token_type": "Bearer",
            "state": "_",
        }

    async def _userinfo(self, request: web.Request) -> web.Response:
        who = identity(self.caller(request, service="auth.globus.org"))
        return web.json_response({**who, "preferred_username": who["username"], "identity_set": [who]})


def identity(client: str) -> Fact:
    """Describe a client as an identity."""
    return {
        "sub": client,
        "id": client,
        "status": "used",
        "username": f"{client}@clients.auth.globus.org",
        "name": "client",
        "email": "client@example.org",
        "identity_provider": "standin",
        "identity_provider_display_name": "stand-in",
    }
