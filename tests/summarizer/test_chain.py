"""Blocks keep their names while a conversation grows, and change them when anything before has changed."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stream_summarizer.chain import Block, cut
from stream_summarizer.conversation import Conversation

from .building import answering, calling, conversation, long_talk, said, talks


def blocks(messages: list[dict[str, Any]], least: int = 30, kept: int = 0) -> tuple[Block, ...]:
    talk = conversation(messages)
    keep = [position >= len(talk.units) - kept for position in range(len(talk.units))]
    return cut(talk, sizes(talk), keep, least)


def sizes(talk: Conversation) -> list[int]:
    return [10 * (unit.last - unit.first + 1) for unit in talk.units]


def test_a_new_turn_leaves_the_old_blocks() -> None:
    """One more turn adds at most one whole block; the others keep their names, whatever the system prompt says."""
    messages = long_talk(10)
    before = [block for block in blocks(messages) if block.whole]
    after = [block for block in blocks([*messages, said("assistant", "x"), said("user", "y")]) if block.whole]
    assert len(before) > 3
    assert after[: len(before)] == before
    assert len(after) <= len(before) + 1
    other = [block for block in blocks([said("system", "Today is another day."), *messages[1:]]) if block.whole]
    assert other == before


def test_a_change_renames_what_follows() -> None:
    """Another word in an early message is another name for its block and all later ones, none for those before it."""
    messages = long_talk(10)
    changed = [*messages[:9], said("user", "another word"), *messages[10:]]
    pairs = list(zip(blocks(messages), blocks(changed), strict=True))
    assert [old.digest == new.digest for old, new in pairs] == [old.last < 9 for old, _ in pairs]


def test_what_is_kept_ends_a_block() -> None:
    """Messages that stay are in no block, and the blocks before them are the same as without them."""
    messages = long_talk(10)
    some, every = blocks(messages, kept=4), blocks(messages)
    assert some[-1].last == len(messages) - 5
    assert [block for block in some if block.whole] == [b for b in every if b.whole and b.last < len(messages) - 4]


def test_calls_are_not_split() -> None:
    """A tool call and its result stand in one block."""
    messages = [said("user", "a"), said("assistant", "b"), calling("c"), answering("c"), said("user", "d")]
    borders = {block.last for block in blocks(messages, least=25)}
    assert 2 not in borders
    assert 3 in borders


@given(talks(), st.integers(1, 60))
def test_every_message_once(messages: list[dict[str, Any]], least: int) -> None:
    """Blocks cover every message behind the system prompt exactly once, in order."""
    leading = next(i for i, m in enumerate(messages) if m["role"] not in {"system", "developer"})
    covered = [at for block in blocks(messages, least) for at in range(block.first, block.last + 1)]
    assert covered == list(range(leading, len(messages)))
