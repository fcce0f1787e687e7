"""The tokenizer inside a GGUF file: its vocabulary and merges as a `tokenizers` object, and its chat template.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Known are byte-level BPE vocabularies ("gpt2" there)
whose splitting is one of `_SPLITS`, as llama.cpp names it (`tokenizer.ggml.pre`); others are refused, and the counts of
their models are estimates. A file may come from anywhere: every count is checked before anything is read.
"""

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import msgspec

from stream_core.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MAX_KEYS: Final = 4096
_MAX_STRING: Final = 4 * 1024 * 1024
_MAX_ARRAY: Final = 4 * 1024 * 1024
_SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING: Final = 8
_ARRAY: Final = 9
_CONTROL: Final = 3
_USER_DEFINED: Final = 4

_LLAMA3: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS: Final = {
    "gpt-2": None,  # what `ByteLevel` does by itself
    "default": None,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "qwen2": _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"),
}


class GgufTokenizer(msgspec.Struct, frozen=True):
    """What a GGUF says about its model's text."""

    tokenizer: "Tokenizer"
    template: str  # jinja; empty when there is none
    special_tokens: dict[str, str]  # bos_token and eos_token, where named


def read_gguf_tokenizer(path: Path) -> GgufTokenizer:
    """Read a tokenizer out of a GGUF file.

    Raises:
        ConfigError: no GGUF, or one whose vocabulary is of another kind.
        OSError: not readable.
    """
    with path.open("rb") as file:
        values = _Reader(file, path).metadata()
    kind, split = values.get("tokenizer.ggml.model"), values.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or split not in _SPLITS:
        raise ConfigError(f"{path}: vocabulary {kind!r} with splitting {split!r}, known is 'gpt2' with {list(_SPLITS)}")
    tokens, merges = values["tokenizer.ggml.tokens"], values.get("tokenizer.ggml.merges", [])
    types = values.get("tokenizer.ggml.token_type", [])
    special = [token for token, type_ in zip(tokens, types, strict=False) if type_ in {_CONTROL, _USER_DEFINED}]
    return GgufTokenizer(
        _byte_level(tokens, merges, special, _SPLITS[split], whole=split.startswith("llama")),
        str(values.get("tokenizer.chat_template", "")),
        {
            f"{name}_token": tokens[at]
            for name in ("bos", "eos")
            if isinstance(at := values.get(f"tokenizer.ggml.{name}_token_id"), int) and 0 <= at < len(tokens)
        },
    )


def _byte_level(
    tokens: list[str], merges: list[str], special: list[str], split: str | None, *, whole: bool
) -> "Tokenizer":
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers  # noqa: PLC0415  (as `tokens` does)

    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs, ignore_merges=whole))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    tokenizer.pre_tokenizer = (
        byte_level
        if split is None
        else pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"), byte_level])
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return tokenizer


class _Reader:
    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path

    def metadata(self) -> dict[str, Any]:
        """Read the key-value part."""
        if self._take(4) != b"GGUF" or self._scalar("I") not in {2, 3}:
            raise ConfigError(f"{self._path}: no GGUF file of version 2 or 3")
        self._scalar("Q")
        return {self._string(): self._value(self._scalar("I")) for _ in range(self._count("keys", _MAX_KEYS))}

    def _value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind])
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            raise ConfigError(f"{self._path}: value of unknown type {kind}")
        inner, count = self._scalar("I"), self._count("values", _MAX_ARRAY)
        if inner == _ARRAY:
            raise ConfigError(f"{self._path}: an array of arrays")
        if inner in _SCALARS:
            code = _SCALARS[inner]
            return list(struct.unpack(f"<{count}{code}", self._take(count * struct.calcsize("<" + code))))
        return [self._value(inner) for _ in range(count)]

    def _string(self) -> str:
        return self._take(self._count("bytes of a string", _MAX_STRING)).decode("utf-8", "replace")

    def _count(self, what: str, limit: int) -> int:
        count: int = self._scalar("Q")
        if count > limit:
            raise ConfigError(f"{self._path}: {count:,} {what}, at most {limit:,}")
        return count

    def _scalar(self, code: str) -> Any:
        return struct.unpack("<" + code, self._take(struct.calcsize("<" + code)))[0]

    def _take(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            raise ConfigError(f"{self._path}: ends inside its header")
        return data
