"""Fit the judge's weights to published outcomes, and say how good they are.

    python services/judge/fit.py DATA [--seed 0] [--output PATH]

`DATA` is the folder with `queries_dev.jsonl` and `queries_train_extra.jsonl` (its README tells fields and licences).
The weights go to `src/stream_judge/weights.json` with their figures; a table and, as the last line, the figures as JSON
go to standard output. Same data and seed, same bytes.

The model: one difficulty per question, d = sum(weight * feature), explains all its outcomes together: the mean of the
panel of small models (less noisy than one model's 0 or 1) and the reference model of each tier,
P(good) = sigmoid(ease - d), by Newton's method with a Gaussian prior (ridge) on the weights. Then each tier's curve,
P(good) = sigmoid(ease - slope * d), is fitted to the difficulties of questions that the weights had not seen
(cross-validation), so that it is calibrated. Pure Python: 6,000 rows and two dozen features need no library.

Half of the training rows, drawn by the seed, lose their options and answer format: users don't write that way.
"""
# ruff: noqa: INP001  (a script beside the package, not a part of it)

import argparse
import json
import random
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import exp, sqrt
from operator import mul
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from stream_judge.context import Turn, select
from stream_judge.features import FEATURES, FEATURES_VERSION, Feature, Kind, Shape, extract, without_exam_format
from stream_judge.score import SCALE_LIMIT
from stream_judge.weights import CURVES

ASSUMED = {
    "proof": 1.8,
    "derivation": 1.4,
    "reasoning": 0.3,
    "several_parts": 0.8,
    "design": 1.0,
    "courtesy": -2.5,
    "everyday_task": -1.2,
    "brief": -2.2,
    "conversational": -0.25,
    "script": 0.4,
    "mixed_scripts": 0.2,
    "tools": 0.3,
    "structured_output": 0.2,
    "modalities": 0.4,
    "long_answer": 0.5,
    "small_limit": -0.2,
    "depth": 0.2,
}
"""Set by hand, in logits of difficulty. No outcome here is of small talk, of a proof or of a tool call."""

REFERENCES = {
    "mmlu-pro": ("phi-3-mini-4k-instruct-3.8b", "llama-3.1-70b-instruct", "gemini-1.5-pro-002"),
    "gsm8k": ("phi-3.5-mini-instruct-3.8b", "llama-3.1-70b-instruct", "claude-3-5-sonnet-20241022"),
    "cruxeval-o": ("qwen2.5-3b-instruct", "qwen2.5-72b-instruct", "claude-3-5-sonnet-20241022"),
    "math-l5": ("qwen2.5-3b-instruct", "qwen2.5-72b-instruct", "claude-3-5-sonnet-20241022"),
}
"""Per source the reference model of local, hpc and cloud, as the data's README lists them."""
SOURCES_NOTE = (
    "Fitted to per-model outcomes of public questions: MMLU-Pro (questions MIT, outcomes Apache-2.0), GSM8K, MATH "
    "and CRUXEval (MIT) with outcomes of WildEval/ZeroEval (Apache-2.0). No text of theirs is in this file. The "
    "figures are of exam questions, models of 2024, one greedy run each. Features marked assumed were not fitted."
)

FITTED = tuple(feature for feature in FEATURES if feature.kind is not Kind.ASSUMED)
LENGTH_ONLY = tuple(feature for feature in FITTED if feature.name == "length")
RIDGE = 30.0
NEWTON_STEPS = 6
FOLDS = 5
REPEATS = 3
SAME_OPENING = 110
_LOGIT_LIMIT = 30.0
_CRUX_FRAME = re.compile(r"^You are given a Python function.*?\n\n|\[/?PYTHON\]\n?", re.DOTALL)

Values = dict[str, float]
Matrix = list[list[float]]


@dataclass(frozen=True, slots=True)
class Row:
    """A question with its outcomes."""

    plain: Values
    stripped: Values
    outcomes: tuple[float, ...]
    """The panel's mean, then local, hpc and cloud."""
    suffices: float
    dev: bool
    domain: str
    source: str
    group: str
    """Questions with the same opening share a fold."""


@dataclass(frozen=True, slots=True)
class Model:
    """Weights of some features, with how measures are scaled."""

    features: tuple[Feature, ...]
    centres: Values
    scales: Values
    weights: tuple[float, ...]

    def inputs(self, values: Values) -> list[float]:
        """The features as the weights want them."""
        return [
            min(SCALE_LIMIT, max(-SCALE_LIMIT, (values[f.name] - self.centres[f.name]) / self.scales[f.name]))
            for f in self.features
        ]

    def difficulty(self, values: Values) -> float:
        """Of one question, in logits."""
        return float(sum(map(mul, self.weights, self.inputs(values))))


def read_rows(folder: Path) -> list[Row]:
    """Read both files of the folder."""
    rows = []
    for name in ("queries_dev", "queries_train_extra"):
        with (folder / f"{name}.jsonl").open(encoding="utf-8") as file:
            rows += [_row(json.loads(line), dev=name == "queries_dev") for line in file]
    return rows


def _row(record: dict[str, Any], *, dev: bool) -> Row:
    prompt: str = record["prompt"]
    outcomes = [record["small_panel_mean"]] + [record["outcomes"][name] for name in REFERENCES[record["source"]]]
    return Row(
        plain=_values(prompt),
        stripped=_values(_CRUX_FRAME.sub("", without_exam_format(prompt)[0])),
        outcomes=tuple(map(float, outcomes)),
        suffices=float(record["local_suffices"]),
        dev=dev,
        domain=record["domain"],
        source=record["source"],
        group=re.sub(r"\W+", " ", prompt.lower())[:SAME_OPENING],
    )


def _values(text: str) -> Values:
    return dict(extract(select([Turn("user", text)]), Shape()))


def train(rows: Sequence[Row], features: tuple[Feature, ...], draw: random.Random) -> Model:
    """Fit weights to rows, half of them stripped."""
    chosen = [row.stripped if draw.random() < 1 / 2 else row.plain for row in rows]
    centres, scales = {}, {}
    for feature in features:
        column = [values[feature.name] for values in chosen]
        measure = feature.kind is Kind.MEASURE
        centres[feature.name] = fmean(column) if measure else 0.0
        scales[feature.name] = stdev(column) if measure else 1.0
    blank = Model(features, centres, scales, (0.0,) * len(features))
    columns = [list(column) for column in zip(*map(blank.inputs, chosen), strict=True)]
    weights, _ = newton(columns, [row.outcomes for row in rows], ridge=RIDGE)
    return Model(features, centres, scales, tuple(weights))


def newton(columns: Matrix, outcomes: Sequence[Sequence[float]], *, ridge: float) -> tuple[list[float], list[float]]:
    """Maximise the posterior of P(outcome t of row i) = sigmoid(ease[t] - sum(weight * column)[i]).

    Returns:
        Weights per column, ease per outcome.
    """
    size, kinds = len(columns), len(outcomes[0])
    weights, ease = [0.0] * size, [0.0] * kinds
    for _ in range(NEWTON_STEPS):
        difficulty = [sum(map(mul, weights, row)) for row in zip(*columns, strict=True)]
        hessian = [[0.0] * (size + kinds) for _ in range(size + kinds)]
        gradient = [0.0] * (size + kinds)
        slack, curvature = [0.0] * len(outcomes), [0.0] * len(outcomes)
        for t in range(kinds):
            expected = [sigmoid(ease[t] - d) for d in difficulty]
            errors = [row[t] - p for row, p in zip(outcomes, expected, strict=True)]
            bend = [p * (1 - p) for p in expected]
            slack = [a - b for a, b in zip(slack, errors, strict=True)]
            curvature = [a + b for a, b in zip(curvature, bend, strict=True)]
            gradient[size + t], hessian[size + t][size + t] = sum(errors), sum(bend)
            for i, column in enumerate(columns):
                hessian[i][size + t] = hessian[size + t][i] = -sum(map(mul, column, bend))
        for i, column in enumerate(columns):
            gradient[i] = sum(map(mul, column, slack)) - ridge * weights[i]
            weighted = list(map(mul, column, curvature))
            for j in range(i, size):
                hessian[i][j] = hessian[j][i] = sum(map(mul, weighted, columns[j])) + (ridge if i == j else 0.0)
        step = solve(hessian, gradient)
        weights = [a + b for a, b in zip(weights, step[:size], strict=True)]
        ease = [a + b for a, b in zip(ease, step[size:], strict=True)]
    return weights, ease


def solve(matrix: Matrix, right: Sequence[float]) -> list[float]:
    """Solve a symmetric positive definite system by elimination."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    size = len(rows)
    for i in range(size):
        for k in range(i + 1, size):
            factor = rows[k][i] / rows[i][i]
            rows[k] = [a - factor * b for a, b in zip(rows[k], rows[i], strict=True)]
    solution = [0.0] * size
    for i in reversed(range(size)):
        solution[i] = (rows[i][size] - sum(map(mul, rows[i][i + 1 : size], solution[i + 1 :]))) / rows[i][i]
    return solution


def sigmoid(logit: float) -> float:
    """The logistic function, safe at any logit."""
    return 1.0 / (1.0 + exp(-min(_LOGIT_LIMIT, max(-_LOGIT_LIMIT, logit))))


def auc(scores: Sequence[float], labels: Sequence[float]) -> float:
    """Area under the ROC curve: how often a good one stands above a bad one; ties count half."""
    order = sorted(range(len(scores)), key=scores.__getitem__)
    ranks = [0.0] * len(scores)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and scores[order[end + 1]] == scores[order[start]]:
            end += 1
        for k in range(start, end + 1):
            ranks[order[k]] = (start + end) / 2 + 1
        start = end + 1
    good = sum(labels)
    return float((sum(map(mul, ranks, labels)) - good * (good + 1) / 2) / (good * (len(labels) - good)))


def assumed(values: Values) -> float:
    """What the assumed weights add to the difficulty."""
    return sum(weight * values[name] for name, weight in ASSUMED.items())


Scorer = Callable[[Values], float]
"""Values in, difficulty out."""


def scorers(rows: Sequence[Row], draw: random.Random) -> dict[str, Scorer]:
    """Train everything that is compared."""
    model, short = train(rows, FITTED, draw), train(rows, LENGTH_ONLY, draw)
    return {
        "features": lambda values: model.difficulty(values) + assumed(values),
        "features, fitted part": model.difficulty,
        "length": short.difficulty,
        "random": lambda _: draw.random(),
    }


def folds(rows: Sequence[Row], draw: random.Random) -> Iterable[tuple[list[Row], list[Row]]]:
    """Training and test rows: each question is tested once, questions with the same opening together."""
    groups = sorted({row.group for row in rows})
    draw.shuffle(groups)
    fold = {group: index % FOLDS for index, group in enumerate(groups)}
    for k in range(FOLDS):
        yield [row for row in rows if fold[row.group] != k], [row for row in rows if row.dev and fold[row.group] == k]


TARGETS: dict[str, Callable[[Row], float]] = {
    "auc_local_correct": lambda row: row.outcomes[1],
    "auc_hpc_correct": lambda row: row.outcomes[2],
    "auc_cloud_correct": lambda row: row.outcomes[3],
    "auc_local_suffices": lambda row: row.suffices,
}
FORMS: dict[str, Callable[[Row], Values]] = {"plain": lambda row: row.plain, "stripped": lambda row: row.stripped}

Figures = dict[str, dict[str, dict[str, list[float]]]]
Unseen = list[tuple[float, Row]]


def cross_validate(rows: Sequence[Row], seed: int) -> tuple[Figures, Unseen]:
    """Score every dev question by weights that have not seen it, `REPEATS` times.

    Returns:
        scorer -> form -> target -> AUC of each fold; and (difficulty, row) of each question in both forms.
    """
    found: Figures = {}
    unseen: Unseen = []
    for repeat in range(REPEATS):
        draw = random.Random(f"{seed}-{repeat}")  # noqa: S311  (reproducible, nothing secret)
        for training, test in folds(rows, draw):
            for name, scorer in scorers(training, draw).items():
                for form, values in FORMS.items():
                    difficulties = [scorer(values(row)) for row in test]
                    for target, label in TARGETS.items():
                        area = auc([-d for d in difficulties], list(map(label, test)))
                        found.setdefault(name, {}).setdefault(form, {}).setdefault(target, []).append(area)
                    if name == "features, fitted part":
                        unseen += zip(difficulties, test, strict=True)
    return found, unseen


def leave_out(rows: Sequence[Row], key: Callable[[Row], str], seed: int) -> dict[str, dict[str, float]]:
    """AUC of local_correct on each domain or source by weights that have seen nothing of it, plain and stripped."""
    result = {}
    for value in sorted({key(row) for row in rows}):
        draw = random.Random(f"{seed}-{value}")  # noqa: S311
        scorer = scorers([row for row in rows if key(row) != value], draw)["features"]
        test = [row for row in rows if key(row) == value and row.dev]
        labels = [row.outcomes[1] for row in test]
        if len(set(labels)) < len((0, 1)):
            continue  # no area without both kinds
        result[value] = {form: round(auc([-scorer(of(row)) for row in test], labels), 3) for form, of in FORMS.items()}
    return result


def calibrate(unseen: Unseen) -> tuple[dict[str, float], dict[str, float], float]:
    """Fit each tier's curve to difficulties of unseen questions.

    Returns:
        Ease and slope per tier, and the standard deviation of the difficulty that the features do not see: what
        makes the outcomes of local and hpc on one question agree more than the estimates explain.
    """
    difficulties = [d for d, _ in unseen]
    ease, slope = {}, {}
    for index, tier in enumerate(CURVES, start=1):
        weights, intercepts = newton([difficulties], [[row.outcomes[index]] for _, row in unseen], ridge=0.0)
        ease[tier], slope[tier] = intercepts[0], weights[0]
    agreement = variance = 0.0
    for d, row in unseen:
        local, hpc = (sigmoid(ease[tier] - slope[tier] * d) for tier in ("local", "hpc"))
        agreement += (row.outcomes[1] - local) * (row.outcomes[2] - hpc)
        variance += slope["local"] * local * (1 - local) * slope["hpc"] * hpc * (1 - hpc)
    return ease, slope, sqrt(agreement / variance)


def brier(unseen: Unseen, ease: float, slope: float, index: int) -> float:
    """Mean squared error of a tier's probabilities."""
    return fmean((row.outcomes[index] - sigmoid(ease - slope * d)) ** 2 for d, row in unseen)


def weight_rows(model: Model, rows: Sequence[Row]) -> dict[str, dict[str, object]]:
    """One line per feature for the file."""
    result: dict[str, dict[str, object]] = {}
    for feature, weight in zip(model.features, model.weights, strict=True):
        entry: dict[str, object] = {"weight": round(weight, 4)}
        if feature.kind is Kind.MEASURE:
            entry |= {"centre": round(model.centres[feature.name], 4), "scale": round(model.scales[feature.name], 4)}
        result[feature.name] = entry | {"rows": sum(1 for row in rows if row.plain[feature.name] != 0)}
    for name, weight in ASSUMED.items():
        seen = sum(1 for row in rows if row.plain[name] != 0)
        result[name] = {"weight": weight, "assumed": True, "rows": seen}
    return result


def main() -> None:
    """Fit, measure, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder with queries_dev.jsonl and queries_train_extra.jsonl")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "src/stream_judge/weights.json")
    arguments = parser.parse_args()
    rows = read_rows(arguments.data)
    found, unseen = cross_validate(rows, arguments.seed)
    ease, slope, spread = calibrate(unseen)
    model = train(rows, FITTED, random.Random(arguments.seed))  # noqa: S311
    figures: dict[str, object] = {
        name: {
            form: {target: [round(fmean(areas), 3), round(stdev(areas), 3)] for target, areas in targets.items()}
            for form, targets in forms.items()
        }
        for name, forms in found.items()
    }
    figures["brier"] = {t: round(brier(unseen, ease[t], slope[t], i), 4) for i, t in enumerate(CURVES, start=1)}
    figures["leave_domain_out"] = leave_out(rows, lambda row: row.domain, arguments.seed)
    figures["leave_source_out"] = leave_out(rows, lambda row: row.source, arguments.seed)
    document = {
        "about": SOURCES_NOTE,
        "features_version": FEATURES_VERSION,
        "seed": arguments.seed,
        "rows": len(rows),
        "figures_are": f"mean and standard deviation over {REPEATS} x {FOLDS} folds of the dev rows",
        "figures": figures,
        "ease": {tier: round(value, 4) for tier, value in ease.items()},
        "slope": {tier: round(value, 4) for tier, value in slope.items()},
        "spread": round(spread, 4),
        "features": weight_rows(model, rows),
    }
    arguments.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for name, forms in found.items():
        for form, targets in forms.items():
            line = "  ".join(f"{target[4:]} {fmean(a):.3f}±{stdev(a):.3f}" for target, a in targets.items())
            sys.stdout.write(f"{name:22} {form:9} {line}\n")
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
