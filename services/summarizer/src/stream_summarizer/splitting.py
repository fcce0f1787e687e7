"""Published patterns by which byte-level tokenizers split a text into pieces. Pure."""

from typing import Final

LLAMA3_SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_SPLIT: Final = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")

CL100K_SPLIT: Final = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++\z|\s*[\r\n]|\s+(?!\S)|\s"
)
"""As tiktoken has it; `{1,3}+` and `$` mean something else to the engine used here, so `{1,3}` and `\\z`."""

_CAPITAL: Final = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"
_SMALL: Final = r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_BEFORE: Final = r"[^\r\n\p{L}\p{N}]?"
_ENDING: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K_SPLIT: Final = (
    rf"{_BEFORE}[{_CAPITAL}]*[{_SMALL}]+{_ENDING}|{_BEFORE}[{_CAPITAL}]+[{_SMALL}]*{_ENDING}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
