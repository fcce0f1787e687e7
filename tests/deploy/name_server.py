"""A name server for headless Services: it answers with the addresses of the pods that are ready now."""

import asyncio
import contextlib
import ipaddress
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, cast

_A: Final = 1
_IN: Final = 1
_HEADER: Final = struct.Struct("!6H")
_ANSWER: Final = 0x8400  # an authoritative answer
_NO_SUCH_NAME: Final = 3

Lookup = Callable[[str], Sequence[str] | None]
"""Addresses of a name; None: there is no such name."""


class _Server(asyncio.DatagramProtocol):
    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None:
            self._transport.sendto(answer(data, self._lookup), addr)


def answer(query: bytes, lookup: Lookup) -> bytes:
    """Answer one query for A records (RFC 1035, section 4); other types have none."""
    number = _HEADER.unpack_from(query)[0]
    labels, at = [], _HEADER.size
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii"))
        at += 1 + query[at]
    kind = struct.unpack_from("!H", query, at + 1)[0]
    question = query[_HEADER.size : at + 5]
    found = lookup(".".join(labels))
    addresses = found if found and kind == _A else ()
    records = b"".join(
        struct.pack("!HHHIH", 0xC000 | _HEADER.size, _A, _IN, 0, 4) + ipaddress.IPv4Address(each).packed
        for each in addresses
    )
    flags = _ANSWER | (_NO_SUCH_NAME if found is None else 0)
    return _HEADER.pack(number, flags, 1, len(addresses), 0, 0) + question + records


@contextlib.asynccontextmanager
async def serve_names(address: str, lookup: Lookup) -> AsyncIterator[str]:
    """Serve until the block ends.

    Yields:
        "address:port".
    """
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Server(lookup), local_addr=(address, 0))
    try:
        yield f"{address}:{transport.get_extra_info('sockname')[1]}"
    finally:
        transport.close()
