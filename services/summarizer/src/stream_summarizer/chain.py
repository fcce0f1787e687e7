"""A conversation in blocks, named by a hash chain over its messages. Pure.

A client sends the whole conversation every time, and it only grows at its end. So a block, cut by its length alone and
counted from the first message behind the system prompt, is the same one on every later turn; its name covers all that
was said before it as well, since what a message means depends on that. Only the last stretch is a new one.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from stream_summarizer.conversation import Conversation, Message
from stream_summarizer.policy import leading_instructions

BLOCK_TOKENS: Final = 2048
"""A block ends with the unit that reaches this."""


class Block(msgspec.Struct, frozen=True):
    """Messages first..last, both inclusive."""

    first: int
    last: int
    digest: bytes  # 32 bytes: over every message from the first one to the last of this block
    whole: bool  # False: it ended before it was full


def cut(conversation: Conversation, unit_tokens: Sequence[int], keep: Sequence[bool], least: int) -> tuple[Block, ...]:
    """Cut what is not kept into blocks.

    Args:
        conversation: as parsed.
        unit_tokens: per unit.
        keep: per unit, whether it stays as it is; a block ends before it.
        least: tokens after which a block ends.
    """
    leading = leading_instructions(conversation)
    blocks: list[Block] = []
    digest = hashlib.blake2b(digest_size=32).digest()
    first, tokens, last = -1, 0, -1
    for unit, size, kept in zip(conversation.units, unit_tokens, keep, strict=True):
        if unit.last < leading:
            continue
        if kept and first >= 0:
            blocks.append(Block(first, last, digest, whole=False))
            first = -1
        digest = _linked(digest, conversation.of(unit))
        if kept:
            continue
        if first < 0:
            first, tokens = unit.first, 0
        last = unit.last
        tokens += size
        if tokens >= least:
            blocks.append(Block(first, last, digest, whole=True))
            first = -1
    if first >= 0:
        blocks.append(Block(first, last, digest, whole=False))
    return tuple(blocks)


def _linked(before: bytes, messages: Sequence[Message]) -> bytes:
    link = hashlib.blake2b(before, digest_size=32)
    for message in messages:
        link.update(len(message.raw).to_bytes(8, "big") + message.raw)
    return link.digest()
