"""The judge beside simple baselines, on what models really answered; a table, and JSON as the last line.

    make bench-judge [DATA=folder]

The folder holds `queries_*.jsonl`, `stream_labels_*.jsonl` and `mtbench_*.jsonl`. The committed weights are scored as
they are and nothing is fitted to the folder; baselines learn from the dev data (`--train`). When the folder's
questions are all of the dev data, every figure is cross-validated, near-duplicates in one fold; a folder with some of
them is scored like any other one, and told to be.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from judge_baselines import injections, simple
from judge_baselines.minilm import NotInstalled, embeddings, times
from judge_training.figures import FIGURES, STRIPPED, Floats, Guess, Truth, accuracy, auc, macro_f1, paired
from judge_training.fit import train
from judge_training.rows import Row, View, folds_of, read_rows, together
from judge_training.scoring import FOLDS, fitted_without, models_without, truth_of, unseen

import stream_judge
from stream_judge.classify import LearnedBackend
from stream_judge.context import Turn, select
from stream_judge.features import Shape
from stream_judge.learned import Learned
from stream_judge.query import Query
from stream_judge.score import score
from stream_judge.weights import Weights, parse

REFERENCE = "minilm_lr"
DEV, EXTRA = "queries_dev.jsonl", "queries_train_extra.jsonl"
LABELS, OPENED = "stream_labels_*.jsonl", "mtbench_*.jsonl"
TIERS = ("local", "hpc", "cloud")
LEVELS = ("LOW", "MEDIUM", "HIGH")
DRAWS = 1000
_TIMED = 3

Judge = Callable[[Sequence[Row], Sequence[View]], Guess]
"""Learns from rows, guesses for views."""


def learned_guess(weights: Weights, views: Sequence[View]) -> Guess:
    """What the service answers, by its own scorer."""
    scores = [score(view.values, view.grams, TIERS, weights) for view in views]
    chances = np.array([one.probabilities for one in scores])
    return Guess(
        *chances.T,
        np.array([one.suffices for one in scores]),
        np.array([one.level.value - 1 for one in scores]),
    )


def judges(weights: Weights, heads: Sequence[str] | None = None) -> dict[str, Judge]:
    """Everything that is compared; each learns from the rows that it is given."""
    vectors: dict[str, Floats] = {}

    def embedded(views: Sequence[View]) -> Floats:
        missing = [view.text for view in views if view.text not in vectors]
        if missing:
            vectors.update(zip(missing, embeddings(missing), strict=True))
        return np.array([vectors[view.text] for view in views])

    def ours(rows: Sequence[Row], views: Sequence[View]) -> Guess:
        model: Learned = train(rows, heads) if heads else train(rows)
        return learned_guess(replace(weights, learned=model), views)

    def of(fit: simple.Fit, features: Callable[[Sequence[View]], Floats]) -> Judge:
        return lambda rows, views: simple.guess(
            fit, features([row.plain for row in rows]), simple.labels_of(rows), features(views)
        )

    return {
        "learned": ours,
        "minilm_lr": of(simple.logistic, embedded),
        "knn": of(simple.nearest, embedded),
        "length": of(simple.logistic, lambda views: simple.lengths([view.text for view in views])),
        "random": of(simple.by_chance, lambda views: simple.lengths([view.text for view in views])),
    }


def crossed(judge: Judge, rows: Sequence[Row], folds: Sequence[int]) -> tuple[Guess, Guess]:
    """Guesses for the rows that are not extra, plain and stripped, by judges that have not seen their fold."""
    place = np.array(folds)
    asked = [index for index, row in enumerate(rows) if not row.extra]
    parts: list[tuple[list[int], Guess]] = []
    for fold in range(FOLDS):
        known = [row for row, at in zip(rows, place, strict=True) if at != fold]
        test = [index for index in asked if place[index] == fold]
        both = judge(known, [rows[i].plain for i in test] + [rows[i].stripped for i in test])
        parts.append((test, both))
    order = np.argsort([index for test, _ in parts for index in test], kind="stable")
    halves = []
    for half in (0, 1):
        pieces = [both.at(np.arange(len(test)) + half * len(test)) for test, both in parts]
        joined = Guess(*(np.concatenate([getattr(p, n) for p in pieces]) for n in Guess.__dataclass_fields__))
        halves.append(joined.at(order))
    return halves[0], halves[1]


def crossed_ours(weights: Weights, rows: Sequence[Row], folds: Sequence[int]) -> tuple[Guess, Guess]:
    """As `crossed`, of the judge itself: curves and levels come from the other folds, too."""
    dev = [row for row in rows if not row.extra]
    place = [fold for row, fold in zip(rows, folds, strict=True) if not row.extra]
    models = models_without(rows, folds)
    numbers = unseen(dev, place, models).plain
    fitted = fitted_without(numbers, truth_of(dev), place)
    without = {
        fold: replace(weights, learned=models[fold], curves=curves, levels=levels)
        for fold, (curves, levels) in fitted.items()
    }

    def guess(form: str) -> Guess:
        scored = [learned_guess(without[fold], [getattr(row, form)]) for row, fold in zip(dev, place, strict=True)]
        return Guess(*(np.concatenate([getattr(one, name) for one in scored]) for name in Guess.__dataclass_fields__))

    return guess("plain"), guess("stripped")


def left_out(judge: Judge, rows: Sequence[Row], key: Callable[[Row], str]) -> dict[str, float]:
    """AUC of "local is right" on the dev rows of each domain or source, by a judge that has seen nothing of it."""
    found = {}
    for value in sorted({key(row) for row in rows}):
        test = [row for row in rows if key(row) == value and not row.extra]
        labels = np.array([row.outcomes[0] for row in test])
        if 0 < labels.sum() < len(labels):
            known = [row for row in rows if key(row) != value]
            found[value] = round(auc(labels, judge(known, [row.plain for row in test]).local), 3)
    return found


def timed(weights: Weights, rows: Sequence[Row]) -> tuple[float, float]:
    """p50 and p99 in ms of everything that the service computes for one question."""
    backend = LearnedBackend(weights)
    took = []
    for _ in range(_TIMED):
        for row in rows:
            began = time.perf_counter()
            query = Query((Turn("user", row.plain.text),), TIERS, Shape())
            backend.score_now(select(query.turns), query)
            took.append(1e3 * (time.perf_counter() - began))
    return float(np.percentile(took, 50)), float(np.percentile(took, 99))


def records(folder: Path, pattern: str) -> list[dict[str, Any]]:
    """All lines of the files of a pattern."""
    return [
        json.loads(line)
        for path in sorted(folder.glob(pattern))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]


def of_labels(judged: Callable[[Sequence[View]], Guess], folder: Path) -> dict[str, dict[str, float]]:
    """Agreement with STREAM's own labels, and hpc against cloud on open questions."""
    labelled, opened = records(folder, LABELS), records(folder, OPENED)
    level = judged([View(record["prompt"]) for record in labelled]).level
    wanted = np.array([LEVELS.index(record["stream_label"]) for record in labelled])
    guess = judged([View(record["prompt"]) for record in opened])
    wanted_cloud = np.array([float(record["tier_needed_hpc_vs_cloud"] == "cloud") for record in opened])
    return {
        "stream_labels": {"acc": round(accuracy(level, wanted), 4), "macro_f1": round(macro_f1(level, wanted), 4)},
        "mtbench": {"auc_cloud_needed": round(auc(wanted_cloud, guess.cloud - guess.hpc), 4)},
    }


def files_of(arguments: argparse.Namespace) -> list[Path]:
    """The files of questions to be scored; ends the program where any file is missing."""
    paths = sorted(path for path in arguments.data.glob("queries_*.jsonl") if "train_extra" not in path.name)
    missing = [] if paths else [f"{arguments.data}/queries_*.jsonl"]
    missing += [f"{arguments.data}/{pattern}" for pattern in (LABELS, OPENED) if not any(arguments.data.glob(pattern))]
    missing += [str(arguments.train / name) for name in (DEV, EXTRA) if not (arguments.train / name).is_file()]
    if missing:
        sys.exit(f"bench-judge: missing {', '.join(missing)}")
    return paths


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All judges, all figures."""
    paths = files_of(arguments)
    weights = parse(Path(stream_judge.__file__).with_name("weights.json").read_text(encoding="utf-8"), source="weights")
    dev = read_rows(arguments.train / DEV) + read_rows(arguments.train / EXTRA, extra=True)
    asked = [row for path in paths for row in read_rows(path)]
    is_dev = [row.id for row in asked] == [row.id for row in dev if not row.extra]
    seen = len({row.id for row in dev} & {row.id for row in asked})
    if seen and not is_dev:
        print(f"{seen} of {len(asked)} questions were trained on: these figures flatter `learned`", file=sys.stderr)
    truth = truth_of(asked)
    folds = folds_of(dev, FOLDS) if is_dev else []
    known = dev if is_dev else _apart(dev, asked)
    guesses: dict[str, tuple[Guess, Guess]] = {}
    result: dict[str, Any] = {}
    quick = judges(weights, ("local",))
    for name, judge in judges(weights).items():
        if arguments.judges and name not in arguments.judges.split(","):
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            fixed = _fixed(name, judge, known, weights)
            if is_dev:
                ours = name == "learned"
                guesses[name] = crossed_ours(weights, known, folds) if ours else crossed(judge, known, folds)
            else:
                plain, bare = (fixed([getattr(row, form) for row in asked]) for form in ("plain", "stripped"))
                guesses[name] = plain, bare
            result[name] = _figures(*guesses[name], truth) | of_labels(fixed, arguments.data)
            for kind in ("domain", "source"):
                found = left_out(quick[name], dev, lambda row, kind=kind: getattr(row, kind))
                result[name] |= {f"leave_{kind}_out_auc": round(float(np.mean(list(found.values()))), 4)}
                result[name] |= {f"leave_{kind}_out": found}
        except NotInstalled as error:
            print(f"{name}: not installed: {error}", file=sys.stderr)
    _add_times(result, weights, asked)
    result["learned"]["injections"] = injections.measure(weights)
    _add_intervals(result, guesses, truth)
    return result | {
        "about": {
            "cross_validated": is_dev,
            "rows": len(asked),
            "trained_on": 0 if is_dev else seen,
            "version": weights.version,
            "draws": DRAWS,
        }
    }


def _apart(known: Sequence[Row], asked: Sequence[Row]) -> list[Row]:
    """Leave out of what baselines learn from whatever is nearly a question that they are asked."""
    groups = together([row.stripped.text for row in [*asked, *known]])
    seen = set(groups[: len(asked)])
    return [row for row, group in zip(known, groups[len(asked) :], strict=True) if group not in seen]


def _fixed(name: str, judge: Judge, known: Sequence[Row], weights: Weights) -> Callable[[Sequence[View]], Guess]:
    """The judge as it would be used: ours with the committed weights, a baseline that knows all dev data."""
    if name == "learned":
        return lambda views: learned_guess(weights, views)
    return lambda views: judge(known, views)


def _figures(plain: Guess, bare: Guess, truth: Truth) -> dict[str, Any]:
    found: dict[str, Any] = {name: round(figure(plain, truth), 4) for name, figure in FIGURES.items()}
    return found | {"stripped": {name: round(FIGURES[name](bare, truth), 4) for name in STRIPPED}}


def _add_intervals(result: dict[str, Any], guesses: Mapping[str, tuple[Guess, Guess]], truth: Truth) -> None:
    if REFERENCE in guesses:
        for name, (plain, bare) in guesses.items():
            if name != REFERENCE:
                result[name]["minus_minilm_lr_95"] = _intervals(plain, bare, guesses[REFERENCE], truth)


def _intervals(plain: Guess, bare: Guess, reference: tuple[Guess, Guess], truth: Truth) -> dict[str, Any]:
    found: dict[str, Any] = dict(paired(plain, reference[0], truth, list(FIGURES), draws=DRAWS, seed=0))
    return found | {"stripped": paired(bare, reference[1], truth, STRIPPED, draws=DRAWS, seed=0)}


def _add_times(result: dict[str, Any], weights: Weights, asked: Sequence[Row]) -> None:
    p50, p99 = timed(weights, asked)
    result["learned"] |= {"p50_ms": round(p50, 3), "p99_ms": round(p99, 3)}
    if REFERENCE in result:
        p50, p99 = times([row.plain.text for row in asked])
        for name in (REFERENCE, "knn"):
            result[name] |= {"p50_ms": p50, "p99_ms": p99}
    for name in ("length", "random"):
        if name in result:
            result[name] |= {"p50_ms": 0.0, "p99_ms": 0.0}


def show(result: Mapping[str, Any]) -> None:
    """Print the table."""
    backends = [name for name in result if name != "about"]
    print(f"{'':28}" + "".join(f"{name:>12}" for name in backends))
    rows = [*FIGURES, "leave_domain_out_auc", "leave_source_out_auc", "p50_ms", "p99_ms"]
    for name in rows:
        print(f"{name:28}" + "".join(f"{result[backend].get(name, float('nan')):>12.4f}" for backend in backends))
    for name in STRIPPED:
        print(f"stripped {name:19}" + "".join(f"{result[backend]['stripped'][name]:>12.4f}" for backend in backends))
    for group, name in (("stream_labels", "acc"), ("stream_labels", "macro_f1"), ("mtbench", "auc_cloud_needed")):
        print(f"{f'{group} {name}':28}" + "".join(f"{result[backend][group][name]:>12.4f}" for backend in backends))
    print(f"injections {result['learned']['injections']}")
    for name, interval in result["learned"].get("minus_minilm_lr_95", {}).items():
        if name != "stripped":
            middle, low, high = interval
            print(f"learned - minilm_lr {name:26} {middle:+.4f}  95 % [{low:+.4f}, {high:+.4f}]")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--train", type=Path, required=True, help="the dev data: baselines learn from it")
    parser.add_argument("--judges", default="", help="only these, with commas between; `learned` among them")
    result = measure(parser.parse_args())
    show(result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
