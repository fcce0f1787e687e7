"""What was asked and answered, beside a span: off unless an operator turns it on, and never above the lowest class.

Only text of the policy's least confidential class may be shown, whatever is configured: there is no setting that shows
another one. A policy with a single class has nothing that is known to be harmless, so nothing of it is shown.
"""

from collections.abc import AsyncIterator
from typing import Any, Final

import orjson

from stream_core.deployment import PolicyConfig

_MOST: Final = 16 * 1024
"""Bytes of what was asked, and of what was answered."""


def may_be_shown(policy: PolicyConfig, privacy: str) -> bool:
    """Tell whether a request is of the class whose text may be shown.

    Args:
        policy: with the classes.
        privacy: the request's class, as key, header and detector have made it.
    """
    return len(policy.classes) > 1 and privacy == policy.classes[0]


def asked(messages: Any) -> str:
    """Write what was asked, cut where it is long."""
    return orjson.dumps(messages)[:_MOST].decode("utf-8", "replace")


class Said:
    """The beginning of an answer, as the engine sent it."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def take(self, chunks: list[bytes]) -> None:
        """Keep what there is room for."""
        if len(self._kept) < _MOST:
            self._kept += b"".join(chunks)[: _MOST - len(self._kept)]

    async def through(self, batches: AsyncIterator[list[bytes]]) -> AsyncIterator[list[bytes]]:
        """Pass an answer on, and keep its beginning."""
        async for batch in batches:
            self.take(batch)
            yield batch

    def text(self) -> str:
        """Give what was kept."""
        return self._kept.decode("utf-8", "replace")
