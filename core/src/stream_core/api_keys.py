"""API keys: shown once, hashed at rest.

A key is "sk-stream-" and 43 characters of 256 random bits, so one round of SHA-256 protects it as well as any slow
hash would. The file holds JSON, `KeyFile`; `stream keys` writes it, the gateway reads it again when it changes.
"""

import hashlib
import secrets
from typing import Final, Literal

import msgspec

from stream_core.errors import ConfigError

FULL: Final = "full"
"""As a key's `context`: its conversations are sent whole or not at all."""
_PREFIX: Final = "sk-stream-"
_SHOWN: Final = len(_PREFIX) + 6


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a key, user or project may use; None: as much as there is."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Of prompts and answers together."""
    concurrent_streams: int | None = None
    """Requests under way at once, streamed or not."""
    prompt_tokens: int | None = None
    """Of one request."""
    tokens_per_month: int | None = None
    dollars_per_month: float | None = None
    """For the cloud; months are of the calendar, UTC."""
    gpu_hours_per_month: float | None = None


UNLIMITED: Final = Limits()


class KeyRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a key."""

    id: str  # for people: "key-3f9a1c"
    name: str
    sha256: str  # of the whole key, hex
    prefix: str  # its first characters, so that an owner recognises it
    created: int  # unix seconds
    tiers: list[str] | None = None  # which tiers it may use; None: all
    privacy: str | None = None  # class of all its requests unless a header raises it; None: the policy's default
    revoked: bool = False
    clusters: list[str] | None = None  # which clusters of tiers of kind hpc it may use; None: all
    context: Literal["full"] | None = None  # "full": its conversations are never condensed; None: where they must be
    limits: Limits | None = None  # what it may use; None: as much as there is
    models: list[str] | None = None  # which models it may use; None: all
    expires: int | None = None  # unix seconds; None: never
    admin: bool = False  # whether it may use the admin API


class KeyFile(msgspec.Struct, frozen=True):
    """The whole file."""

    keys: list[KeyRecord]


def new_key(
    name: str,
    *,
    now: float,
    tiers: list[str] | None = None,
    privacy: str | None = None,
    clusters: list[str] | None = None,
    context: Literal["full"] | None = None,
    limits: Limits | None = None,
    models: list[str] | None = None,
    expires: int | None = None,
    admin: bool = False,
) -> tuple[str, KeyRecord]:
    """Draw a key: (the key itself, to be shown once; what is kept of it)."""
    key = _PREFIX + secrets.token_urlsafe(32)
    record = KeyRecord(
        id=f"key-{secrets.token_hex(3)}",
        name=name,
        sha256=digest(key),
        prefix=key[:_SHOWN],
        created=int(now),
        tiers=tiers,
        privacy=privacy,
        clusters=clusters,
        context=context,
        limits=limits,
        models=models,
        expires=expires,
        admin=admin,
    )
    return key, record


def digest(key: str) -> str:
    """Hash a key as it is kept: SHA-256, hex."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def load_keys(data: bytes, *, source: str) -> KeyFile:
    """Read a key file.

    Raises:
        ConfigError: not JSON or not of that shape.
    """
    try:
        return msgspec.json.decode(data, type=KeyFile)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{source}: {error}") from error


def dump_keys(file: KeyFile) -> bytes:
    """Write a key file, indented, since operators read it."""
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"
