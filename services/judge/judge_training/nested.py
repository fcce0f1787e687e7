"""What the choosing is worth: nested cross-validation of the three numbers of `Choice`.

    PYTHONPATH=services/judge python -m judge_training.nested DATA [--fold N]

For each of the folds the numbers are chosen on the other four alone (two halves, each scored by models of the other
one), one number changed at a time; then a model with the chosen ones is fitted to those four and scored on the fold,
which had no part in anything. The figures are of the dev rows, weighted as they stand.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from judge_training.figures import auc
from judge_training.fit import CHOSEN, Choice, train
from judge_training.rows import Row, folds_of, read_rows
from judge_training.scoring import FOLDS, as_in_dev, raw, truth_of
from stream_judge.learned import HEADS

TRIED: Final = (
    CHOSEN,
    *(replace(CHOSEN, ridge=ridge) for ridge in (2.5, 10.0)),
    *(replace(CHOSEN, loudness=loudness) for loudness in (0.4, 1.0)),
    *(replace(CHOSEN, outcome=outcome) for outcome in (0.5, 1.0)),
)
ASKED: Final = ("local", "suffices")
LOCAL, SUFFICES = (HEADS.index(head) for head in ASKED)


def worth(rows: Sequence[Row], halves: Sequence[int], choice: Choice) -> float:
    """Mean AUC of "local is right" and "local suffices" of a choice, on rows that its models had not seen."""
    found = []
    for half in (0, 1):
        model = train([row for row, at in zip(rows, halves, strict=True) if at != half], ASKED, choice)
        asked = [row for row, at in zip(rows, halves, strict=True) if at == half]
        # Rows as dev has them: repeated by their weight, which a rank needs no more exactly than this.
        times = np.rint(4 * as_in_dev(asked)).astype(int)
        chosen = np.repeat(np.arange(len(asked)), times)
        truth, numbers = truth_of(asked).at(chosen), raw(model, asked).plain[chosen]
        found += [auc(truth.local, numbers[:, LOCAL]), auc(truth.suffices, numbers[:, SUFFICES])]
    return float(np.mean(found))


def main() -> None:
    """Choose and score, fold after fold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder with queries_dev.jsonl and queries_train_extra.jsonl")
    parser.add_argument("--fold", type=int, choices=range(FOLDS), help="this one alone; default: all")
    arguments = parser.parse_args()
    rows = read_rows(arguments.data / "queries_dev.jsonl")
    rows += read_rows(arguments.data / "queries_train_extra.jsonl", extra=True)
    folds = np.array(folds_of(rows, FOLDS))
    for fold in range(FOLDS) if arguments.fold is None else (arguments.fold,):
        known = [row for row, at in zip(rows, folds, strict=True) if at != fold]
        halves = [(at if at < fold else at - 1) % 2 for at in folds if at != fold]
        worths = {choice: worth(known, halves, choice) for choice in TRIED}
        best = max(worths, key=lambda choice: worths[choice])
        dev = [row for row, at in zip(rows, folds, strict=True) if at == fold and not row.extra]
        truth = truth_of(dev)
        for name, choice in (("chosen here", best), ("committed", CHOSEN)):
            numbers = raw(train(known, ASKED, choice), dev).plain
            local, suffices = auc(truth.local, numbers[:, LOCAL]), auc(truth.suffices, numbers[:, SUFFICES])
            sys.stdout.write(f"fold {fold}, {name:11} {choice}: local {local:.4f}, suffices {suffices:.4f}\n")
        spread = ", ".join(f"{value:.4f}" for value in worths.values())
        sys.stdout.write(f"fold {fold}, worth of each: {spread}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
