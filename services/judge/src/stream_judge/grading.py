"""What a language model is asked as a judge, and how its one letter becomes probabilities. Pure.

The model says one token; its log-probabilities over A, B and C are what counts, not the letter that was drawn. Whoever
grades A thinks that every tier answers well, B that hpc and cloud do, C that only the cloud may:

    P(local) = p(A) * SURE,  P(hpc) = (p(A) + p(B)) * SURE,  P(cloud) = (p(A) + p(B) + p(C) * HOPE) * SURE

An institution's own calibration is applied on top, as for the learned scorer.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

GRADES: Final = ("A", "B", "C")
SURE: Final = 0.9
HOPE: Final = 0.6
_ALTERNATIVES: Final = 20
LEAST_MASS: Final = 0.05
"""A model that puts less than this on A, B and C together has not understood the task: its answer is not used."""


def grading_request(
    model: str, prompt: str, question: str, more: Mapping[str, object], before: str = ""
) -> dict[str, Any]:
    """Build the body of the chat request: one token, its alternatives with their log-probabilities.

    Args:
        model: the engine's name.
        prompt: the system prompt.
        question: that is graded.
        more: fields of the request.
        before: the conversation's tail, which the question may lean on.
    """
    so_far = f"The conversation so far:\n<<<\n{before}\n>>>\n" if before else ""
    return {
        "model": model,
        "messages": [
            {"role": "system", "content": prompt.strip()},
            {"role": "user", "content": f"{so_far}The request to grade:\n<<<\n{question}\n>>>\nGrade (A, B or C):"},
        ],
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": _ALTERNATIVES,
        "stream": False,
        **more,
    }


def read_grades(answer: object) -> tuple[float, float, float] | None:
    """Read p(A), p(B), p(C) from the model's answer.

    Returns:
        They sum to 1; None when the answer holds no log-probabilities of the grades.
    """
    try:
        alternatives: Sequence[Mapping[str, Any]] = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]  # type: ignore[index]  # any shape: what does not fit raises
        mass = dict.fromkeys(GRADES, 0.0)
        for one in alternatives:
            letter = str(one["token"]).strip().upper()
            if letter in mass:
                mass[letter] += math.exp(min(0.0, float(one["logprob"])))
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    total = sum(mass.values())
    if not total >= LEAST_MASS:
        return None
    a, b, c = (mass[letter] / total for letter in GRADES)
    return a, b, c


def standard_probabilities(grades: tuple[float, float, float]) -> tuple[float, float, float]:
    """Turn grades into chances of a good answer for local, hpc and cloud."""
    a, b, c = grades
    return a * SURE, (a + b) * SURE, (a + b + c * HOPE) * SURE
