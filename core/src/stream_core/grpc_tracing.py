"""Traces across gRPC: the caller's context travels in a call's metadata, the service's span goes on below it."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import grpc
import grpc.aio

from stream_core import gen_ai, trace_context, tracing
from stream_core.tracing import Attributes, Kind

_Request = TypeVar("_Request")
_Reply = TypeVar("_Reply")


def call_attributes(method: str) -> Attributes:
    """Tell of a span which call it is: "package.Service/Method"."""
    return {gen_ai.RPC_SYSTEM: "grpc", gen_ai.RPC_METHOD: method}


class TracedCalls(grpc.aio.ServerInterceptor):
    """Puts each unary call that belongs to a trace into a span; streams last for ever and have none."""

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[_Request, _Reply] | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[_Request, _Reply] | None":
        """Wrap the handler of one call; see grpc.aio."""
        handler = await continuation(handler_call_details)
        parent = trace_context.of_metadata(handler_call_details.invocation_metadata)
        if parent is None or handler is None or handler.unary_unary is None:
            return handler
        # Typed for threads; the asyncio server's handlers are awaited.
        inner = cast("Callable[[_Request, Any], Awaitable[_Reply]]", handler.unary_unary)
        method = handler_call_details.method.lstrip("/")

        async def traced(request: _Request, context: Any) -> _Reply:
            span = tracing.begin(method, kind=Kind.SERVER, parent=parent, attributes=call_attributes(method))
            fault = ""
            with trace_context.current(span.context):
                try:
                    return await inner(request, context)
                except BaseException as error:
                    fault = tracing.fault_of(error)
                    raise
                finally:
                    span.end(fault)

        return grpc.unary_unary_rpc_method_handler(
            traced,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
