"""Frechet distance between two sets of features, such as FID (Heusel et al. 2017) and FVD (Unterthiner et al. 2018).

All arithmetic is float64 on the host. Features are [N,d], one row per image or video.
"""

import contextlib
import os
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from jaxvid.files import open_arrays
from jaxvid.shapes import expect

BLOCK = 1024  # rows that are summed at once
MAX_DIMENSION = 4096  # of a file of statistics
ARRAYS = ("mu", "sigma", "n", "ddof")  # in a file of statistics, besides the metadata


@dataclass(frozen=True, eq=False)
class Statistics:
    """Sufficient statistics of a set of features; they merge across batches, hosts and files.

    `scatter` is the sum of the outer products of the centered rows. `count` is None where a file does not contain it;
    then `scatter` is the covariance itself, divided by N - 1 as in every program that writes such files.
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
                raise ValueError("The N of these statistics is unknown, so their covariance needs ddof=1.")
            return self.scatter
        if self.count <= ddof:
            raise ValueError(f"A covariance with ddof={ddof} needs at least {ddof + 1} samples, got {self.count}.")
        return self.scatter / (self.count - ddof)


def as_features(features: Any, name: str = "features", least: int = 1) -> np.ndarray:
    """Features [N,d] of any dtype as an array; ValueError for another shape, N below `least`, and NaN or infinity."""
    array = np.asarray(features)
    expect(f"[N>={least},d>=1]", **{name: array})
    # The extremes propagate NaN and infinity, and need no array of N x d flags.
    if not (np.isfinite(array.min()) and np.isfinite(array.max())):
        raise ValueError(f"{name} holds NaN or infinity: look for samples whose network output is not finite.")
    return array


def as_pair(real: Any, fake: Any, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of features of one d, see `as_features`. Raises ValueError also where they differ in d."""
    real, fake = as_features(real, "real", least), as_features(fake, "fake", least)
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"Two sets need features of equal dimension, got {real.shape[1]} and {fake.shape[1]}.")
    return real, fake


def statistics(features: Any) -> Statistics:
    """Statistics of features [N,d], N >= 1, of any real dtype. Raises ValueError as `as_features`."""
    return accumulate([features])


def accumulate(batches: Iterable[Any]) -> Statistics:
    """Statistics of the rows of all batches [N_i,d], without keeping them.

    Rows are summed in blocks of 1024 across the borders of batches, so the result does not depend on the batch size.
    Raises ValueError as `as_features`, where batches differ in d, and where there is none.
    """
    total: Statistics | None = None
    for block in _blocks(batches):
        mean = block.mean(axis=0)
        centered = block - mean
        part = Statistics(len(block), mean, centered.T @ centered)
        total = part if total is None else merge(total, part)
    if total is None:
        raise ValueError("Statistics need at least one batch of features, got none.")
    return total


def merge(a: Statistics, b: Statistics) -> Statistics:
    """Statistics of both sets together (Chan et al. 1979, eq. 2.1); ValueError for another d or an unknown count."""
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"Only statistics of equal dimension merge, got {a.mean.size} and {b.mean.size}.")
    if a.count is None or b.count is None:
        raise ValueError("Statistics of unknown N cannot be merged: compute them from the features.")
    count = a.count + b.count
    difference = b.mean - a.mean
    mean = a.mean + difference * (b.count / count)
    between = np.outer(difference, difference * (a.count / count * b.count))
    return Statistics(count, mean, a.scatter + b.scatter + between)


def save(path: str | os.PathLike[str], statistics: Statistics, **metadata: str | int | float) -> None:
    """Writes an .npz file that pytorch-fid and clean-fid read too: `mu`, and `sigma` divided by N - 1.

    It also contains `n`, `ddof` and the metadata, which should state everything that scores depend on: the feature, the
    preprocessing, frames, stride, resolution.
    Raises ValueError for fewer than 2 samples, and for metadata with the name of one of the arrays.
    """
    if taken := sorted(set(ARRAYS) & set(metadata)):
        raise ValueError(f"A file of statistics has arrays called {taken}: choose other names for the metadata.")
    arrays: dict[str, Any] = {"mu": statistics.mean, "sigma": statistics.covariance(ddof=1), "ddof": 1, **metadata}
    if statistics.count is not None:
        arrays["n"] = statistics.count
    with open(path, "wb") as file:  # a path would be given the suffix .npz
        np.savez(file, **arrays)


def load(path: str | os.PathLike[str], dimension: int | None = None) -> tuple[Statistics, dict[str, Any]]:
    """Statistics and metadata from a file of `save`, or from one with only `mu` and `sigma` (pytorch-fid and others).

    The sigma of the latter is assumed to be divided by N - 1; the count is None, so distances need ddof=1. Nothing in
    the file is executed, and what is refused is not read. Raises ValueError where it is damaged or something else, is
    not of this dimension d (None for any up to 4096), and OSError where it cannot be opened.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no .npz file of statistics.")
    stored = open_arrays(path)
    if not {"mu", "sigma"} <= set(stored):
        raise ValueError(f"{path} holds {sorted(stored)}, but a file of statistics holds 'mu' and 'sigma'.")
    shape = stored["mu"].shape
    if len(shape) != 1 or stored["sigma"].shape != shape * 2 or not shape[0]:
        raise ValueError(f"{path} has mu {shape} and sigma {stored['sigma'].shape}, expected [d] and [d,d].")
    if shape[0] != (dimension or shape[0]) or shape[0] > MAX_DIMENSION:
        raise ValueError(f"{path} has statistics of {shape[0]} dimensions, expected {dimension or 'at most 4096'}.")
    arrays = {
        name: array[()]
        for name, array in stored.items()
        if name in ("mu", "sigma") or (array.shape == () and array.nbytes < 10_000)
    }
    mean, sigma = (_floats(path, name, arrays[name]) for name in ("mu", "sigma"))
    metadata = {name: value.item() for name, value in arrays.items() if name not in ARRAYS and value.ndim == 0}
    if "n" not in stored:
        return Statistics(None, mean, sigma), metadata
    count, ddof = (_integer(path, name, arrays.get(name)) for name in ("n", "ddof"))
    if ddof not in (0, 1) or count <= ddof:
        raise ValueError(f"{path} has n={count} and ddof={ddof}, expected ddof 0 or 1 and n > ddof.")
    return Statistics(count, mean, sigma * (count - ddof)), metadata


def frechet_distance(a: Statistics, b: Statistics, ddof: int = 1) -> float:
    """Frechet distance |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)) of two Gaussians (Dowson and Landau 1982).

    With S = F F^T for both, the trace of the root is the sum of the singular values of F1^T F2, which is real, and
    accurate for singular covariances too. What rounding may leave of equal sets is 0.

    Covariances are divided by N - ddof: 1 as in FID and the original FVD, 0 as in the StyleGAN family.
    Raises ValueError for fewer than 2 samples, different d, or ddof=0 with an unknown N. Warns where a set has fewer
    than d + 1 samples: its covariance is singular, and the distance is far too large.
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
    return _distance(a.mean - b.mean, sum(map(np.trace, covariances)), root)


def distance_of_features(real: Any, fake: Any, ddof: int = 1) -> float:
    """`frechet_distance` of features [N1,d] and [N2,d]; far faster where both N are smaller than d.

    Then the trace of the root is the nuclear norm of the product of the centered features, [N1,N2].
    """
    if max(len(real), len(fake)) >= np.shape(real)[1]:
        return frechet_distance(statistics(real), statistics(fake), ddof)
    x, y = (np.asarray(features, np.float64) for features in (real, fake))
    difference = x.mean(0) - y.mean(0)
    x, y = ((z - z.mean(0)) / np.sqrt(len(z) - ddof) for z in (x, y))
    root = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return _distance(difference, np.square(x).sum() + np.square(y).sum(), root)


def confidence_interval(
    metric: Callable[[np.ndarray, np.ndarray], float],
    real: Any,
    fake: Any,
    seed: int,
    level: float = 0.95,
    resamples: int = 50,
) -> tuple[float, float, float]:
    """The metric, and the lower and upper end of an interval for it from pairs of complementary half-samples.

    In the Hoeffding decomposition of the metric, let a be its variance from single samples and b that from pairs of
    them, which most of a Frechet distance's is where N < d. Half the difference of the metrics of two complementary
    halves has the variance a + 2 b, and their mean b: the first less the second is that of the metric. (One half alone
    has a + 3 b, and a bootstrap, which repeats samples, is biased upwards.) It is rounded off at 0 by b, and the
    interval is the value -+ the quantile of Student's t times its root. docs/evaluation.md has how often it covers.

    The interval is for the mean of the metric over data sets of this size: the bias of a Frechet distance, at every
    size, is not included. It does not depend on the order of the rows.

    Args:
      metric: function of features [N1,d] and [N2,d] that is defined for half as many, too.
      real, fake: one row per sample, at least 4 each; their dimensions may differ if the metric allows it.
      seed, level: of the halves; and the probability to cover, between 0 and 1.
      resamples: pairs of halves of both sets, at least 2.

    Raises ValueError for an argument out of range, or as `as_features`.
    """
    real, fake = _sorted(as_features(real, "real", 4)), _sorted(as_features(fake, "fake", 4))
    if not 0 < level < 1 or resamples < 2:
        raise ValueError(f"Expected 0 < level < 1 and resamples >= 2, got {level} and {resamples}.")
    value = float(metric(real, fake))
    rng = np.random.default_rng(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warning about few samples was given for the whole sets above
        drawn = (zip(_halves(real, rng), _halves(fake, rng), strict=True) for _ in range(resamples))
        halves = np.array([[metric(*half) for half in pair] for pair in drawn])
    of_pairs = np.var(halves.mean(1), ddof=1)
    variance = np.var((halves[:, 0] - halves[:, 1]) / 2, ddof=1) - of_pairs
    variance = (variance + np.hypot(variance, of_pairs)) / 2
    margin = student((1 + level) / 2, min(len(real), len(fake), resamples) - 1) * float(np.sqrt(variance))
    return value, value - margin, value + margin


def student(probability: float, freedom: int) -> float:
    """The quantile of Student's t, to 1 % of it from 5 degrees of freedom on (Abramowitz and Stegun 26.7.5)."""
    z = NormalDist().inv_cdf(probability)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def _distance(difference: np.ndarray, traces: float, root: float) -> float:
    """From the difference of the means [d], the sum of the traces, and the trace of the root; 0 within rounding."""
    rounding = len(difference) * np.finfo(np.float64).eps * traces
    distance = float(np.square(difference).sum() + traces - 2 * root)
    return distance if distance > rounding else 0.0


def _blocks(batches: Iterable[Any]) -> Iterator[np.ndarray]:
    """All rows of the batches in order, as float64 [BLOCK,d] and a remainder."""
    rows: np.ndarray | None = None
    for batch in map(as_features, batches):
        if rows is not None and rows.shape[1] != batch.shape[1]:
            raise ValueError(f"Batches of features differ in dimension: {rows.shape[1]} and then {batch.shape[1]}.")
        rows = np.concatenate([rows, batch]) if rows is not None and len(rows) else batch
        while len(rows) >= BLOCK:
            yield rows[:BLOCK].astype(np.float64)
            rows = rows[BLOCK:]
    if rows is not None and len(rows):
        yield rows.astype(np.float64)


def _floats(path: str | os.PathLike[str], name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise ValueError(f"{path} has a {name} that is not finite and real.")
    return array.astype(np.float64)


def _integer(path: str | os.PathLike[str], name: str, array: np.ndarray | None) -> int:
    if array is None or array.ndim or array.dtype.kind not in "iu":
        raise ValueError(f"{path} has a {name} that is not one integer.")
    return int(array)


def _factor(covariance: np.ndarray) -> np.ndarray:
    """F [d,rank] with F F^T = covariance; directions of rounding errors alone are left out."""
    rounding = len(covariance) * np.finfo(np.float64).eps
    with contextlib.suppress(np.linalg.LinAlgError):
        factor = np.linalg.cholesky(covariance)  # far faster than eigenvectors, if the rank is full
        if np.square(np.diagonal(factor)).min() > rounding * np.trace(covariance):
            return factor
    values, vectors = np.linalg.eigh(covariance)
    kept = values > values[-1] * rounding
    return vectors[:, kept] * np.sqrt(values[kept])


def _halves(features: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two halves without a common row; of an odd number of rows one is in neither."""
    order, half = rng.permutation(len(features)), len(features) // 2
    return features[order[:half]], features[order[half : 2 * half]]


def _sorted(features: np.ndarray) -> np.ndarray:
    """The rows in an order that follows from their content: by value, which rounding hardly changes, then by bits."""
    return features[sorted(range(len(features)), key=lambda i: (features[i, :16].tolist(), features[i].tobytes()))]
