"""What an operator wants, in their own words, and the threshold that gives it. Pure.

| words                                     | goal                                                    |
|-------------------------------------------|---------------------------------------------------------|
| at most 15 % to the cloud                 | share of requests that may reach the cloud              |
| at least 95 % of cloud quality            | share of good answers, against sending everything there |
| at most $200 a month                      | what the cloud may cost                                 |

The threshold is the policy's `good_enough`: the cheapest tier that reaches it answers. Raising it sends more to the
cloud, so every goal is one walk along the curve of thresholds.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from stream_core.errors import ConfigError

Kind = Literal["share", "quality", "budget"]
_NUMBER = r"(\d{1,9}(?:[.,]\d{1,4})?)"
_SHARE = re.compile(rf"at most {_NUMBER} ?(?:%|percent)(?: of (?:the )?(?:requests|questions))?(?: \w+)? to the cloud")
_QUALITY = re.compile(rf"at least {_NUMBER} ?(?:%|percent) of (?:the )?cloud(?:'s)? quality")
_BUDGET = re.compile(rf"at most \$ ?{_NUMBER} (?:a|per) month")
_EXAMPLES: Final = '"at most 15 % to the cloud", "at least 95 % of cloud quality", "at most $200 a month"'
THRESHOLDS: Final = tuple(step / 100 for step in range(101))


@dataclass(frozen=True, slots=True)
class Goal:
    """One wish."""

    kind: Kind
    value: float
    """A share in 0..1, or dollars a month."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request of the traffic that is planned for; tiers in order, the last one is the cloud."""

    chances: tuple[float, ...]
    outcomes: tuple[float, ...]
    """What was observed; the chances themselves where nothing was."""


@dataclass(frozen=True, slots=True)
class Point:
    """What one threshold gives."""

    threshold: float
    cloud_share: float
    quality: float
    """Share of good answers."""
    of_cloud: float
    """Quality against sending everything to the cloud."""
    dollars: float
    """A month."""


def parse_goal(words: str) -> Goal:
    """Read a goal.

    Raises:
        ConfigError: not understood, or a share beyond 100 %.
    """
    text = " ".join(words.lower().split())
    shapes: tuple[tuple[Kind, re.Pattern[str]], ...] = (("share", _SHARE), ("quality", _QUALITY), ("budget", _BUDGET))
    for kind, shape in shapes:
        if found := shape.fullmatch(text):
            value = float(found.group(1).replace(",", "."))
            if kind == "budget":
                return Goal(kind, value)
            if value > 100:  # noqa: PLR2004  (percent)
                raise ConfigError(f"a share of {value:g} %, at most 100 %", param="goal")
            return Goal(kind, value / 100)
    raise ConfigError(f"{words[:100]!r} is not understood; say it like {_EXAMPLES}", param="goal")


def choose(chances: Sequence[float], threshold: float) -> int:
    """Which tier answers: the cheapest that reaches the threshold, else the most probable, cheapest first."""
    for index, chance in enumerate(chances):
        if chance >= threshold:
            return index
    return max(range(len(chances)), key=lambda index: (chances[index], -index))


def curve(questions: Sequence[Question], *, requests: float, dollars_each: float) -> list[Point]:
    """Walk the thresholds.

    Args:
        questions: a sample of the traffic, at least one.
        requests: a month.
        dollars_each: what one request to the cloud costs.
    """
    most = sum(question.outcomes[-1] for question in questions) / len(questions)
    points = []
    for threshold in THRESHOLDS:
        chosen = [choose(question.chances, threshold) for question in questions]
        last = len(questions[0].chances) - 1
        share = sum(index == last for index in chosen) / len(questions)
        quality = sum(q.outcomes[index] for q, index in zip(questions, chosen, strict=True)) / len(questions)
        points.append(Point(threshold, share, quality, quality / max(most, 1e-9), share * requests * dollars_each))
    return points


def pick(points: Sequence[Point], goal: Goal) -> Point:
    """Choose the threshold for a goal: within a limit the best quality, for a quality the smallest share.

    Raises:
        ConfigError: no threshold reaches it; the message says what can be had.
    """
    match goal.kind:
        case "share":
            allowed = [point for point in points if point.cloud_share <= goal.value + 1e-9]
        case "budget":
            allowed = [point for point in points if point.dollars <= goal.value + 1e-9]
        case "quality":
            reaching = [point for point in points if point.of_cloud >= goal.value - 1e-9]
            if not reaching:
                best = max(point.of_cloud for point in points)
                raise ConfigError(f"no threshold reaches {goal.value:.1%}; the best is {best:.1%}", param="goal")
            return min(reaching, key=lambda point: (point.cloud_share, point.threshold))
    if not allowed:
        least = min(points, key=lambda point: point.cloud_share)
        words = f"the least that can be had is {least.cloud_share:.1%} or ${least.dollars:,.0f} a month"
        raise ConfigError(f"no threshold stays within the goal; {words}", param="goal")
    return max(allowed, key=lambda point: (point.quality, -point.cloud_share, -point.threshold))
