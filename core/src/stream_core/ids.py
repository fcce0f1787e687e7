"""Identifiers: 128 random bits each, written as 32 lower-case hex digits wherever people or subjects see them.

The bytes form travels in frames, the hex form in subjects, logs and headers.
"""

import secrets

ID_BYTES = 16


def new_id() -> bytes:
    """Draw a new id: 16 bytes from the operating system's random source."""
    return secrets.token_bytes(ID_BYTES)


def to_hex(value: bytes) -> str:
    """Write an id as 32 lower-case hex digits."""
    return value.hex()


def from_hex(text: str) -> bytes:
    """Read an id written by `to_hex`.

    Raises:
        ValueError: not exactly 32 hex digits.
    """
    value = bytes.fromhex(text)
    if len(value) != ID_BYTES or value.hex() != text:
        raise ValueError(f"id of {len(text)} characters, exactly {2 * ID_BYTES} lower-case hex digits wanted")
    return value
