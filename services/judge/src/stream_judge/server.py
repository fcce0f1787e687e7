"""The gRPC servicer: one thin layer between the wire and `classify`."""

import logging
import time

import grpc
import grpc.aio

from stream_core.errors import InvalidRequest
from stream_core.rpc import common_pb2, judge_pb2, judge_pb2_grpc
from stream_judge.classify import Classifier, Verdict
from stream_judge.meters import Meters
from stream_judge.query import Limits, Query, read_query
from stream_judge.score import Level

_log = logging.getLogger("stream_judge")
_LEVELS = {
    Level.LOW: judge_pb2.LEVEL_LOW,
    Level.MEDIUM: judge_pb2.LEVEL_MEDIUM,
    Level.HIGH: judge_pb2.LEVEL_HIGH,
}

Context = grpc.aio.ServicerContext[judge_pb2.ScoreRequest, judge_pb2.ScoreReply]


class JudgeServicer(judge_pb2_grpc.JudgeServicer):
    """Serves `Judge.Score`; a request that is not valid ends with INVALID_ARGUMENT and the field's name."""

    def __init__(self, classifier: Classifier, limits: Limits) -> None:
        self._classifier = classifier
        self._limits = limits
        self._meters = Meters()

    async def Score(self, request: judge_pb2.ScoreRequest, context: Context) -> judge_pb2.ScoreReply:  # noqa: N802  (the protocol's name)
        """Score one request."""
        began = time.perf_counter()
        try:
            query = read_query(request, self._limits)
        except InvalidRequest as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{error.param}: {error.message}")
        verdict = await self._classifier.classify(query)
        self._meters.note(query.tiers, verdict, time.perf_counter() - began)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug(
                "scored",
                extra={
                    "request_id": request.request_id,
                    "judge_level": verdict.score.level.name,
                    "cached": verdict.cached,
                    "took_us": round((time.perf_counter() - began) * 1e6),
                },
            )
        return reply(query, verdict)


def reply(query: Query, verdict: Verdict) -> judge_pb2.ScoreReply:
    """Put a verdict into the wire's words."""
    scored = verdict.score
    return judge_pb2.ScoreReply(
        scores=[
            common_pb2.TierScore(tier=tier, probability=probability)
            for tier, probability in zip(query.tiers, scored.probabilities, strict=True)
        ],
        level=_LEVELS[scored.level],
        confidence=scored.confidence,
        expected_output_tokens=verdict.expected_output_tokens,
        reasons=[judge_pb2.Reason(feature=r.feature, effect=r.effect, text=r.text) for r in scored.reasons],
        backend=verdict.backend,
        version=verdict.version,
        cached=verdict.cached,
        local_suffices=scored.suffices,
    )
