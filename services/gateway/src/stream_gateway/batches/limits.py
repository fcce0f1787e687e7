"""What an owner may store and run, and how a request says it. Pure; every refusal prints both numbers."""

import re
from collections.abc import Mapping
from typing import Final

from stream_core.errors import InvalidRequest, LimitExceeded, ModelNotFound, RequestTooLarge
from stream_gateway.batches.records import Usage

ENDPOINTS: Final = ("/v1/chat/completions",)
PURPOSES: Final = ("batch",)
_FILE_ID: Final = re.compile(r"file-[0-9a-f]{32}")
_BATCH_ID: Final = re.compile(r"batch_[0-9a-f]{32}")
_WINDOW: Final = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_MAX_METADATA: Final = 16
_MAX_METADATA_KEY: Final = 64
_MAX_METADATA_VALUE: Final = 512
_MAX_FILENAME: Final = 255
LEAST_EXPIRY_S: Final = 3600
"""The shortest `expires_after` of a file, as in OpenAI's API."""


class TooMany(InvalidRequest):
    """An owner has as many as allowed; the message prints both numbers."""

    code = "limit_exceeded"


class NoSuchFile(ModelNotFound):
    """No such file, or another's: nobody is told which."""

    code = "file_not_found"


class NoSuchBatch(ModelNotFound):
    """No such batch, or another's: nobody is told which."""

    code = "batch_not_found"


class FileInUse(InvalidRequest):
    """A batch that has not ended reads it."""

    code = "file_in_use"


def file_id(text: str) -> str:
    """Check a file's id; what is none names no file."""
    if not _FILE_ID.fullmatch(text):
        raise NoSuchFile(f"there is no file {text[:60]!r}", param="file_id")
    return text


def batch_id(text: str) -> str:
    """Check a batch's id; what is none names no batch."""
    if not _BATCH_ID.fullmatch(text):
        raise NoSuchBatch(f"there is no batch {text[:60]!r}", param="batch_id")
    return text


def check_file_size(size: int, limit: int) -> None:
    """Refuse a file that is too large.

    Args:
        size: bytes, as far as they are known.
        limit: `max_file_bytes`.
    """
    if size > limit:
        raise RequestTooLarge(f"file: {size:,} bytes or more, at most {limit:,} are allowed", param="file")


def check_usage(used: Usage, *, max_files: int, max_bytes: int) -> None:
    """Refuse what would be too many files or bytes of one owner, the new file included."""
    if used.files > max_files:
        raise TooMany(f"file: this would be file {used.files:,} of yours, at most {max_files:,} are kept", param="file")
    if used.bytes > max_bytes:
        words = f"file: your files would have {used.bytes:,} bytes or more together, at most {max_bytes:,} are kept"
        raise TooMany(words, param="file")


def check_open(count: int, limit: int) -> None:
    """Refuse what would be too many open batches of one owner, the new one included."""
    if count > limit:
        raise LimitExceeded(f"this would be open batch {count:,} of yours, at most {limit:,} may be open")


def check_purpose(text: str) -> str:
    """Check a file's purpose."""
    if text not in PURPOSES:
        raise InvalidRequest(f"purpose: {text[:40]!r} is not one of {', '.join(PURPOSES)}", param="purpose")
    return text


def check_endpoint(text: str) -> str:
    """Check a batch's endpoint."""
    if text not in ENDPOINTS:
        raise InvalidRequest(f"endpoint: {text[:80]!r} is not one of {', '.join(ENDPOINTS)}", param="endpoint")
    return text


def window_seconds(text: str, limit: float) -> int:
    """Read a completion window such as "24h".

    Args:
        text: a number and s, m, h or d.
        limit: seconds at most.
    """
    found = _WINDOW.fullmatch(text)
    if found is None:
        said = f"completion_window: {text[:40]!r} is not like 24h (a number and s, m, h or d)"
        raise InvalidRequest(said, param="completion_window")
    seconds = int(found[1]) * _SECONDS[found[2]]
    if seconds > limit:
        said = f"completion_window: {seconds:,} seconds, at most {limit:,.0f} are allowed"
        raise InvalidRequest(said, param="completion_window")
    return seconds


def expiry_seconds(anchor: str | None, seconds: str | None, limit: float) -> float:
    """Read `expires_after` of a file: seconds it is kept; without one the limit itself."""
    if anchor is None and seconds is None:
        return limit
    param = "expires_after"
    if anchor != "created_at":
        raise InvalidRequest(f"{param}[anchor]: only 'created_at' is possible", param=param)
    if seconds is None or not seconds.isdecimal() or not LEAST_EXPIRY_S <= int(seconds) <= limit:
        said = (seconds or "")[:20]
        raise InvalidRequest(f"{param}[seconds]: {said!r} is not from {LEAST_EXPIRY_S:,} to {limit:,.0f}", param=param)
    return int(seconds)


def check_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Check a batch's metadata: OpenAI's own limits."""
    if len(metadata) > _MAX_METADATA:
        words = f"metadata: {len(metadata)} pairs, at most {_MAX_METADATA} are allowed"
        raise InvalidRequest(words, param="metadata")
    for key, value in metadata.items():
        if len(key) > _MAX_METADATA_KEY or len(value) > _MAX_METADATA_VALUE:
            raise InvalidRequest(
                f"metadata: a key of {len(key)} and a value of {len(value)} characters, "
                f"at most {_MAX_METADATA_KEY} and {_MAX_METADATA_VALUE} are allowed",
                param="metadata",
            )
    return dict(metadata)


def clean_filename(text: str) -> str:
    """Keep of a file's name what may be shown again: no folders, no control characters."""
    name = text.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in name if c.isprintable())[:_MAX_FILENAME] or "upload.jsonl"
