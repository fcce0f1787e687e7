"""Asking the judge how likely each tier is to answer well; without it every tier gets the default score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio

from stream_core.grpc_client import open_channel
from stream_core.grpc_tracing import call_attributes
from stream_core.openai.models import ChatRequest
from stream_core.rpc import judge_pb2, judge_pb2_grpc
from stream_core.settings import TlsFiles
from stream_core.trace_context import metadata
from stream_core.tracing import Kind, step
from stream_gateway.settings import GatewaySettings

_SCORE: Final = "stream.v1.Judge/Score"
_TURNS: Final = 8
_TURN_CHARACTERS: Final = 16_384


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge said."""

    scores: Mapping[str, float]
    """Probability of a good answer by tier."""
    note: str = ""
    """Why the scores are only the default; empty when the judge spoke."""
    level: str = ""
    """LOW, MEDIUM or HIGH; empty when the judge did not speak."""
    confidence: float = 0.0
    reasons: tuple[str, ...] = ()
    """In words, the strongest first."""
    expected_output_tokens: int = 0


class Judge:
    """The judge's client."""

    def __init__(self, target: str, tls: TlsFiles, *, deadline_s: float, default_score: float) -> None:
        """Open the channel, which connects by itself; an empty target asks nobody."""
        self._channel: grpc.aio.Channel | None = None
        self._stub: judge_pb2_grpc.JudgeStub | None = None
        if target:
            self._channel = open_channel(target, tls)
            self._channel.get_state(try_to_connect=True)  # so that the first request does not wait for it
            self._stub = judge_pb2_grpc.JudgeStub(self._channel)  # type: ignore[no-untyped-call]  # generated
        self._deadline_s = deadline_s
        self._default_score = default_score

    @classmethod
    def of(cls, settings: GatewaySettings) -> "Judge":
        """Build it from the settings."""
        return cls(
            settings.judge_target,
            settings.tls,
            deadline_s=settings.judge_deadline_ms / 1000,
            default_score=settings.default_score,
        )

    async def aclose(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close()

    async def score(
        self, chat: ChatRequest, tiers: Sequence[str], *, request_id: str, privacy: str, cache_scope: str
    ) -> Verdict:
        """Score a request for the tiers that may see it; never raises for a judge that is away or slow.

        Args:
            chat: the request.
            tiers: names, cheapest first.
            request_id: hex.
            privacy: the request's class; a language model that judges sees nothing beyond its own.
            cache_scope: within which the judge may share its answers; empty: with everybody.
        """
        if self._stub is None or not tiers:
            return self._default(tiers, "no judge")
        try:
            with step(_SCORE, kind=Kind.CLIENT, attributes=call_attributes(_SCORE)):
                question = score_request(chat, tiers, request_id, privacy, cache_scope)
                reply = await self._stub.Score(question, timeout=self._deadline_s, metadata=metadata())
        except grpc.aio.AioRpcError as error:
            late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            return self._default(tiers, "judge too slow" if late else "judge away")
        scores = {score.tier: score.probability for score in reply.scores}
        return Verdict(
            {tier: scores.get(tier, self._default_score) for tier in tiers},
            level=judge_pb2.Level.Name(reply.level).removeprefix("LEVEL_"),
            confidence=reply.confidence,
            reasons=tuple(reason.text for reason in reply.reasons),
            expected_output_tokens=reply.expected_output_tokens,
        )

    def _default(self, tiers: Sequence[str], note: str) -> Verdict:
        return Verdict(dict.fromkeys(tiers, self._default_score), f"{note}, default score")


def score_request(
    chat: ChatRequest, tiers: Sequence[str], request_id: str, privacy: str, cache_scope: str
) -> judge_pb2.ScoreRequest:
    """Build the question: the conversation's tail, each turn by its head and its end when it is very long."""
    return judge_pb2.ScoreRequest(
        request_id=request_id,
        turns=[judge_pb2.Turn(role=turn.role, text=_ends(turn.text)) for turn in chat.tail(_TURNS)],
        tiers=tiers,
        modalities=sorted(chat.modalities - {"text"}),
        tool_count=chat.tool_count,
        structured_output=chat.structured,
        max_output_tokens=min(chat.max_output or 0, 2**32 - 1),
        cache_scope=cache_scope,
        privacy=privacy,
    )


def _ends(text: str) -> str:
    if len(text) <= _TURN_CHARACTERS:
        return text
    half = _TURN_CHARACTERS // 2
    return f"{text[:half]}\n[...]\n{text[-half:]}"
