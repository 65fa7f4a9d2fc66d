"""Frechet distance between two sets of features, such as FID (Heusel et al. 2017) and FVD (Unterthiner et al. 2018).

All arithmetic is float64 on the host. Features are [N,d], one row per image or video.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

BLOCK = 1024  # rows that are summed at once
ARRAYS = ("mu", "sigma", "n", "ddof")  # what a file of statistics holds beside its metadata


@dataclass(frozen=True, eq=False)
class Statistics:
    """Sufficient statistics of a set of features; they merge across batches, hosts and files.

    `scatter` is the sum of the outer products of the centred rows. `count` is None where a file did not tell it; then
    `scatter` is the covariance itself, divided by N - 1 as in every program that writes such files.
    """

    count: int | None
    mean: np.ndarray  # float64 [d]
    scatter: np.ndarray  # float64 [d,d]

    def covariance(self, ddof: int = 1) -> np.ndarray:
        """Covariance float64 [d,d]: the scatter divided by N - ddof; ddof is 1 (unbiased) or 0.

        Raises ValueError for another ddof, for N <= ddof, and for ddof=0 where N is not known.
        """
        if ddof not in (0, 1):
            raise ValueError(f"A covariance is divided by N - 1 (ddof=1) or by N (ddof=0), got ddof={ddof}.")
        if self.count is None:
            if ddof == 0:
                raise ValueError("These statistics tell no N, so their covariance cannot be divided by N: use ddof=1.")
            return self.scatter
        if self.count <= ddof:
            raise ValueError(f"A covariance with ddof={ddof} needs at least {ddof + 1} samples, got {self.count}.")
        return self.scatter / (self.count - ddof)


def as_features(features: Any, name: str = "features") -> np.ndarray:
    """The features as an array [N,d] of their own dtype.

    Raises ValueError where they are not two-dimensional, hold no number, or hold NaN or infinity.
    """
    array = np.asarray(features)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"{name} are an array [N,d] with one row per sample, got shape {array.shape}.")
    # The extremes carry NaN and infinity along, and cost no array of N x d flags.
    if not (np.isfinite(array.min()) and np.isfinite(array.max())):
        raise ValueError(f"{name} hold NaN or infinity: look for the samples whose network output is not finite.")
    return array


def statistics(features: Any) -> Statistics:
    """Statistics of features [N,d], N >= 1, of any real dtype. Raises ValueError as `as_features`."""
    return accumulate([features])


def accumulate(batches: Iterable[Any]) -> Statistics:
    """Statistics of the rows of all batches [N_i,d], without keeping them.

    Rows are summed in blocks of 1024 wherever one batch ends and the next begins, so the result does not depend on the
    batch size. Raises ValueError as `as_features`, where batches differ in d, and where there is none.
    """
    total: Statistics | None = None
    for block in _blocks(batches):
        mean = block.mean(axis=0)
        centred = block - mean
        part = Statistics(len(block), mean, centred.T @ centred)
        total = part if total is None else merge(total, part)
    if total is None:
        raise ValueError("Statistics need at least one batch of features, got none.")
    return total


def merge(a: Statistics, b: Statistics) -> Statistics:
    """Statistics of both sets together (Chan et al. 1979, eq. 2.1).

    Raises ValueError where they differ in d, or where a count is not known.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"Only statistics of equal dimension merge, got {a.mean.size} and {b.mean.size}.")
    if a.count is None or b.count is None:
        raise ValueError("Statistics from a file that tells no N cannot be merged: compute them from the features.")
    count = a.count + b.count
    difference = b.mean - a.mean
    mean = a.mean + difference * (b.count / count)
    between = np.outer(difference, difference * (a.count / count * b.count))
    return Statistics(count, mean, a.scatter + b.scatter + between)


def save(path: str | os.PathLike[str], statistics: Statistics, **metadata: str | int | float) -> None:
    """Writes an .npz file that pytorch-fid and clean-fid read too: `mu`, and `sigma` divided by N - 1.

    Beside them stand `n`, `ddof` and the metadata, which should name all that makes numbers comparable: the feature,
    the preprocessing, frames, stride, resolution.
    Raises ValueError for fewer than 2 samples, and for metadata named as one of the arrays.
    """
    taken = sorted(set(ARRAYS) & set(metadata))
    if taken:
        raise ValueError(f"A file of statistics has arrays called {taken}: choose other names for the metadata.")
    arrays: dict[str, Any] = {"mu": statistics.mean, "sigma": statistics.covariance(ddof=1), "ddof": 1, **metadata}
    if statistics.count is not None:
        arrays["n"] = statistics.count
    with open(path, "wb") as file:  # a path would be given the suffix .npz
        np.savez(file, **arrays)


def load(path: str | os.PathLike[str]) -> tuple[Statistics, dict[str, Any]]:
    """Statistics and metadata from a file of `save`, or from one with only `mu` and `sigma` (pytorch-fid and others).

    The latter is taken to be divided by N - 1; its count is None, so that it takes part in distances with ddof=1 alone.
    Raises ValueError for a file that is no such .npz, with wrong shapes or values that are not finite; OSError where it
    cannot be opened. Nothing in the file is executed.
    """
    with open(path, "rb") as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = dict(archive)
        except Exception as error:  # a damaged file can make zipfile, zlib and NumPy raise nearly anything
            raise ValueError(f"{path} is no .npz file of statistics ({error}).") from error
    if not {"mu", "sigma"} <= set(arrays):
        raise ValueError(f"{path} holds {sorted(arrays)}, but a file of statistics holds 'mu' and 'sigma'.")
    mean, sigma = (_floats(path, name, arrays[name]) for name in ("mu", "sigma"))
    if mean.ndim != 1 or sigma.shape != (mean.size, mean.size) or not mean.size:
        raise ValueError(f"{path} has mu {mean.shape} and sigma {sigma.shape}, expected [d] and [d,d].")
    metadata = {name: value.item() for name, value in arrays.items() if name not in ARRAYS and value.ndim == 0}
    if "n" not in arrays:
        return Statistics(None, mean, sigma), metadata
    count, ddof = (_integer(path, name, arrays.get(name)) for name in ("n", "ddof"))
    if ddof not in (0, 1) or count <= ddof:
        raise ValueError(f"{path} says n={count} and ddof={ddof}, expected ddof 0 or 1 and n > ddof.")
    return Statistics(count, mean, sigma * (count - ddof)), metadata


def frechet_distance(a: Statistics, b: Statistics, ddof: int = 1) -> float:
    """Frechet distance |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)) of two Gaussians (Dowson and Landau 1982).

    With S = F F^T for both, the trace of the root is the sum of the singular values of F1^T F2: real, and accurate for
    singular covariances too. Rounding may leave about -1e-12 of the traces for equal sets.

    Args:
      ddof: covariances are divided by N - ddof; 1 as in FID and the original FVD, 0 as in the StyleGAN family.

    Raises:
      ValueError: fewer than 2 samples, different d, or ddof=0 with an unknown N.

    Warns where a set has fewer than d + 1 samples: its covariance is singular, and the distance far too large.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"A distance needs features of equal dimension, got {a.mean.size} and {b.mean.size}.")
    counts = [count for count in (a.count, b.count) if count is not None]
    if min(counts, default=2) < 2:
        raise ValueError(f"A Frechet distance needs at least 2 samples in each set, got {min(counts)}.")
    if min(counts, default=np.inf) <= a.mean.size:
        warnings.warn(
            f"{min(counts)} samples of {a.mean.size} dimensions make a singular covariance, and the Frechet distance "
            f"comes out too large: use at least {a.mean.size + 1}, and compare only distances of equal N.",
            stacklevel=2,
        )
    covariances = a.covariance(ddof), b.covariance(ddof)
    first, second = map(_factor, covariances)
    root = np.linalg.svd(first.T @ second, compute_uv=False).sum()
    return float(np.square(a.mean - b.mean).sum() + sum(map(np.trace, covariances)) - 2 * root)


def distance_of_features(real: Any, fake: Any, ddof: int = 1) -> float:
    """`frechet_distance` of features [N1,d] and [N2,d]; far faster where both N are smaller than d.

    There the trace of the root is the nuclear norm of the product of the centred features, [N1,N2].
    """
    if max(len(real), len(fake)) >= np.shape(real)[1]:
        return frechet_distance(statistics(real), statistics(fake), ddof)
    x, y = (np.asarray(features, np.float64) for features in (real, fake))
    difference = x.mean(0) - y.mean(0)
    x, y = ((z - z.mean(0)) / np.sqrt(len(z) - ddof) for z in (x, y))
    root = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return float(np.square(difference).sum() + np.square(x).sum() + np.square(y).sum() - 2 * root)


def confidence_interval(
    metric: Callable[[np.ndarray, np.ndarray], float],
    real: Any,
    fake: Any,
    seed: int,
    level: float = 0.95,
    resamples: int = 100,
) -> tuple[float, float, float]:
    """The metric, and the lower and upper end of an interval for it from half-samples (McCarthy 1969).

    The metric is computed on random halves of both sets. Drawn without replacement, a half varies about the whole as
    much as the whole does about the population, so the interval is the value -+ z times their standard deviation. A
    bootstrap would repeat samples, which act as fewer: it moves Frechet distances upward, often past its own interval.

    The interval is for the mean of the metric over data sets of this size. That of a Frechet distance is biased at
    every size, and no interval shows it. Where both sets come from one distribution the interval is too wide.

    Args:
      metric: function of features [N1,d] and [N2,d] that makes sense for half as many.
      real, fake: features [N1,d] and [N2,d], at least 4 each.
      seed: of the halves; the same seed gives the same interval.
      level: probability to cover, between 0 and 1.
      resamples: pairs of halves, at least 2; the width is known to about 1 / sqrt(2 resamples).

    Raises:
      ValueError: an argument is out of range, or as `as_features`.
    """
    real, fake = as_features(real, "real features"), as_features(fake, "fake features")
    if min(len(real), len(fake)) < 4:
        raise ValueError(f"Half-samples need at least 4 samples in each set, got {len(real)} and {len(fake)}.")
    if not 0 < level < 1 or resamples < 2:
        raise ValueError(f"Expected 0 < level < 1 and resamples >= 2, got {level} and {resamples}.")
    value = float(metric(real, fake))
    rng = np.random.default_rng(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of too few samples: what is true of the whole sets has been said above
        halves = [metric(*(_half(features, rng) for features in (real, fake))) for _ in range(resamples)]
    margin = NormalDist().inv_cdf((1 + level) / 2) * float(np.std(halves, ddof=1))
    return value, value - margin, value + margin


def _blocks(batches: Iterable[Any]) -> Iterator[np.ndarray]:
    """All rows of the batches in order, as float64 [BLOCK,d] and a rest; the array is used again for every block."""
    buffer, filled = np.empty((0, 0)), 0
    for batch in batches:
        rows = as_features(batch)
        if not buffer.size:
            buffer = np.empty((BLOCK, rows.shape[1]))
        if rows.shape[1] != buffer.shape[1]:
            raise ValueError(f"Batches of features differ in dimension: {buffer.shape[1]} and then {rows.shape[1]}.")
        while len(rows):
            taken = min(BLOCK - filled, len(rows))
            buffer[filled : filled + taken] = rows[:taken]
            rows, filled = rows[taken:], filled + taken
            if filled == BLOCK:
                yield buffer
                filled = 0
    if filled:
        yield buffer[:filled]


def _floats(path: str | os.PathLike[str], name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise ValueError(f"{path} has a {name} that is not made of finite real numbers.")
    return array.astype(np.float64)


def _integer(path: str | os.PathLike[str], name: str, array: np.ndarray | None) -> int:
    if array is None or array.ndim or array.dtype.kind not in "iu":
        raise ValueError(f"{path} tells its statistics' {name} by something other than one integer.")
    return int(array)


def _factor(covariance: np.ndarray) -> np.ndarray:
    """F [d,rank] with F F^T = covariance; directions that are nothing but rounding error are left out."""
    rounding = len(covariance) * np.finfo(np.float64).eps
    try:
        factor = np.linalg.cholesky(covariance)  # far faster than eigenvectors, where the rank is full
        if np.square(np.diagonal(factor)).min() > rounding * np.trace(covariance):
            return factor
    except np.linalg.LinAlgError:
        pass
    values, vectors = np.linalg.eigh(covariance)
    kept = values > values[-1] * rounding
    return vectors[:, kept] * np.sqrt(values[kept])


def _half(features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return features[rng.choice(len(features), len(features) // 2, replace=False)]
