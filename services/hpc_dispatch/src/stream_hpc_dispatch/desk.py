"""Where gateways are answered: from this replica's own `Dispatch` while it leads, else from the leader's.

A gateway speaks with any replica, and its watch outlives a change of the leader: the pool's last snapshot goes on until
the next leader's first one. A replica that answers another replica never asks a third.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

import grpc
import grpc.aio

from stream_core.errors import RemoteError
from stream_core.grpc_client import open_channel
from stream_core.rpc import hpc_dispatch_pb2, hpc_dispatch_pb2_grpc
from stream_core.settings import TlsFiles
from stream_core.trace_context import metadata
from stream_hpc_dispatch.changes import changes
from stream_hpc_dispatch.dispatch import Dispatch

FORWARDED: Final = "stream-forwarded"
"""In a call's metadata: another replica asks."""
_RETRY_S: Final = 0.2
_REQUEST_S: Final = 2.0


class NoLeaderError(RemoteError):
    """No replica leads that could be reached; the caller asks again."""

    code = "no_leader"
    status_hint = 503


class Desk:
    """Answers gateways.

    Args:
        tls: certificate files, for calls to another replica.
        peer_name: in the other replicas' certificates.
    """

    def __init__(self, tls: TlsFiles, peer_name: str) -> None:
        self._tls = tls
        self._peer_name = peer_name
        self._leader: Callable[[], str] = str
        self._dispatch: Dispatch | None = None
        self._latest: hpc_dispatch_pb2.Pool | None = None
        self._compared: tuple[hpc_dispatch_pb2.Pool, hpc_dispatch_pb2.Pool, hpc_dispatch_pb2.Pool] | None = None
        self._news = asyncio.Event()
        self._closed = False

    async def lead(self, dispatch: Dispatch) -> None:
        """Answer from one's own `Dispatch` until its feed is closed, or cancelled."""
        self._dispatch = dispatch
        try:
            async for pool in dispatch.watch():
                self._show(pool)
        finally:
            self._dispatch = None

    async def follow(self, leader: Callable[[], str]) -> None:
        """Show the pool of another replica until cancelled.

        Args:
            leader: where it is reached; empty: none is known.
        """
        self._leader = leader
        while True:
            if address := self._leader():
                with contextlib.suppress(grpc.aio.AioRpcError):
                    async with self._stub(address) as stub:
                        watch = stub.WatchPool(hpc_dispatch_pb2.WatchPoolRequest(), metadata=((FORWARDED, "1"),))
                        async for pool in watch:
                            self._show(pool)
            await asyncio.sleep(_RETRY_S)

    async def watch(self, *, forwarded: bool = False, as_changes: bool = False) -> AsyncIterator[hpc_dispatch_pb2.Pool]:
        """Yield the pool, and each newer one, whoever leads.

        Args:
            forwarded: another replica asks: it is told only while this one leads.
            as_changes: after the first pool, yield what differs from the one before.
        """
        seen: hpc_dispatch_pb2.Pool | None = None
        while not forwarded or self._dispatch is not None:
            news = self._news
            if self._latest is not None and self._latest is not seen:
                before, seen = seen, self._latest
                yield seen if before is None or not as_changes else self._changes(before, seen)
            elif self._closed:
                return
            else:
                await news.wait()

    async def request(
        self, request: hpc_dispatch_pb2.RequestWorkerRequest, *, forwarded: bool = False
    ) -> hpc_dispatch_pb2.ModelState:
        """See to it that a worker of a model is there or on its way.

        Raises:
            ModelNotFound: no pool offers it.
            NoLeaderError: nobody could be asked; gateways ask again while requests wait, so nothing is lost.
            grpc.aio.AioRpcError: what the leader answered.
        """
        if self._dispatch is not None:
            return await self._dispatch.request(
                request.model, request.cluster, waiting=request.waiting, gateway=request.gateway_id
            )
        if forwarded or not (address := self._leader()):
            raise NoLeaderError("no replica of hpc_dispatch leads at the moment")
        async with self._stub(address) as stub:
            reply: hpc_dispatch_pb2.RequestWorkerReply = await stub.RequestWorker(
                request, timeout=_REQUEST_S, metadata=((FORWARDED, "1"), *metadata())
            )
            return reply.model

    def close(self) -> None:
        """End all watches, after the newest snapshot."""
        self._closed = True
        self._wake()

    @contextlib.asynccontextmanager
    async def _stub(self, address: str) -> AsyncIterator[hpc_dispatch_pb2_grpc.HpcDispatchStub]:
        async with open_channel(address, self._tls, peer_name=self._peer_name) as channel:
            yield hpc_dispatch_pb2_grpc.HpcDispatchStub(channel)  # type: ignore[no-untyped-call]  # generated

    def _show(self, pool: hpc_dispatch_pb2.Pool) -> None:
        self._latest = pool
        self._wake()

    def _changes(self, before: hpc_dispatch_pb2.Pool, now: hpc_dispatch_pb2.Pool) -> hpc_dispatch_pb2.Pool:
        """Compare once for all watchers that have seen the same; a slow one has missed some."""
        if self._compared is None or self._compared[0] is not before or self._compared[1] is not now:
            self._compared = before, now, changes(before, now)
        return self._compared[2]

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
