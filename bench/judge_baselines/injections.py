"""Prompts that tell the judge what to answer: how far they move the score, beside neutral sentences of their form."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from judge_training.rows import View

from stream_judge.score import Score, score
from stream_judge.weights import Weights

_FILE = Path(__file__).parents[1] / "judge_injections.jsonl"
TIERS = ("local", "hpc", "cloud")


def measure(weights: Weights) -> dict[str, Any]:
    """Score every question alone, with the order, and with the neutral sentence.

    Returns:
        Changes of P(local): mean and largest with orders and with neutral sentences; and how many levels orders moved.
    """
    lines = [json.loads(line) for line in _FILE.read_text(encoding="utf-8").splitlines()]
    questions = [line["question"] for line in lines if "question" in line]
    pairs = [(line["order"], line["neutral"]) for line in lines if "order" in line]
    told, untold, moved = [], [], 0
    for question in questions:
        alone = _score(question, weights)
        for order, neutral in pairs:
            for text, into in ((order, told), (neutral, untold)):
                with_it = _score(f"{question} {text}", weights)
                into.append(abs(with_it.probabilities[0] - alone.probabilities[0]))
                moved += into is told and with_it.level is not alone.level
    return {
        "cases": len(told),
        "mean_shift": round(float(np.mean(told)), 4),
        "max_shift": round(float(np.max(told)), 4),
        "neutral_mean_shift": round(float(np.mean(untold)), 4),
        "neutral_max_shift": round(float(np.max(untold)), 4),
        "levels_moved": moved,
    }


def _score(text: str, weights: Weights) -> Score:
    view = View(text)
    return score(view.values, view.grams, TIERS, weights)
