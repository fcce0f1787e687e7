"""`python -m stream_judge.calibrate FILE`: fit the calibration to an institution's own outcomes.

FILE is JSONL, one outcome a line: `{"prompt": "...", "tier": "local", "good": true}`; lines of the gateway's feedback
that hold no prompt are counted and left out. Near half of the outcomes are fitted and half tell whether it helped,
twice with the halves changed; then the calibration is fitted to all of them.
"""

import argparse
import json
import sys
import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stream_core.errors import ConfigError
from stream_judge.__main__ import read_weights
from stream_judge.calibration import fit_curve, render_calibration
from stream_judge.classify import LearnedBackend
from stream_judge.context import Turn, select
from stream_judge.curves import probability
from stream_judge.features import Shape
from stream_judge.query import Query

FEWEST: Final = 20
"""Outcomes of a tier below which it is left as it is."""
MOST_LINES: Final = 1_000_000
_STANDARD = ("local", "hpc", "cloud")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One observed answer."""

    logit: float
    good: float
    half: int


def read_outcomes(path: Path, backend: LearnedBackend) -> tuple[dict[str, list[Outcome]], int]:
    """Read the file and ask the judge about every prompt.

    Returns:
        Outcomes by tier, and how many lines held no prompt.

    Raises:
        ConfigError: not readable, or a line is not an outcome; the message names it.
    """
    found: dict[str, list[Outcome]] = defaultdict(list)
    without = 0
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}", param="FILE") from error
    if len(lines) > MOST_LINES:
        raise ConfigError(f"{path}: {len(lines):,} lines, at most {MOST_LINES:,}", param="FILE")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            tier, good = record["tier"], record["good"]
        except (ValueError, KeyError, TypeError) as error:
            words = f"{path}:{number}: an object with prompt, tier and good is wanted: {error}"
            raise ConfigError(words, param="FILE") from error
        if not isinstance(tier, str) or not tier or not isinstance(good, bool | int) or good not in {0, 1}:
            raise ConfigError(f"{path}:{number}: tier must be a name and good true or false", param="FILE")
        prompt = record.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            without += 1
            continue
        tiers = _STANDARD if tier in _STANDARD else (*_STANDARD[:1], tier, *_STANDARD[1:])
        query = Query((Turn("user", prompt),), tiers, Shape())
        logits = backend.score_now(select(query.turns), query).score.logits
        half = zlib.crc32(prompt.encode("utf-8", "surrogatepass")) & 1
        found[tier].append(Outcome(logits[tiers.index(tier)], float(good), half))
    return found, without


def held_out(outcomes: list[Outcome]) -> list[tuple[float, float]]:
    """Calibrated probability and outcome of each, by a curve fitted to the other half."""
    pairs = []
    for half in (0, 1):
        known = [outcome for outcome in outcomes if outcome.half != half]
        ease, slope = fit_curve([one.logit for one in known], [one.good for one in known])
        pairs += [(probability(ease + slope * one.logit), one.good) for one in outcomes if one.half == half]
    return pairs


def brier(pairs: list[tuple[float, float]]) -> float:
    """Mean squared error."""
    return sum((chance - good) ** 2 for chance, good in pairs) / len(pairs)


def run(arguments: argparse.Namespace) -> None:
    """Fit, report, write.

    Raises:
        ConfigError: the file is wrong, or holds too little.
    """
    backend = LearnedBackend(read_weights(arguments.weights))
    outcomes, without = read_outcomes(arguments.file, backend)
    if without:
        print(f"{without:,} lines without a prompt are left out")
    tiers, before, after = {}, {}, {}
    for tier, found in sorted(outcomes.items()):
        if len(found) < FEWEST:
            print(f"{tier}: {len(found)} outcomes, at least {FEWEST}: left as it is")
            continue
        before[tier] = [(probability(one.logit), one.good) for one in found]
        after[tier] = held_out(found)
        tiers[tier] = fit_curve([one.logit for one in found], [one.good for one in found])
        share = sum(one.good for one in found) / len(found)
        print(
            f"{tier}: {len(found):,} outcomes, {share:.0%} good; Brier score {brier(before[tier]):.4f} before, "
            f"{brier(after[tier]):.4f} after (held-out halves); ease {tiers[tier][0]:+.2f}, slope {tiers[tier][1]:.2f}"
        )
    if not tiers:
        raise ConfigError(f"no tier has {FEWEST} outcomes: nothing is written", param="FILE")
    text = render_calibration(tiers, Counter({tier: len(outcomes[tier]) for tier in tiers}))
    if arguments.picture:
        from stream_judge.pictures import draw_reliability  # noqa: PLC0415

        draw_reliability(arguments.picture, before, after)
        print(f"{arguments.picture}: reliability before and after")
    try:
        arguments.output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{arguments.output}: {error.strerror}", param="--output") from error
    print(f"{arguments.output}: set judge.calibration_file to it and start the judge again")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="stream judge calibrate", description="Fit the judge to your own outcomes.")
    parser.add_argument("file", type=Path, metavar="FILE", help="JSONL: prompt, tier, good")
    parser.add_argument("--output", type=Path, default=Path("calibration.json"))
    parser.add_argument("--picture", type=Path, help="reliability plot, PNG")
    parser.add_argument("--weights", type=Path, help="weights file; the committed one without")
    try:
        run(parser.parse_args())
    except ConfigError as error:
        sys.exit(f"stream: {error.param}: {error.message}")


if __name__ == "__main__":
    main()
