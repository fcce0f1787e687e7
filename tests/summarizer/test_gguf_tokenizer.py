"""A GGUF file counts as its tokenizer folder does; what is no such file is refused or estimated."""

import struct
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_core.errors import ConfigError
from stream_summarizer.gguf_tokenizer import read_gguf_tokenizer
from stream_summarizer.tokens import Counter

from .building import conversation, counter_of, said, text

DEMO = Path(str(files("stream_engine"))) / "demo"


@pytest.fixture(scope="module")
def both() -> tuple[Counter, Counter]:
    return counter_of(DEMO / "demo.gguf"), counter_of(DEMO)


@settings(deadline=None, max_examples=60)
@given(st.lists(text, min_size=1, max_size=5))
def test_it_counts_as_the_folder_does(both: tuple[Counter, Counter], texts: list[str]) -> None:
    """Prompts have the same exact count by the demo model's GGUF and by its folder."""
    by_file, by_folder = both
    talk = conversation([said("user", one) for one in texts])
    assert by_file.exact
    assert by_file.prompt(talk.messages, b"") == by_folder.prompt(talk.messages, b"")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "ends inside its header"),
        (b"GGML" + bytes(40), "no GGUF file of version 2 or 3"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 5000), "5,000 keys, at most 4,096"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**40), "bytes of a string, at most"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "vocabulary None"),
    ],
)
def test_refused(data: bytes, words: str, tmp_path: Path) -> None:
    """Each row: what is no usable GGUF, and the words that say so; its model's counts are estimates."""
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=words):
        read_gguf_tokenizer(path)
    assert not counter_of(path).exact


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    """Cut anywhere in its header, it is refused, never half read."""
    head = (DEMO / "demo.gguf").read_bytes()[:60_000]
    path = tmp_path / "model.gguf"
    for length in range(0, len(head), 997):
        path.write_bytes(head[:length])
        with pytest.raises(ConfigError):
            read_gguf_tokenizer(path)
