"""Names of what spans tell: OpenTelemetry's conventions for generative AI, and ours beside them. The one place.

The conventions still change (https://opentelemetry.io/docs/specs/semconv/gen-ai/): whoever follows them changes this.
"""

from typing import Final

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
"""What was asked: only where an operator turned it on, and only of the least confidential class."""
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
"""What was answered, likewise."""

METHOD: Final = "http.request.method"
ROUTE: Final = "http.route"
STATUS: Final = "http.response.status_code"
RPC_SYSTEM: Final = "rpc.system.name"
RPC_METHOD: Final = "rpc.method"

REQUEST_ID: Final = "stream.request_id"
TIER: Final = "stream.tier"
CLUSTER: Final = "stream.cluster"
LEASE: Final = "stream.lease"
RELAY: Final = "stream.relay"
ENDED: Final = "stream.ended"
"""How it ended: "complete", "client_gone", or an error's code."""
CONTEXT: Final = "stream.context"
"""How the conversation was condensed, in numbers."""
STREAMED: Final = "stream.streamed"
DURATION_MS: Final = "stream.duration_ms"
"""Of the part of the first token's time that an event is named for."""
FIRST_TOKEN: Final = "first_token"  # noqa: S105  (an event's name)

_OPERATIONS: Final = {"/chat/completions": "chat", "/completions": "text_completion", "/embeddings": "embeddings"}


def operation(path: str) -> str:
    """Name what a path of the engine's API does.

    Args:
        path: without /v1.
    """
    return _OPERATIONS.get(path, path.strip("/"))
