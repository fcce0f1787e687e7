"""The gRPC face: translates between the protos and `Dispatch`, nothing else."""

from collections.abc import AsyncIterator

import grpc
import grpc.aio

from stream_core.errors import ModelNotFound
from stream_core.rpc import hpc_dispatch_pb2, hpc_dispatch_pb2_grpc
from stream_hpc_dispatch.dispatch import Dispatch


class Servicer(hpc_dispatch_pb2_grpc.HpcDispatchServicer):
    """`HpcDispatch` of protos/hpc_dispatch.proto."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch

    async def WatchPool(  # noqa: N802  (the proto's name)
        self,
        request: hpc_dispatch_pb2.WatchPoolRequest,  # noqa: ARG002  (every gateway sees the same pool)
        context: grpc.aio.ServicerContext[hpc_dispatch_pb2.WatchPoolRequest, hpc_dispatch_pb2.Pool],  # noqa: ARG002
    ) -> AsyncIterator[hpc_dispatch_pb2.Pool]:
        """The pool now, and whenever it changes."""
        async for pool in self._dispatch.watch():
            yield pool

    async def RequestWorker(  # noqa: N802  (the proto's name)
        self,
        request: hpc_dispatch_pb2.RequestWorkerRequest,
        context: grpc.aio.ServicerContext[hpc_dispatch_pb2.RequestWorkerRequest, hpc_dispatch_pb2.RequestWorkerReply],
    ) -> hpc_dispatch_pb2.RequestWorkerReply:
        """Start a worker of a cold model, or one more; NOT_FOUND when no pool offers it."""
        try:
            model = await self._dispatch.request(
                request.model, request.cluster, waiting=request.waiting, gateway=request.gateway_id
            )
        except ModelNotFound as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, error.message)
        return hpc_dispatch_pb2.RequestWorkerReply(model=model)

    def register(self, server: grpc.aio.Server) -> None:
        """Add this servicer to a server."""
        hpc_dispatch_pb2_grpc.add_HpcDispatchServicer_to_server(self, server)  # type: ignore[no-untyped-call]  # generated
