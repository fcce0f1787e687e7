"""The header reader: good files, and files made to harm it."""

import struct
from pathlib import Path

import pytest

from stream_engine.gguf import MAX_ARRAY, MAX_KEYS, MAX_STRING, NotGGUF, read_header

from .conftest import chat_gguf, write_gguf


def test_header_of_a_chat_model_is_read(tmp_path: Path) -> None:
    """Architecture, name, window and chat template come out of the metadata."""
    header = read_header(chat_gguf(tmp_path / "a.gguf", general__name="A model"))
    assert (header.architecture, header.name, header.context) == ("llama", "A model", 4096)
    assert header.has_chat_template
    assert not header.embedding_only


def test_embedding_models_are_told_apart(tmp_path: Path) -> None:
    """A BERT, or a model with a pooling layer, is no model to chat with."""
    bert = write_gguf(tmp_path / "b.gguf", general__architecture="nomic-bert")
    pooled = write_gguf(tmp_path / "p.gguf", general__architecture="qwen3", qwen3__pooling_type=3)
    assert read_header(bert).embedding_only
    assert read_header(pooled).embedding_only


def test_every_shortened_header_is_refused(tmp_path: Path) -> None:
    """A header cut at any byte raises `NotGGUF`, never anything else."""
    whole = chat_gguf(tmp_path / "a.gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(NotGGUF):
            read_header(path)


def key(kind: int, value: bytes) -> bytes:
    """Return one metadata entry named `k`."""
    return struct.pack("<Q", 1) + b"k" + struct.pack("<I", kind) + value


ARRAY = 9


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"GGML" + bytes(60), "does not begin with GGUF"),
        (b"GGUF" + struct.pack("<I", 99) + bytes(60), "version 99"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, MAX_KEYS + 1), f"at most {MAX_KEYS:,}"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, MAX_STRING + 1), f"at most {MAX_STRING:,}"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key(77, b""), "unknown type 77"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key(ARRAY, struct.pack("<IQ", 0, MAX_ARRAY + 1)),
            f"at most {MAX_ARRAY:,}",
        ),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key(ARRAY, struct.pack("<IQ", 0, MAX_ARRAY)), "inside its header"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key(ARRAY, struct.pack("<IQ", ARRAY, 1) * 9), "nested"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "names no architecture"),
    ],
)
def test_hostile_headers_are_refused_before_they_cost_anything(tmp_path: Path, data: bytes, says: str) -> None:
    """Counts, lengths and nesting beyond the limits are refused, and the message prints both numbers."""
    path = tmp_path / "hostile.gguf"
    path.write_bytes(data)
    with pytest.raises(NotGGUF, match=says):
        read_header(path)
