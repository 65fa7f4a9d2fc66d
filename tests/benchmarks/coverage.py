"""How often the evaluator's 95 % intervals of a Frechet distance of 400 dimensions cover, as FVD has them.

python tests/benchmarks/coverage.py [--counts 20 67 400] [--trials 1000]

A trial draws both sets anew. It covers where the mean distance of sets of this size lies within the interval.
"""

import argparse
import warnings

import numpy as np

from jaxvid.metrics.frechet import confidence_interval, distance_of_features

DIM = 400
DECAY = 1 / np.sqrt(1 + np.arange(DIM))
# Standard deviations of the real and the fake features, and the distance of their means in every dimension.
SETS = {
    "white, shifted": (np.ones(DIM), np.ones(DIM), 0.5),
    "decaying, shifted": (DECAY, DECAY, 0.2),
    "decaying, wider": (DECAY, 1.4 * DECAY, 0.05),
    "white, equal": (np.ones(DIM), np.ones(DIM), 0.0),
    "decaying, equal": (DECAY, DECAY, 0.0),
    "few dimensions, equal": (DECAY**2, DECAY**2, 0.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[20, 67, 400], help="samples of each set")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=50, help="pairs of halves, 50 in the evaluator")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of few samples, which this is about
    print(
        f"{'features':<24}{'N':>5}{'mean':>10}{'deviation':>11}{'half-width / deviation':>24}{'covers':>8}{'error':>7}"
    )
    for count in options.counts:
        for name in SETS:
            mean, deviation, width, covers = coverage(name, count, options.trials, options.resamples)
            error = np.sqrt(covers * (1 - covers) / options.trials)
            row = f"{name:<24}{count:>5}{mean:>10.4g}{deviation:>11.4g}{width:>24.2f}{covers:>8.3f}{error:>7.3f}"
            print(row, flush=True)


def coverage(name: str, count: int, trials: int, resamples: int = 50) -> tuple[float, float, float, float]:
    """Mean and deviation of the distance, the mean half-width in deviations (1.96 is ideal), and the share covered."""
    spread, fake_spread, shift = SETS[name]
    rng = np.random.default_rng(count)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        return rng.normal(0, spread, (count, DIM)), rng.normal(shift, fake_spread, (count, DIM))

    truth = np.array([distance_of_features(*draw()) for _ in range(2 * trials)])
    found = [confidence_interval(distance_of_features, *draw(), seed, resamples=resamples) for seed in range(trials)]
    values, lows, highs = np.array(found).T
    every = np.concatenate([truth, values])
    covered = np.mean((lows <= every.mean()) & (every.mean() <= highs))
    return float(every.mean()), float(every.std()), float((highs - lows).mean() / 2 / every.std()), float(covered)


if __name__ == "__main__":
    main()
