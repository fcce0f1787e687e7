"""Linear least squares with a Gaussian prior, on sparse and dense columns, by conjugate gradients; one thread."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
STEPS: Final = 60
TOLERANCE: Final = 1e-3
"""Of the residual, against the right-hand side."""


@dataclass(frozen=True)
class Sparse:
    """Rows of (column, value) pairs, one after the other."""

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    values: Floats
    shape: tuple[int, int]

    def times(self, vector: Floats) -> Floats:
        """The matrix times a vector."""
        return np.bincount(self.rows, self.values * vector[self.columns], minlength=self.shape[0])

    def transposed_times(self, vector: Floats) -> Floats:
        """The transposed matrix times a vector."""
        return np.bincount(self.columns, self.values * vector[self.rows], minlength=self.shape[1])


@dataclass(frozen=True)
class Design:
    """Sparse columns, and dense ones to their right."""

    sparse: Sparse
    dense: Floats

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.sparse.shape[0], self.sparse.shape[1] + self.dense.shape[1]

    def times(self, vector: Floats) -> Floats:
        """The matrix times a vector."""
        edge = self.sparse.shape[1]
        return self.sparse.times(vector[:edge]) + self.dense @ vector[edge:]

    def transposed_times(self, vector: Floats) -> Floats:
        """The transposed matrix times a vector."""
        return np.concatenate([self.sparse.transposed_times(vector), self.dense.T @ vector])


def stack(entries: Sequence[Sequence[tuple[int, float]]], width: int) -> Sparse:
    """Build the matrix from one list of (column, value) per row."""
    sizes = [len(entry) for entry in entries]
    rows = np.repeat(np.arange(len(entries)), sizes)
    columns = np.fromiter((column for entry in entries for column, _ in entry), np.int64, sum(sizes))
    values = np.fromiter((value for entry in entries for _, value in entry), np.float64, sum(sizes))
    return Sparse(rows, columns, values, (len(entries), width))


def solve(matrix: Design, target: Floats, ridge: float) -> tuple[Floats, float]:
    """Minimise |matrix w + b - target|² + ridge |w|².

    Returns:
        w and b. The columns are centred on the way, so that b is not shrunk.
    """
    mean = matrix.transposed_times(np.full(matrix.shape[0], 1.0 / matrix.shape[0]))
    level = float(target.mean())

    def normal(vector: Floats) -> Floats:
        fitted = matrix.times(vector) - mean @ vector
        return matrix.transposed_times(fitted) - mean * fitted.sum() + ridge * vector

    weights = np.zeros(matrix.shape[1])
    residual = matrix.transposed_times(target - level) - mean * (target - level).sum()
    direction = residual.copy()
    size = residual @ residual
    enough = size * TOLERANCE**2
    for _ in range(STEPS):
        if size <= enough:
            break
        image = normal(direction)
        step = size / (direction @ image)
        weights += step * direction
        residual -= step * image
        grown = residual @ residual
        direction = residual + (grown / size) * direction
        size = grown
    return weights, level - float(mean @ weights)
