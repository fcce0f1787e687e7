"""A reader of GGUF headers: the metadata a user wants to see before a model is loaded.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The file may come from anywhere, so every count
and length is checked against a limit before anything is read, and arrays are skipped, not kept.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

MAGIC: Final = b"GGUF"
MAX_KEYS: Final = 4096
MAX_STRING: Final = 4 * 1024 * 1024
MAX_ARRAY: Final = 16 * 1024 * 1024
MAX_DEPTH: Final = 4

_SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING: Final = 8
_ARRAY: Final = 9

Value = int | float | bool | str


class NotGGUF(ValueError):
    """The file is no GGUF that this reader accepts; the message says why."""


@dataclass(frozen=True)
class Header:
    """What the header of a GGUF says about its model."""

    architecture: str
    name: str
    """`general.name`; empty when the file names none."""
    context: int
    """Tokens the model was made for; 0 when the file does not say."""
    has_chat_template: bool
    embedding_only: bool
    """The model gives vectors and cannot chat."""


class _Reader:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size

    def take(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            raise NotGGUF(f"ends after {self._size:,} bytes, inside its header")
        return data

    def scalar(self, code: str) -> int | float | bool:
        value: int | float | bool = struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]
        return value

    def count(self, what: str, limit: int) -> int:
        value = int(self.scalar("Q"))
        if value > limit:
            raise NotGGUF(f"{what} of {value:,}, at most {limit:,}")
        return value

    def string(self) -> str:
        return self.take(self.count("a string", MAX_STRING)).decode("utf-8", "replace")

    def skip(self, count: int) -> None:
        if self._file.tell() + count > self._size:
            raise NotGGUF(f"ends after {self._size:,} bytes, inside its header")
        self._file.seek(count, 1)

    def skip_array(self, depth: int = 0) -> None:
        kind = int(self.scalar("I"))
        length = self.count("an array", MAX_ARRAY)
        if kind in _SCALARS:
            self.skip(length * struct.calcsize("<" + _SCALARS[kind]))
            return
        if depth >= MAX_DEPTH:
            raise NotGGUF(f"arrays nested more than {MAX_DEPTH} deep")
        for _ in range(length):
            match kind:
                case 8:  # _STRING
                    self.skip(self.count("a string", MAX_STRING))
                case 9:  # _ARRAY
                    self.skip_array(depth + 1)
                case _:
                    raise NotGGUF(f"value of unknown type {kind}")

    def value(self) -> Value | None:
        kind = int(self.scalar("I"))
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            self.skip_array()
            return None
        raise NotGGUF(f"value of unknown type {kind}")


def read_metadata(path: Path) -> dict[str, Value | None]:
    """Read the key-value part of a GGUF file; arrays read as None.

    Args:
        path: of the file; for a split model, of its first part.

    Raises:
        NotGGUF: wrong magic, unsupported version, or a count beyond this module's limits.
        OSError: not readable.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        reader = _Reader(file, size)
        if reader.take(4) != MAGIC:
            raise NotGGUF("does not begin with GGUF")
        version = int(reader.scalar("I"))
        if version not in {2, 3}:
            raise NotGGUF(f"GGUF version {version}; 2 and 3 are known")
        reader.scalar("Q")
        keys = reader.count("a number of keys", MAX_KEYS)
        metadata: dict[str, Value | None] = {}
        for _ in range(keys):
            key = reader.string()
            metadata[key] = reader.value()
        return metadata


def read_header(path: Path) -> Header:
    """Read what a user wants to know of a GGUF.

    Raises:
        NotGGUF: as `read_metadata`.
        OSError: not readable.
    """
    metadata = read_metadata(path)
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise NotGGUF("names no architecture")
    name, context = metadata.get("general.name"), metadata.get(f"{architecture}.context_length")
    pooling = metadata.get(f"{architecture}.pooling_type")
    return Header(
        architecture=architecture,
        name=name if isinstance(name, str) else "",
        context=context if isinstance(context, int) else 0,
        has_chat_template=bool(metadata.get("tokenizer.chat_template")),
        embedding_only="bert" in architecture or (isinstance(pooling, int) and pooling > 0),
    )
