"""Kernel Inception Distance (Binkowski et al. 2018): squared MMD with the kernel (x.y / d + 1)^3, in float64."""

from typing import Any

import numpy as np

from jaxvid.metrics.frechet import as_pair

TILE = 1024  # rows and columns of the kernel in memory at a time


def polynomial_mmd(real: Any, fake: Any) -> float:
    """Unbiased squared maximum mean discrepancy of two whole sets [N1,d] and [N2,d] (Gretton et al. 2012, eq. 3).

    On Inception features this is the KID without subsets, on features of a video network the KVD. Its expectation is 0
    where both sets come from one distribution, so small negative values are correct. Memory does not grow with N.
    Raises ValueError for fewer than 2 samples, or as `as_pair`.
    """
    real, fake = as_pair(real, fake, 2)
    within = sum((_kernel_sum(x, x) - _diagonal_sum(x)) / (len(x) * (len(x) - 1)) for x in (real, fake))
    return within - 2 * _kernel_sum(real, fake) / (len(real) * len(fake))


def kid(real: Any, fake: Any, subsets: int = 100, subset_size: int = 1000, seed: int = 2020) -> tuple[float, float]:
    """Mean and population standard deviation of the squared MMD over random subsets of features [N1,d] and [N2,d].

    Subsets are drawn without replacement by NumPy's `RandomState(seed)`, each time the fake one first: the same draws
    as torch-fidelity with input 1 fake and input 2 real, and as clean-fid and StyleGAN after `numpy.random.seed(seed)`.
    clean-fid and StyleGAN report the mean alone, with subset_size = min(N1, N2, 1000); StyleGAN multiplies it by 1000.

    Raises ValueError for a set smaller than a subset, subsets < 1, subset_size < 2, or as `polynomial_mmd`.
    """
    real, fake = as_pair(real, fake, 2)
    if subsets < 1 or subset_size < 2:
        raise ValueError(f"KID needs subsets >= 1 of subset_size >= 2, got {subsets} and {subset_size}.")
    if min(len(real), len(fake)) < subset_size:
        found = f"{len(real)} real and {len(fake)} fake: compute more, or pass a smaller subset_size and report it."
        raise ValueError(f"KID with subset_size={subset_size} needs as many samples in each set, got {found}")
    rng = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        drawn_fake, drawn_real = (x[rng.choice(len(x), subset_size, replace=False)] for x in (fake, real))
        values.append(polynomial_mmd(drawn_real, drawn_fake))
    return float(np.mean(values)), float(np.std(values))


def _kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
    """Sum of the kernel over all pairs of rows of x [N,d] and y [M,d]."""
    total = 0.0
    for i in range(0, len(x), TILE):
        rows = x[i : i + TILE].astype(np.float64)
        for j in range(0, len(y), TILE):
            base = rows @ y[j : j + TILE].astype(np.float64).T / x.shape[1] + 1
            total += float((base * base * base).sum())
    return total


def _diagonal_sum(x: np.ndarray) -> float:
    """Sum of the kernel of every row of x [N,d] with itself."""
    tiles = (x[i : i + TILE].astype(np.float64) for i in range(0, len(x), TILE))
    return sum(float(((np.square(rows).sum(axis=1) / x.shape[1] + 1) ** 3).sum()) for rows in tiles)
