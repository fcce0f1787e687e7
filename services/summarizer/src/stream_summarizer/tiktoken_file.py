"""A file of ranks as OpenAI publishes its vocabularies, `cl100k_base.tiktoken`, as a `tokenizers` object.

A line is a token's bytes in base64, a space, and its rank. The lower rank is merged first, whatever two tokens make it
up, so every such pair is a merge here. The file says nothing of how a text is split first; its name does. A text's
special tokens are plain text, as they are to OpenAI. A file may come from anywhere: all of it is checked.
"""

import binascii
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stream_core.errors import ConfigError
from stream_summarizer.splitting import CL100K_SPLIT, O200K_SPLIT

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPLITS: Final = {"cl100k_base": CL100K_SPLIT, "o200k_base": O200K_SPLIT}
MAX_BYTES: Final = 16 * 1024 * 1024
MAX_TOKEN_BYTES: Final = 1024
_BYTES: Final = 256
_SHOWN: Final = frozenset({*range(33, 127), *range(161, 173), *range(174, 256)})
_HIDDEN: Final = [byte for byte in range(_BYTES) if byte not in _SHOWN]
_LETTERS: Final = {byte: _BYTES + place for place, byte in enumerate(_HIDDEN)}
"""Byte-level vocabularies write these bytes as letters that can be seen, the others as themselves."""


def read_tiktoken_file(path: Path) -> "Tokenizer":
    """Read a tokenizer out of a file of ranks.

    Raises:
        ConfigError: another name than a known one, or damaged.
        OSError: not readable.
    """
    split = SPLITS.get(path.stem)
    if split is None:
        raise ConfigError(f"tokenizer: {path}: how it splits is unknown, known are {list(SPLITS)}", param="tokenizer")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ConfigError(f"tokenizer: {path}: more than {MAX_BYTES:,} bytes", param="tokenizer")
    return _byte_level(_ordered(data, path), split)


def _ordered(data: bytes, path: Path) -> list[bytes]:
    """Return the tokens, lowest rank first."""
    ranks: dict[int, bytes] = {}
    for number, line in enumerate(data.splitlines(), 1):
        try:
            coded, written = line.split()
            token, rank = binascii.a2b_base64(coded, strict_mode=True), int(written)
        except ValueError as error:
            raise _damaged(path, f"line {number} is no token in base64 and its rank") from error
        if not 0 < len(token) <= MAX_TOKEN_BYTES:
            raise _damaged(path, f"line {number} has a token of {len(token):,} bytes, at most {MAX_TOKEN_BYTES:,}")
        if ranks.setdefault(rank, token) is not token:
            raise _damaged(path, f"line {number} has the rank of another")
    tokens = [ranks[rank] for rank in sorted(ranks)]
    known = set(tokens)
    if len(known) < len(tokens):
        raise _damaged(path, "a token stands there twice")
    if missing := sum(bytes([byte]) not in known for byte in range(_BYTES)):
        raise _damaged(path, f"{missing} of the {_BYTES} single bytes are no tokens")
    return tokens


def _damaged(path: Path, why: str) -> ConfigError:
    return ConfigError(f"tokenizer: {path}: {why}", param="tokenizer")


def _byte_level(tokens: list[bytes], split: str) -> "Tokenizer":
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers  # noqa: PLC0415  (as `tokens` does)

    vocabulary = {token.decode("latin-1").translate(_LETTERS): number for number, token in enumerate(tokens)}
    pairs = [
        (word[:cut], word[cut:])
        for word in vocabulary  # by rank
        for cut in range(1, len(word))
        if word[:cut] in vocabulary and word[cut:] in vocabulary
    ]
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs, ignore_merges=True))
    steps = [
        pre_tokenizers.Split(Regex(split), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    return tokenizer
