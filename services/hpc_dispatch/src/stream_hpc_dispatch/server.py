"""The gRPC face: translates between the protos and `Desk`, nothing else."""

from collections.abc import AsyncIterator, Iterable

import grpc
import grpc.aio

from stream_core.errors import ModelNotFound
from stream_core.rpc import hpc_dispatch_pb2, hpc_dispatch_pb2_grpc
from stream_hpc_dispatch.desk import FORWARDED, Desk, NoLeaderError


class Servicer(hpc_dispatch_pb2_grpc.HpcDispatchServicer):
    """`HpcDispatch` of protos/hpc_dispatch.proto."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def WatchPool(  # noqa: N802  (the proto's name)
        self,
        request: hpc_dispatch_pb2.WatchPoolRequest,
        context: grpc.aio.ServicerContext[hpc_dispatch_pb2.WatchPoolRequest, hpc_dispatch_pb2.Pool],
    ) -> AsyncIterator[hpc_dispatch_pb2.Pool]:
        """The pool now, and whenever it changes."""
        forwarded = _forwarded(context.invocation_metadata())
        async for pool in self._desk.watch(forwarded=forwarded, as_changes=request.changes):
            yield pool

    async def RequestWorker(  # noqa: N802  (the proto's name)
        self,
        request: hpc_dispatch_pb2.RequestWorkerRequest,
        context: grpc.aio.ServicerContext[hpc_dispatch_pb2.RequestWorkerRequest, hpc_dispatch_pb2.RequestWorkerReply],
    ) -> hpc_dispatch_pb2.RequestWorkerReply:
        """Start a worker of a cold model, or one more; NOT_FOUND: no pool offers it, UNAVAILABLE: ask again."""
        try:
            model = await self._desk.request(request, forwarded=_forwarded(context.invocation_metadata()))
        except ModelNotFound as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, error.message)
        except NoLeaderError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, error.message)
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details() or "")
        return hpc_dispatch_pb2.RequestWorkerReply(model=model)

    def register(self, server: grpc.aio.Server) -> None:
        """Add this servicer to a server."""
        hpc_dispatch_pb2_grpc.add_HpcDispatchServicer_to_server(self, server)  # type: ignore[no-untyped-call]  # generated


def _forwarded(metadata: Iterable[tuple[str, str | bytes]] | None) -> bool:
    return any(key == FORWARDED for key, _ in metadata or ())
