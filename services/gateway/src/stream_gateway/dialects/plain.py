"""OpenAI's APIs that engines speak themselves: their bytes pass as they are, the request is only looked into. Pure."""

from collections.abc import Callable

from stream_core.openai.models import ChatRequest, parse_chat
from stream_gateway.accounts.principal import Principal
from stream_gateway.dialects.contract import OpenAiDialect, Spoken, Translation


class PlainDialect(OpenAiDialect):
    """One of them.

    Args:
        parse: reads the body.
        translation: of the answer, where the engine's is not quite what the API promises.
    """

    def __init__(
        self,
        parse: Callable[[bytes], ChatRequest] = parse_chat,
        translation: Callable[[], Translation] | None = None,
    ) -> None:
        self._parse = parse
        self._translation = translation

    async def read(self, body: bytes, principal: Principal, privacy: str | None, request_id: bytes) -> Spoken:  # noqa: ARG002  (its dialect needs no more)
        """Check what routing needs; see `Dialect.read`."""
        return Spoken(self._parse(body), self._translation() if self._translation else None)
