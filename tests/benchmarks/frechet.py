"""Times the Frechet distance beside the square root of the product, and shows how memory grows with N.

    python tests/benchmarks/frechet.py [--dim 2048] [--rounds 3]

Prints the seconds of both ways on the same statistics, from full-rank covariances and from singular ones (N = d / 2),
and how far each is from the exact value: the nuclear norm of the centered features' product. Then, for N and 4 N
samples, the peak of what each metric allocates beyond its input features.
"""

from __future__ import annotations

import argparse
import statistics
import time
import tracemalloc
import warnings
from collections.abc import Callable

import numpy as np
import scipy.linalg

from jaxvid.metrics import frechet
from jaxvid.metrics.kid import polynomial_mmd
from jaxvid.metrics.precision_recall import precision_recall


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds of each way")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of few samples: half of this is about them
    print(f"{'N':>7}{'d':>6}  {'way':<12}{'seconds':>9}{'relative error':>16}")
    for count in (2 * arguments.dim, arguments.dim // 2):
        compare(count, arguments.dim, arguments.rounds)
    print(f"\n{'metric':<18}{'N':>7}{'MiB':>8}{'N':>7}{'MiB':>8}")
    for name, metric in METRICS.items():
        sizes = (3000, 12000)
        peaks = [peak_mebibytes(metric, *(features(seed, count, 256) for seed in range(2))) for count in sizes]
        print(f"{name:<18}" + "".join(f"{count:>7}{peak:>8.1f}" for count, peak in zip(sizes, peaks, strict=True)))


def compare(count: int, dim: int, rounds: int) -> None:
    """Prints a line for each way."""
    x, y = (features(seed, count, dim) for seed in range(2))
    a, b = frechet.statistics(x), frechet.statistics(y)
    want = from_features(x, y)
    ways: dict[str, Callable[[], float]] = {
        "ours": lambda: frechet.frechet_distance(a, b),
        "sqrtm": lambda: square_root_of_product(a, b),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    values: dict[str, float] = {}
    for _ in range(rounds):  # by turns, so that a busy machine disturbs both alike
        for name, way in ways.items():
            start = time.perf_counter()
            values[name] = way()
            seconds[name].append(time.perf_counter() - start)
    for name, times in seconds.items():
        error = abs(values[name] - want) / want
        print(f"{count:>7}{dim:>6}  {name:<12}{statistics.median(times):>9.2f}{error:>16.1e}")


def features(seed: int, count: int, dim: int) -> np.ndarray:
    """float32 [count,dim] with a spectrum that falls, as that of networks does."""
    samples = np.random.default_rng(seed).normal(0.1 * seed, 1, (count, dim))
    return (samples / np.sqrt(1 + np.arange(dim))).astype(np.float32)


def square_root_of_product(a: frechet.Statistics, b: frechet.Statistics) -> float:
    first, second = a.covariance(), b.covariance()
    root = scipy.linalg.sqrtm(first @ second)
    return float(np.square(a.mean - b.mean).sum() + np.trace(first + second) - 2 * np.trace(root).real)


def from_features(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x.astype(np.float64), y.astype(np.float64)
    gap = np.square(x.mean(0) - y.mean(0)).sum()
    x, y = ((z - z.mean(0)) / np.sqrt(len(z) - 1) for z in (x, y))
    return float(gap + np.square(x).sum() + np.square(y).sum() - 2 * scipy.linalg.svdvals(x @ y.T).sum())


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], object]] = {
    "statistics": lambda real, _: frechet.statistics(real),
    "polynomial_mmd": polynomial_mmd,
    "precision_recall": precision_recall,
}


def peak_mebibytes(metric: Callable[[np.ndarray, np.ndarray], object], real: np.ndarray, fake: np.ndarray) -> float:
    tracemalloc.start()  # NumPy reports its arrays to it
    metric(real, fake)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


if __name__ == "__main__":
    main()
