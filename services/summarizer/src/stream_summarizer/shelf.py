"""Summaries that are worth keeping: in memory, and sealed in a key-value bucket at the broker, for every replica.

    name    = HMAC-SHA-256(key for names, block key), hex, so that the broker learns neither scope nor content
    sealed  = version (1 byte) ‖ nonce (12 bytes, random) ‖ AES-256-GCM(text)
    key     = HKDF(service key, info "stream/v1 summary", salt = block key): one for each block, and a block key is a
              digest of scope and content, so nothing of one API key opens under another
    AAD     = "stream/v1 summary" ‖ version ‖ name

A broker that is away, full, slow or false costs time and nothing else: the block is summarised again.
"""

import asyncio
import hmac
import secrets
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stream_core.envelope.keys import derive
from stream_core.telemetry import Once
from stream_summarizer.blocks import Blocks

_VERSION: Final = b"\x01"
_PURPOSE: Final = b"stream/v1 summary"
_NONCE_BYTES: Final = 12
_LEAST: Final = len(_VERSION) + _NONCE_BYTES + 16
_MAX_WRITES: Final = 64
"""Under way at once; of more none is kept at the broker."""


class Store(Protocol):
    """Bytes by name, elsewhere."""

    async def read(self, name: str) -> bytes | None:
        """Return what stands there; None when nothing does, or nobody answers."""

    async def write(self, name: str, value: bytes) -> None:
        """Keep a value, if somebody answers."""


class Shelf:
    """Blocks in memory, and behind them those at the broker.

    Args:
        memory: the first place.
        store: the second; None: there is none.
        service_key: 32 bytes; not used without a store.
        faults: counts what does not open.
    """

    def __init__(self, memory: Blocks, store: Store | None, service_key: bytes, faults: Once) -> None:
        self._memory = memory
        self._store = store
        self._key = service_key
        self._faults = faults
        self._writing: set[asyncio.Task[None]] = set()

    async def get(self, key: bytes | None) -> str | None:
        """Return a block's text; None when nobody has it, or the key is None."""
        found = self._memory.get(key)
        if found is not None or self._store is None or key is None:
            return found
        name = _name(self._key, key)
        sealed = await self._store.read(name)
        if sealed is None:
            return None
        text = unseal(sealed, self._key, key, name)
        if text is None:
            self._faults.note("store_not_opened", name)
            return None
        self._memory.put(key, text)
        return text

    def put(self, key: bytes | None, text: str) -> None:
        """Keep a block's text; at the broker it is kept a moment later."""
        self._memory.put(key, text)
        if self._store is None or key is None:
            return
        if len(self._writing) >= _MAX_WRITES:
            self._faults.note("store_not_written", "too many at once")
            return
        name = _name(self._key, key)
        sealed = seal(text, self._key, key, name, nonce=secrets.token_bytes(_NONCE_BYTES))
        task = asyncio.create_task(self._store.write(name, sealed))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def aclose(self) -> None:
        """Wait for what is being written."""
        await asyncio.gather(*self._writing, return_exceptions=True)


def seal(text: str, service_key: bytes, key: bytes, name: str, *, nonce: bytes) -> bytes:
    """Seal a text for its name.

    Args:
        text: a block's summary.
        service_key: 32 bytes.
        key: of the block.
        name: at the broker.
        nonce: 12 bytes, random, never used again.
    """
    cipher = AESGCM(derive(service_key, info=_PURPOSE, salt=key))
    return _VERSION + nonce + cipher.encrypt(nonce, text.encode("utf-8", "surrogatepass"), _aad(name))


def unseal(sealed: bytes, service_key: bytes, key: bytes, name: str) -> str | None:
    """Open what stands under a name; None when it is not what was sealed for it with this key."""
    if len(sealed) < _LEAST or sealed[:1] != _VERSION:
        return None
    nonce, body = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    try:
        plain = AESGCM(derive(service_key, info=_PURPOSE, salt=key)).decrypt(nonce, body, _aad(name))
    except InvalidTag:
        return None
    return plain.decode("utf-8", "surrogatepass")


def _name(service_key: bytes, key: bytes) -> str:
    return hmac.digest(derive(service_key, info=_PURPOSE + b" name", salt=b""), key, "sha256").hex()


def _aad(name: str) -> bytes:
    return _PURPOSE + _VERSION + name.encode("ascii")
