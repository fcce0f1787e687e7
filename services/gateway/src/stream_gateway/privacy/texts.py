"""All texts of a request, wherever they stand in its body: what an engine may read, a detector must. Pure."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_MEDIA_KEYS: Final = frozenset({"url", "image_url", "video_url", "audio_url", "file_url", "data", "file_data"})
"""Fields whose value may be bytes instead of text."""
_TOKEN_KEYS: Final = frozenset({"prompt", "input"})
"""Fields that may hold the numbers of tokens."""
_PEEKED: Final = 256
_BASE64: Final = re.compile(rf"[A-Za-z0-9+/=_-]{{{_PEEKED}}}")


def texts_of(body: Mapping[str, Any]) -> Iterator[str]:
    """Yield every string of a request, names of fields included, but no encoded image, sound or file."""
    pending: list[tuple[str, object]] = [("", body)]
    while pending:
        key, value = pending.pop()
        match value:
            case str():
                if not _is_media(key, value):
                    yield value
            case dict():
                for name, inner in value.items():
                    yield name
                    pending.append((name, inner))
            case list():
                pending += [(key, inner) for inner in value]
            case _:
                pass


def has_unreadable(body: Mapping[str, Any]) -> bool:
    """Tell whether a request has parts that are no text: media, or texts as numbers of tokens."""
    pending: list[tuple[str, object]] = [("", body)]
    while pending:
        key, value = pending.pop()
        match value:
            case str() if _is_media(key, value):
                return True
            case dict():
                pending += value.items()
            case list():
                pending += [(key, inner) for inner in value]
            case int() if key in _TOKEN_KEYS and not isinstance(value, bool):
                return True
            case _:
                pass
    return False


def _is_media(key: str, value: str) -> bool:
    """Whether a string is an encoded file: a data: URL, or long base64 where a file may stand."""
    if key not in _MEDIA_KEYS:
        return False
    return value.startswith("data:") or (len(value) >= _PEEKED and _BASE64.match(value) is not None)
