"""Probes and counters: plain ASGI, no model is called, nothing is waited for."""

from typing import Any, Final

from starlette.types import Send

from stream_core.health import PLAIN, Readiness, respond
from stream_gateway.errors import Reply, framework_body
from stream_gateway.stream import send_reply

PATHS: Final = {
    "/livez": "Whether the program answers at all",
    "/readyz": "Whether it takes new requests",
    "/health": "As /livez",
    "/metrics": "What was refused or dropped, counted by kind, for Prometheus; nothing of any request",
}
_METHODS: Final = ("GET", "HEAD")


async def answer_probe(method: str, path: str, ready: Readiness, send: Send) -> None:
    """Answer one probe (ASGI).

    Args:
        method: of HTTP.
        path: one of `PATHS`.
        ready: None, or the reason why this gateway should get no new requests.
        send: of ASGI.
    """
    if method not in _METHODS:
        body = framework_body(405, f"{method[:20]} is not allowed here, GET is")
        headers = [(b"content-type", b"application/json"), (b"allow", ", ".join(_METHODS).encode("ascii"))]
        await send_reply(send, Reply(405, headers, body), [])
        return
    status, body = respond(path, ready)
    await send_reply(send, Reply(status, [(b"content-type", PLAIN.encode("ascii"))], body), [])


def openapi_paths() -> dict[str, Any]:
    """Describe the probes for the OpenAPI document."""
    text = {"text/plain": {"schema": {"type": "string"}}}
    yes = {"description": "Yes", "content": text}
    no = {"description": "No; the body says why", "content": text}
    return {
        path: {
            "get": {
                "tags": ["health"],
                "summary": summary,
                "operationId": path[1:],
                "responses": {"200": yes, "503": no} if path == "/readyz" else {"200": yes},
            }
        }
        for path, summary in PATHS.items()
    }
