"""What tests of the real service share: its environment, a channel to it, requests."""

from pathlib import Path
from typing import Any

import grpc.aio

from stream_core.grpc_client import open_channel
from stream_core.rpc import summarizer_pb2 as pb
from stream_core.rpc import summarizer_pb2_grpc as rpc
from stream_core.settings import TlsFiles
from stream_core.testing.programs import Program

from .building import encode


def tls_of(folder: Path, name: str) -> TlsFiles:
    return TlsFiles(ca=folder / "ca.pem", certificate=folder / f"{name}.pem", key=folder / f"{name}.key")


def environment(folder: Path, **more: str) -> dict[str, str]:
    files = tls_of(folder, "summarizer")
    return {
        "STREAM_SUMMARIZER__TLS__CA": str(files.ca),
        "STREAM_SUMMARIZER__TLS__CERTIFICATE": str(files.certificate),
        "STREAM_SUMMARIZER__TLS__KEY": str(files.key),
    } | more


def channel(program: Program, certificates: Path) -> grpc.aio.Channel:
    return open_channel(f"127.0.0.1:{program.ready['port']}", tls_of(certificates, "gateway"))


def stub(open_one: grpc.aio.Channel) -> Any:
    return rpc.SummarizerStub(open_one)


def to_fit(messages: list[dict[str, Any]], window: int = 2000, **fields: Any) -> pb.FitRequest:
    target = pb.Target(
        tier="local",
        model=fields.pop("model", "tiny"),
        context_window=window,
        reserved_output=fields.pop("output", 200),
    )
    fields.setdefault("privacy", "public")
    return pb.FitRequest(conversation=pb.Conversation(messages_json=encode(messages)), target=target, **fields)
