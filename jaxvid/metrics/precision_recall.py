"""Improved precision and recall (Kynkaanniemi et al. 2019): how realistic fakes are, and how much they cover."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxvid.metrics.frechet import as_pair

TILE = 1024  # rows and columns of the distances in memory at a time


def precision_recall(real: Any, fake: Any, k: int = 3) -> tuple[float, float]:
    """Precision and recall of fake features [N2,d] about real ones [N1,d], both in [0, 1].

    Precision is the share of fake samples within the ball of a real sample, whose radius is the distance to its k-th
    nearest other real sample; recall is the same with the roles exchanged (eq. 1 and 2). Balls are closed. Distances
    are float64; memory does not grow with the square of N. Compare only results of equal N and k.

    Raises ValueError for k < 1, for sets of at most k samples, or as `as_pair`.
    """
    real, fake = as_pair(real, fake)
    if k < 1 or min(len(real), len(fake)) <= k:
        raise ValueError(f"A k-th neighbor needs 1 <= k < N, got k={k} and N of {len(real)} and {len(fake)}.")
    center = real.mean(axis=0, dtype=np.float64)  # products of large numbers would lose digits
    real_radii, fake_radii = _radii(real, center, k), _radii(fake, center, k)
    realistic, covered = np.zeros(len(fake), bool), np.zeros(len(real), bool)
    for rows, columns, distances, rounding in _tiles(fake, real, center):
        realistic[rows] |= (distances <= real_radii[columns] + rounding).any(axis=1)
        covered[columns] |= (distances <= fake_radii[rows, None] + rounding).any(axis=0)
    return float(realistic.mean()), float(covered.mean())


def _radii(features: np.ndarray, center: np.ndarray, k: int) -> np.ndarray:
    """Squared distance [N] of every row to the k-th nearest other row."""
    radii = np.full((len(features), k), np.inf)  # of the k nearest so far
    for rows, columns, distances, _ in _tiles(features, features, center):
        if rows == columns:
            np.fill_diagonal(distances, np.inf)
        nearest = np.concatenate([radii[rows], distances], axis=1)
        radii[rows] = np.partition(nearest, k - 1, axis=1)[:, :k]
    return radii.max(axis=1)


def _tiles(x: np.ndarray, y: np.ndarray, center: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray, float]]:
    """Rows, columns, squared distances between those rows of x and of y, and a bound on their rounding error."""
    for i in range(0, len(x), TILE):
        left = x[i : i + TILE] - center
        left_norms = np.square(left).sum(axis=1)
        for j in range(0, len(y), TILE):
            right = y[j : j + TILE] - center
            right_norms = np.square(right).sum(axis=1)
            distances = left_norms[:, None] + right_norms - 2 * (left @ right.T)
            rounding = 1e-13 * (left_norms.max() + right_norms.max())
            yield slice(i, i + TILE), slice(j, j + TILE), np.maximum(distances, 0, out=distances), rounding
