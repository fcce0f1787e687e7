"""The summarizer as its clients see it: a process of its own, asked over gRPC with mutual TLS."""

import contextlib
import datetime
import json
import re
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from fitting_measures.survival import NOTHING, Sent
from fitting_measures.talks import Messages
from stream_core.certificates import ensure_certificates
from stream_core.deployment import Deployment, ModelConfig, TierConfig
from stream_core.grpc_client import open_channel
from stream_core.rpc import summarizer_pb2 as pb
from stream_core.rpc import summarizer_pb2_grpc as rpc
from stream_core.settings import TlsFiles
from stream_core.testing.programs import start
from stream_summarizer.conversation import parse
from stream_summarizer.policy import MARK
from stream_summarizer.tokens import Counter, Counters

TIER, MODEL = "local", "measured"
_MAX_MESSAGES: Final = 20_000
_LINE: Final = re.compile(r"^\w+ \((\d+)\): (.*)$")
_NOON: Final = datetime.datetime(2026, 7, 1, 12, 0, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Fit:
    """What came of one request."""

    sent: Sent
    window: int
    took_ms: float
    method: str
    messages: bytes
    """As JSON; empty when it did not fit."""


class Service:
    """A running summarizer and a counter of its model's tokens."""

    def __init__(self, stub: Any, counter: Counter) -> None:
        self._stub = stub
        self._counter = counter

    def tokens(self, messages: Messages | bytes) -> int:
        """Count a prompt as the model would."""
        data = messages if isinstance(messages, bytes) else json.dumps(messages).encode()
        return self._counter.prompt(parse(data, max_messages=_MAX_MESSAGES).messages, b"").tokens

    def sizes(self, messages: Messages) -> list[int]:
        """Count what each message adds to a prompt."""
        frame = self.tokens([{"role": "user", "content": ""}])
        own = self._counter.prompt((), b"").tokens
        return [self._counter.text(message["content"]) + frame - own for message in messages]

    async def fit(self, history: Messages, question: str, window: int, scope: str) -> Fit:
        """Make a conversation with its last question fit a window of so many tokens."""
        data = json.dumps([*history, {"role": "user", "content": question}]).encode()
        request = pb.FitRequest(
            conversation=pb.Conversation(messages_json=data),
            target=pb.Target(tier=TIER, model=MODEL, context_window=window, reserved_output=0),
            cache_scope=scope,
        )
        began = time.perf_counter()
        reply = await self._stub.Fit(request, timeout=60)
        took = (time.perf_counter() - began) * 1000
        return Fit(_sent(reply, history), window, took, pb.Method.Name(reply.method), reply.messages_json)


def _sent(reply: pb.FitReply, history: Messages) -> Sent:
    if not reply.fits:
        return NOTHING
    condensed = {at for span in reply.condensed for at in range(span.first, span.last + 1)}
    messages = json.loads(reply.messages_json)[:-1]
    summary = "\n".join(m["content"] for m in messages if str(m["content"]).startswith(MARK)) if condensed else ""
    lines: dict[int, str] = {}
    at = -1
    for line in summary.splitlines():
        match = _LINE.match(line)
        at = int(match[1]) if match else at
        if at >= 0:
            lines[at] = f"{lines.get(at, '')}\n{match[2] if match else line}"
    texts = tuple(str(message["content"]) for message in messages)
    return Sent(frozenset(range(len(history))) - condensed, summary, texts, lines)


@contextlib.asynccontextmanager
async def serving(tokenizer: Path) -> AsyncIterator[Service]:
    """Run the summarizer for a model with this tokenizer folder until the block ends."""
    model = ModelConfig(id=MODEL, tokenizer=tokenizer)
    tier = TierConfig(name=TIER, base_url="http://127.0.0.1:9/v1", models=[model])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ensure_certificates(folder, ["summarizer", "gateway"], now=datetime.datetime.now(datetime.UTC))
        config = folder / "stream.yaml"
        config.write_text(yaml.safe_dump({"tiers": [tier.model_dump(mode="json", exclude_defaults=True)]}))
        own, ours = _files(folder, "summarizer"), _files(folder, "gateway")
        env = {
            "STREAM_CONFIG": str(config),
            "STREAM_SUMMARIZER__TLS__CA": str(own.ca),
            "STREAM_SUMMARIZER__TLS__CERTIFICATE": str(own.certificate),
            "STREAM_SUMMARIZER__TLS__KEY": str(own.key),
        }
        counter = Counters(Deployment(tiers=[tier]), 1600, lambda: _NOON).of(TIER, MODEL)
        with start("stream_summarizer", env=env) as program:
            async with open_channel(f"127.0.0.1:{program.ready['port']}", ours) as channel:
                yield Service(rpc.SummarizerStub(channel), counter)  # type: ignore[no-untyped-call]  # generated code


def _files(folder: Path, name: str) -> TlsFiles:
    return TlsFiles(ca=folder / "ca.pem", certificate=folder / f"{name}.pem", key=folder / f"{name}.key")
