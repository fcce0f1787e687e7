"""`python -m stream_judge.plan GOAL`: from a goal in words to the policy's threshold, with the cost-quality curve.

Without `--traffic` the curve is that of the 1,200 questions that the weights were checked on, with what the reference
models really answered. With it (JSONL, one `{"prompt": "..."}` a line) it is the institution's own traffic, and the
quality is what the judge expects, for nobody observed it.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from stream_core.errors import ConfigError
from stream_judge.__main__ import COMMITTED, read_calibration, read_weights
from stream_judge.classify import LearnedBackend
from stream_judge.context import Turn, select
from stream_judge.features import Shape
from stream_judge.goals import Goal, Point, Question, curve, parse_goal, pick
from stream_judge.query import Query

_STANDARD = ("local", "hpc", "cloud")
_ROWS: Final = tuple(step / 10 for step in range(3, 10))


def reference_sample(weights: Path) -> list[Question]:
    """Read the sample that stands in the weights file."""
    rows = json.loads(weights.read_text(encoding="utf-8"))["sample"]
    return [
        Question(tuple(percent / 100 for percent in row[:3]), tuple(float(row[3] >> bit & 1) for bit in range(3)))
        for row in rows
    ]


def own_traffic(path: Path, backend: LearnedBackend, tiers: Sequence[str]) -> list[Question]:
    """Score prompts of the institution.

    Raises:
        ConfigError: not readable, or a line without a prompt; the message names it.
    """
    questions = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}", param="--traffic") from error
    for number, line in enumerate(lines, start=1):
        try:
            prompt = json.loads(line)["prompt"] if line.strip() else None
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path}:{number}: an object with prompt is wanted: {error}", param="--traffic"
            ) from error
        if isinstance(prompt, str):
            query = Query((Turn("user", prompt),), tuple(tiers), Shape())
            chances = backend.score_now(select(query.turns), query).score.probabilities
            questions.append(Question(chances, chances))
    if not questions:
        raise ConfigError(f"{path}: no prompts", param="--traffic")
    return questions


def report(points: Sequence[Point], picked: Point, goal: Goal) -> str:
    """Write the table, the picked point and what to put into `stream.yaml`."""
    lines = ["good_enough   to the cloud   good answers   of cloud quality   $ a month"]
    lines += [
        f"{p.threshold:11.2f}   {p.cloud_share:12.1%}   {p.quality:12.1%}   {p.of_cloud:16.1%}   {p.dollars:9,.0f}"
        + ("  <- picked" if p == picked else "")
        for p in points
        if p == picked or p.threshold in _ROWS
    ]
    lines += ["", "in stream.yaml:", "policy:", f"  good_enough: {picked.threshold:.2f}"]
    if goal.kind == "quality":
        lines += [
            "  # a quality can't be watched at run time; this share can",
            f"  cloud_share: {picked.cloud_share:.3f}",
        ]
    else:
        lines += [f"  cloud_share: {min(goal.value, 1.0) if goal.kind == 'share' else picked.cloud_share:.3f}"]
    if goal.kind == "budget":
        lines += [
            "  # counted from real tokens: each model of the tier cloud needs its price",
            f"  cloud_budget: {goal.value:.2f}",
        ]
    return "\n".join(lines)


def run(arguments: argparse.Namespace) -> None:
    """Read, pick, show.

    Raises:
        ConfigError: the goal is not understood or can't be reached, or a file is wrong.
    """
    goal = parse_goal(arguments.goal)
    if goal.kind == "budget" and not (arguments.requests and arguments.dollars_each):
        words = "a budget needs --requests (a month) and --dollars-each (one request to the cloud)"
        raise ConfigError(words, param="goal")
    if arguments.traffic:
        backend = LearnedBackend(read_weights(arguments.weights), calibration=read_calibration(arguments.calibration))
        questions = own_traffic(arguments.traffic, backend, arguments.tiers.split(","))
        print(f"{len(questions):,} prompts of your own; quality as the judge expects it")
    else:
        questions = reference_sample(arguments.weights or COMMITTED)
        print(f"{len(questions):,} public exam questions with models of 2024; your traffic differs: see --traffic")
    points = curve(questions, requests=arguments.requests, dollars_each=arguments.dollars_each)
    picked = pick(points, goal)
    print(report(points, picked, goal))
    if arguments.picture:
        from stream_judge.pictures import draw_curve  # noqa: PLC0415

        draw_curve(arguments.picture, points, picked)
        print(f"{arguments.picture}: the cost-quality curve")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="stream judge plan", description="Pick the threshold for a goal.")
    parser.add_argument("goal", help='"at most 15 %% to the cloud", "at least 95 %% of cloud quality", ...')
    parser.add_argument("--traffic", type=Path, help="JSONL of your own prompts")
    parser.add_argument("--tiers", default=",".join(_STANDARD), help="cheapest first, the cloud last")
    parser.add_argument("--calibration", type=Path, help="what `stream judge calibrate` wrote")
    parser.add_argument("--weights", type=Path, help="weights file; the committed one without")
    parser.add_argument("--requests", type=float, default=0.0, help="requests a month")
    parser.add_argument("--dollars-each", type=float, default=0.0, help="what one request to the cloud costs")
    parser.add_argument("--picture", type=Path, help="the curve, PNG")
    try:
        run(parser.parse_args())
    except ConfigError as error:
        sys.exit(f"stream: {error.param}: {error.message}")


if __name__ == "__main__":
    main()
