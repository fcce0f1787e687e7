"""Probes and counters: plain ASGI, no model is called, nothing is waited for."""

from collections.abc import Callable, Iterable
from typing import Any, Final

from starlette.types import Scope, Send

from stream_core.health import PLAIN, Readiness, respond
from stream_gateway.errors import Reply, framework_body
from stream_gateway.stream import send_reply

PATHS: Final = {
    "/livez": "Whether the program answers at all",
    "/readyz": "Whether it takes new requests",
    "/health": "As /livez",
    "/metrics": "What is counted, for Prometheus; only where nobody but this machine can ask",
}
METRICS: Final = "/metrics"
Numbers = Callable[[Iterable[str]], bool]
_METHODS: Final = ("GET", "HEAD")


async def answer_probe(scope: Scope, ready: Readiness, numbers: Numbers, send: Send) -> None:
    """Answer one probe (ASGI).

    Args:
        scope: of ASGI; its path is one of `PATHS`.
        ready: None, or the reason why this gateway should get no new requests.
        numbers: whether a request with these headers may read /metrics here.
        send: of ASGI.
    """
    method, path = scope["method"], scope["path"]
    if path == METRICS and not numbers(name.decode("latin-1") for name, _ in scope["headers"]):
        words = "not here: the gateway's metrics_port has it"
        await send_reply(send, Reply(404, [(b"content-type", b"application/json")], framework_body(404, words)), [])
        return
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
