"""What features mean together, which a sum over single ones can't say: random Fourier features. Pure; needs numpy.

    wave[k]  = cos(direction[k] . z + phase[k])      z: features, less their mean, by their spread, within +-3
    part     = sum(weight[k] * wave[k])              one per head

A regression on such waves is one on a Gaussian kernel: questions whose features are alike are answered alike (A. Rahimi
and B. Recht, Random features for large-scale kernel machines, 2007). Far from every question of the training it says
nothing: the waves cancel out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
FARTHEST: Final = 3.0
"""Spreads from the mean; what lies beyond is as far as that."""


@dataclass(frozen=True, slots=True, eq=False)
class Interplay:
    """As fitted."""

    names: tuple[str, ...]
    """Of the features."""
    middle: Floats
    """(features) their means."""
    spread: Floats
    """(features) their standard deviations, above 0."""
    directions: Floats
    """(features, waves)."""
    phases: Floats
    """(waves)."""
    weights: Floats
    """(waves, heads)."""

    def parts(self, values: Mapping[str, float]) -> tuple[float, ...]:
        """What it adds to each head."""
        row = np.array([values[name] for name in self.names], np.float32)
        return tuple(np.einsum("w,wh->h", self.waves(row), self.weights).tolist())

    def waves(self, rows: Floats) -> Floats:
        """The waves of one question, or of many: (..., features) in, (..., waves) out."""
        # Not "@": a BLAS would wake threads of its own for so little, and differs from machine to machine.
        turned = np.einsum("...f,fw->...w", standard(rows, self.middle, self.spread), self.directions)
        waves: Floats = np.cos(turned + self.phases)
        return waves


def standard(rows: Floats, middle: Floats, spread: Floats) -> Floats:
    """Put features on one scale."""
    # Not np.clip, which takes three times as long for one row.
    standing: Floats = np.minimum(np.maximum((rows - middle) / spread, -FARTHEST), FARTHEST)
    return standing


def none(heads: int, names: Sequence[str] = ()) -> Interplay:
    """One that adds nothing."""
    size = len(names)
    empty = np.zeros(0, np.float32)
    return Interplay(
        tuple(names),
        np.zeros(size, np.float32),
        np.ones(size, np.float32),
        np.zeros((size, 0), np.float32),
        empty,
        np.zeros((0, heads), np.float32),
    )
