"""The figures that judges are compared by; each is a function of predictions and outcomes alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
QUALITY: Final = 0.95
FREE: Final = 0.85


@dataclass(frozen=True)
class Truth:
    """What really happened, one entry per question."""

    local: Floats
    hpc: Floats
    cloud: Floats
    suffices: Floats
    needed: npt.NDArray[np.int64]

    def at(self, chosen: npt.NDArray[np.int64]) -> "Truth":
        """Some of the questions, repeated as named."""
        return Truth(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Guess:
    """What a judge said, one entry per question."""

    local: Floats
    hpc: Floats
    cloud: Floats
    suffices: Floats
    level: npt.NDArray[np.int64]
    """0 LOW, 1 MEDIUM, 2 HIGH."""

    def at(self, chosen: npt.NDArray[np.int64]) -> "Guess":
        """Some of the questions, repeated as named."""
        return Guess(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


def auc(labels: Floats, scores: Floats) -> float:
    """Area under the ROC curve: how often a good one stands above a bad one; ties count half."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    good = labels.sum()
    bad = len(labels) - good
    return float((ranks[labels > 0].sum() - good * (good + 1) / 2) / (good * bad)) if good and bad else float("nan")


def recovered(gain: Floats, weak: Floats, strong: Floats) -> Floats:
    """Share of the quality gap that is closed when the 0, 1, 2, ... questions of the largest expected gain escalate.

    Questions of equal gain escalate together: each counts with their mean.
    """
    order = np.argsort(-gain, kind="stable")
    _, block = np.unique(-gain[order], return_inverse=True)
    won = (strong - weak)[order]
    won = (np.bincount(block, won) / np.bincount(block))[block]
    return np.concatenate(([0.0], np.cumsum(won))) / (strong.sum() - weak.sum())


def apgr(gain: Floats, weak: Floats, strong: Floats) -> float:
    """Average performance gap recovered over all shares of escalation (Ong et al., RouteLLM, 2024)."""
    curve = recovered(gain, weak, strong)
    return float(((curve[1:] + curve[:-1]) / 2).mean())


def call_share(gain: Floats, weak: Floats, strong: Floats, level: float) -> float:
    """CPT: the smallest share of calls to the strong tier that closes `level` of the gap."""
    return float(np.argmax(recovered(gain, weak, strong) >= level) / len(gain))


def free_share(guess: Guess, truth: Truth) -> float:
    """Largest share kept off the cloud, answered by hpc, with at least 95 % of the cloud's quality."""
    order = np.argsort(guess.hpc - guess.cloud, kind="stable")
    quality = truth.hpc.mean() + np.concatenate(([0.0], np.cumsum((truth.cloud - truth.hpc)[order]))) / len(order)
    return float(1 - np.argmax(quality >= QUALITY * truth.cloud.mean()) / len(order))


def quality_at_free(guess: Guess, truth: Truth) -> float:
    """Share of good answers when 85 % of the requests stay off the cloud."""
    order = np.argsort(guess.hpc - guess.cloud, kind="stable")
    sent = order[: round((1 - FREE) * len(order))]
    return float((truth.hpc.sum() + (truth.cloud - truth.hpc)[sent].sum()) / len(order))


def accuracy(level: npt.NDArray[np.int64], needed: npt.NDArray[np.int64]) -> float:
    """Share of levels that are right."""
    return float((level == needed).mean())


def macro_f1(level: npt.NDArray[np.int64], needed: npt.NDArray[np.int64]) -> float:
    """Mean F1 of the three levels."""
    scores = []
    for kind in range(3):
        right = float(((level == kind) & (needed == kind)).sum())
        scores.append(2 * right / max(1.0, float((level == kind).sum() + (needed == kind).sum())))
    return float(np.mean(scores))


FIGURES: Mapping[str, Callable[[Guess, Truth], float]] = {
    "auc_local_correct": lambda g, t: auc(t.local, g.local),
    "auc_local_suffices": lambda g, t: auc(t.suffices, g.suffices),
    "apgr": lambda g, t: apgr(g.cloud - g.local, t.local, t.cloud),
    "cpt50": lambda g, t: call_share(g.cloud - g.local, t.local, t.cloud, 0.5),
    "cpt80": lambda g, t: call_share(g.cloud - g.local, t.local, t.cloud, 0.8),
    "acc3": lambda g, t: accuracy(g.level, t.needed),
    "macro_f1": lambda g, t: macro_f1(g.level, t.needed),
    "free_share_at_95_quality": free_share,
    "quality_at_85_free": quality_at_free,
    "brier": lambda g, t: float(((g.local - t.local) ** 2).mean()),
}
STRIPPED: Final = ("auc_local_correct", "auc_local_suffices", "apgr")


def paired(
    ours: Guess, theirs: Guess, truth: Truth, names: Sequence[str], *, draws: int, seed: int
) -> dict[str, list[float]]:
    """Bootstrap the difference of two judges on the same questions.

    Returns:
        By figure: the difference, and the ends of its 95 % interval.
    """
    random = np.random.default_rng(seed)
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(draws):
        chosen = random.integers(0, len(truth.local), len(truth.local))
        a, b, t = ours.at(chosen), theirs.at(chosen), truth.at(chosen)
        for name in names:
            found[name].append(FIGURES[name](a, t) - FIGURES[name](b, t))
    result: dict[str, Any] = {}
    for name, differences in found.items():
        low, high = np.nanpercentile(differences, [2.5, 97.5])
        middle = FIGURES[name](ours, truth) - FIGURES[name](theirs, truth)
        result[name] = [round(middle, 4), round(float(low), 4), round(float(high), 4)]
    return result
