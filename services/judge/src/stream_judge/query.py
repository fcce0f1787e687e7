"""What is asked of the judge, and its way from the wire: an error names the field and both numbers. Pure."""

from dataclasses import dataclass

from stream_core.errors import InvalidRequest
from stream_core.rpc import judge_pb2
from stream_judge.context import Turn
from stream_judge.features import Shape


@dataclass(frozen=True, slots=True)
class Query:
    """A valid request."""

    turns: tuple[Turn, ...]
    """At least one, the oldest first."""
    tiers: tuple[str, ...]
    """At least one, all different, cheapest first."""
    shape: Shape
    cache_scope: str = ""
    """Answers are shared within one scope only."""
    privacy: str = ""
    """Class of the text; empty: not told, so no language model may see it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold."""

    turns: int = 4096
    tiers: int = 16
    modalities: int = 8
    name_chars: int = 128
    """Characters of a role, a tier's or a modality's name, a request id."""
    scope_chars: int = 512
    bytes: int = 32 * 1024 * 1024
    """Of the whole request as it stands on the wire."""


def read_query(request: judge_pb2.ScoreRequest, limits: Limits) -> Query:
    """Check a request and take from it what is judged.

    Raises:
        InvalidRequest: a field is missing, too many or too long; `param` names it.
    """
    size = request.ByteSize()
    if size > limits.bytes:
        raise InvalidRequest(f"request of {size:,} bytes, at most {limits.bytes:,}", param="turns")
    _check_count("turns", len(request.turns), 1, limits.turns)
    _check_count("tiers", len(request.tiers), 1, limits.tiers)
    _check_count("modalities", len(request.modalities), 0, limits.modalities)
    _check_length("request_id", request.request_id, 0, limits.name_chars)
    _check_length("cache_scope", request.cache_scope, 0, limits.scope_chars)
    _check_length("privacy", request.privacy, 0, limits.name_chars)
    for index, tier in enumerate(request.tiers):
        _check_length(f"tiers[{index}]", tier, 1, limits.name_chars)
    for index, modality in enumerate(request.modalities):
        _check_length(f"modalities[{index}]", modality, 1, limits.name_chars)
    for index, turn in enumerate(request.turns):
        _check_length(f"turns[{index}].role", turn.role, 1, limits.name_chars)
    tiers = tuple(request.tiers)
    if len(set(tiers)) < len(tiers):
        raise InvalidRequest(f"{len(tiers)} names, only {len(set(tiers))} of them different", param="tiers")
    return Query(
        turns=tuple(Turn(turn.role, turn.text) for turn in request.turns),
        tiers=tiers,
        shape=Shape(
            modalities=frozenset(request.modalities),
            tool_count=request.tool_count,
            structured_output=request.structured_output,
            max_output_tokens=request.max_output_tokens,
        ),
        cache_scope=request.cache_scope,
        privacy=request.privacy,
    )


def _check_count(param: str, count: int, least: int, most: int) -> None:
    if count < least:
        raise InvalidRequest(f"{count} given, at least {least}", param=param)
    if count > most:
        raise InvalidRequest(f"{count:,} given, at most {most:,}", param=param)


def _check_length(param: str, text: str, least: int, most: int) -> None:
    if len(text) < least:
        raise InvalidRequest(f"{len(text)} characters, at least {least}", param=param)
    if len(text) > most:
        raise InvalidRequest(f"{len(text):,} characters, at most {most:,}", param=param)
