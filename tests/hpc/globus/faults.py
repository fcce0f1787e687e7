"""How the stand-in says no, and the switches that make it do so.

The bodies have the fields that globus_sdk reads (`code`, `message`, `detail`) and those that the older, open service
sent (`reason`, `error_args`, `http_status_code`).
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_CODES = {
    400: ("BAD_REQUEST", "the request can't be read"),
    401: ("NOT_AUTHENTICATED", "Token is not active"),
    403: ("ACCESS_FORBIDDEN", "The identity of this token is not allowed to use this endpoint"),
    404: ("NOT_FOUND", "no such thing"),
    413: ("TASK_PAYLOAD_TOO_LARGE", "Task size is above the limit"),
    423: ("ENDPOINT_LOCKED", "The endpoint is locked"),
    429: ("TOO_MANY_REQUESTS", "20 requests in 10 s are allowed"),
    500: ("INTERNAL_SERVER_ERROR", "an error within the service"),
    503: ("SERVICE_UNAVAILABLE", "the service is down for maintenance"),
}


def refusal(status: int, reason: str = "", *, code: str = "") -> web.Response:
    """Say no the way the service does."""
    if status == 422:
        # Its framework's own shape.
        detail = [{"loc": ["body"], "msg": reason or "value is not valid", "type": "value_error"}]
        return web.json_response({"detail": detail}, status=422)
    usual, words = _CODES[status]
    body = {
        "status": "Failed",
        "code": code or usual,
        "error_args": [],
        "reason": reason or words,
        "http_status_code": status,
    }
    headers = {"Retry-After": "1"} if status in {429, 503} else {}
    return web.json_response(body, status=status, headers=headers)


class Refused(Exception):
    """A handler's way to say no."""

    def __init__(self, status: int, reason: str = "", *, code: str = "") -> None:
        super().__init__(reason)
        self.response = refusal(status, reason, code=code)


@dataclass
class Fault:
    """One switch."""

    route: str
    """Regular expression, for "POST /v3/endpoints/…/submit"."""
    times: int = 1
    """How often; -1: until it is taken away."""
    status: int = 0
    """Answer with that, without doing anything."""
    reason: str = ""
    delay_s: float = 0.0
    """Wait before."""
    drop: str = ""
    """"before" or "after" what was asked is done: the connection ends without an answer."""


class Faults:
    """The switches, and what was asked that nobody knows."""

    def __init__(self) -> None:
        self.active: list[Fault] = []
        self.unknown: list[str] = []

    def set(self, encoded: str) -> None:
        """Replace all switches."""
        self.active = [Fault(**one) for one in json.loads(encoded)]

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer as the switches say; remember routes that are unknown."""
        asked = f"{request.method} {request.path}"
        fault = None if request.path.startswith("/standin/") else self._next(asked)
        if fault is not None and fault.delay_s:
            await request.read()  # else there is nothing left to read when the client has gone
            await asyncio.sleep(fault.delay_s)
        if fault is not None and fault.drop == "before":
            return _hang_up(request)
        if fault is not None and fault.status:
            return refusal(fault.status, fault.reason)
        try:
            response = await handler(request)
        except Refused as no:
            response = no.response
        except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
            self.unknown.append(asked)
            return web.json_response({"code": "NOT_IN_THE_STANDIN", "reason": asked}, status=501)
        return _hang_up(request) if fault is not None and fault.drop == "after" else response

    def _next(self, asked: str) -> Fault | None:
        for fault in self.active:
            if fault.times and re.fullmatch(fault.route, asked):
                fault.times -= 1
                return fault
        return None


def _hang_up(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
