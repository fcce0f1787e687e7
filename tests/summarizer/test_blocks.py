"""The cache of condensed blocks is bounded and keeps scopes apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_summarizer.blocks import Blocks, block_key


def test_kept_by_content() -> None:
    """The same scope, kind and content find the block; making it again is not needed."""
    blocks = Blocks(10, 10_000)
    key = block_key("key-1", "extract", b"messages")
    assert blocks.get_or_make(key, lambda: "first") == "first"
    assert blocks.get_or_make(key, lambda: "second") == "first"


def test_scopes_share_nothing() -> None:
    """Another scope, kind or content is another key; lengths keep their borders apart; no scope keeps nothing."""
    keys = {
        block_key("a", "extract", b"x"),
        block_key("b", "extract", b"x"),
        block_key("a", "model", b"x"),
        block_key("a", "extract", b"y"),
        block_key("ae", "xtract", b"x"),
    }
    assert len(keys) == 5
    assert block_key("", "extract", b"x") is None
    blocks = Blocks(10, 10_000)
    assert blocks.get_or_make(None, lambda: "first") == "first"
    assert blocks.get_or_make(None, lambda: "second") == "second"
    assert blocks.entries == 0


def test_the_unused_go_first() -> None:
    """When it is full, the block that was not used for longest makes room."""
    blocks = Blocks(2, 10_000)
    for name in (b"a", b"b"):
        blocks.put(name, name.decode())
    assert blocks.get(b"a") == "a"
    blocks.put(b"c", "c")
    assert [blocks.get(name) for name in (b"a", b"b", b"c")] == ["a", None, "c"]


@given(st.lists(st.tuples(st.binary(max_size=2), st.text(max_size=400)), max_size=60))
def test_bounded(puts: list[tuple[bytes, str]]) -> None:
    """Whatever is put in, number and bytes stay within their limits."""
    blocks = Blocks(5, 1500)
    for key, text in puts:
        blocks.put(key, text)
        kept = [text for text in map(blocks.get, {key for key, _ in puts}) if text is not None]
        assert len(kept) == blocks.entries <= 5
        assert sum(len(text.encode("utf-8", "surrogatepass")) for text in kept) <= 1500


@pytest.mark.parametrize("size", [2000, 5000])
def test_too_large_for_the_cache(size: int) -> None:
    """A block larger than the whole cache is not kept."""
    blocks = Blocks(5, 1500)
    blocks.put(b"k", "x" * size)
    assert blocks.get(b"k") is None
