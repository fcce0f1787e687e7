"""`make train-judge`: fit the judge's weights to published outcomes and say how good they are.

    PYTHONPATH=services/judge python -m judge_training DATA [--output PATH]

`DATA` is the folder with `queries_dev.jsonl` and `queries_train_extra.jsonl` (its README tells fields and licences).
Same data, same bytes. The curves and levels are fitted to guesses on dev rows by models that had not seen them; the
figures are of curves and levels that had not seen the row's fold either.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from judge_training.figures import FIGURES, Guess, Truth
from judge_training.fit import train
from judge_training.rows import folds_of, read_rows
from judge_training.scoring import (
    FOLDS,
    fit_curves,
    fit_levels,
    fitted_without,
    guess_of,
    guess_without,
    models_without,
    truth_of,
    unseen,
)
from stream_judge.weights import Weights, render

ASSUMED = {
    "proof": 1.8, "derivation": 1.4, "reasoning": 0.3, "several_parts": 0.5, "design": 1.0, "courtesy": -2.5,
    "everyday_task": -1.2, "brief": -2.2, "conversational": -0.25, "script": 0.4, "mixed_scripts": 0.2, "tools": 0.3,
    "structured_output": 0.2, "modalities": 0.4, "long_answer": 0.5, "small_limit": -0.2, "depth": 0.2,
}  # fmt: skip
"""Set by hand, in logits of difficulty. No outcome here is of small talk, of a proof or of a tool call."""
ABOUT = (
    "Fitted to per-model outcomes of public questions: MMLU-Pro (questions MIT, outcomes Apache-2.0), GSM8K, MATH "
    "and CRUXEval (MIT) with outcomes of WildEval/ZeroEval (Apache-2.0). Words stand as CRC-32 numbers, no text of "
    "theirs is in this file. The figures are of exam questions, models of 2024, one greedy run each, cross-validated "
    "on the dev rows. What is assumed was set by hand, not fitted."
)


def main() -> None:
    """Fit, measure, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder with queries_dev.jsonl and queries_train_extra.jsonl")
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "src/stream_judge/weights.json")
    arguments = parser.parse_args()
    rows = read_rows(arguments.data / "queries_dev.jsonl")
    dev = len(rows)
    rows += read_rows(arguments.data / "queries_train_extra.jsonl", extra=True)
    folds = folds_of(rows, FOLDS)
    numbers = unseen(rows, folds, models_without(rows, folds))
    truth = truth_of(rows[:dev])
    curves = fit_curves(numbers.plain[:dev], truth)
    levels = fit_levels(numbers.plain[:dev], curves, truth)
    forms = {"plain": numbers.plain[:dev], "stripped": numbers.stripped[:dev]}
    fitted = fitted_without(forms["plain"], truth, folds[:dev])
    guesses = {form: guess_without(found, fitted, folds[:dev]) for form, found in forms.items()}
    figures = {
        form: {name: round(figure(guess, truth), 4) for name, figure in FIGURES.items()}
        for form, guess in guesses.items()
    }
    weights = Weights("", train(rows), ASSUMED, curves, levels)
    about = {
        "about": ABOUT,
        "rows": len(rows),
        "figures": figures,
        "sample": _sample(guess_of(forms["plain"], curves, levels), truth),
    }
    arguments.output.write_text(render(weights, about), encoding="utf-8")
    for form, found in figures.items():
        for name, value in found.items():
            sys.stdout.write(f"{form:9} {name:26} {value:.4f}\n")


def _sample(guess: Guess, truth: Truth) -> list[list[int]]:
    """What `stream judge plan` draws its curve from: per dev row three chances in percent, three outcomes as bits."""
    chances = np.rint(100 * np.array([guess.local, guess.hpc, guess.cloud])).astype(int)
    bits = (truth.local + 2 * truth.hpc + 4 * truth.cloud).astype(int)
    return np.vstack([chances, bits]).T.tolist()


if __name__ == "__main__":
    main()
