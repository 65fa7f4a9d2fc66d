"""The metrics by name: what each needs of a set of clips, and the score it makes of two sets, with what was measured."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid import config as config_lib
from jaxvid.metrics import weights
from jaxvid.metrics.features import Extractor, make_extractor
from jaxvid.metrics.frechet import (
    Statistics,
    confidence_interval,
    distance_of_features,
    frechet_distance,
    statistics,
)
from jaxvid.metrics.i3d import MIN_FRAMES
from jaxvid.metrics.image import psnr, ssim
from jaxvid.metrics.inception_score import inception_score
from jaxvid.metrics.kid import kid, polynomial_mmd
from jaxvid.metrics.motion import motion_features
from jaxvid.metrics.precision_recall import precision_recall
from jaxvid.metrics.protocol import PROTOCOLS, Protocol

Tap = tuple[str, str]  # the network, or "motion", and its output
DEFAULTS = {"inception": "pytorch_fid", "i3d": "original"}
MOTION: Tap = ("motion", "features")


class Metric(NamedTuple):
    """What a metric is called, which features it needs (None: pairs of clips), and what to cite."""

    tap: Tap | None
    citation: str  # "" for the protocol's


METRICS = {
    "fvd": Metric(("i3d", "logits"), ""),
    "kvd": Metric(("i3d", "logits"), "KVD (Unterthiner et al. 2018)"),
    "fid": Metric(("inception", "2048"), ""),
    "kid": Metric(("inception", "2048"), "KID (Binkowski et al. 2018)"),
    "is": Metric(("inception", "logits_unbiased"), "Inception Score (Salimans et al. 2016)"),
    "pr": Metric(("inception", "2048"), "improved precision and recall (Kynkaanniemi et al. 2019)"),
    "motion": Metric(MOTION, "Frechet motion distance (jaxvid.metrics.motion)"),
    "psnr": Metric(None, "PSNR of whole clips"),
    "ssim": Metric(None, "SSIM (Wang et al. 2004)"),
}
PAIRED: dict[str, Callable[..., jax.Array]] = {"psnr": psnr, "ssim": ssim}
Features = dict[Tap, "np.ndarray | Statistics"]


class Score(NamedTuple):
    """A number and what it is of.

    name: such as "fvd", "precision".
    value: the number; `interval`: a 95 % confidence interval, or None.
    real, fake: how many clips or frames it is of; 0 where a file of statistics does not tell, or a set plays no part.
    details: what else decides it.
    """

    name: str
    value: float
    interval: tuple[float, float] | None
    real: int
    fake: int
    details: dict[str, Any]


def check(metrics: Sequence[str], frames: int) -> None:
    """Raises ValueError for a metric that there is not, or that needs more frames."""
    for name in metrics:
        config_lib.choice("a metric", name, METRICS)
        needed = {"i3d": MIN_FRAMES, "motion": 2}.get((METRICS[name].tap or ("", ""))[0], 1)
        if frames < needed:
            raise ValueError(f"{name} needs clips of at least {needed} frames, not {frames}.")


def protocols(names: Sequence[str]) -> dict[str, str]:
    """The protocol's name for each network: those given, or else the defaults. Raises ValueError for unknown ones."""
    chosen = dict(DEFAULTS)
    for name in names:
        config_lib.choice("a protocol", name, PROTOCOLS)
        chosen[PROTOCOLS[name].network] = name
    return chosen


class Meter:
    """Turns clips into the features that some metrics need, and features into scores.

    Args:
      metrics: of METRICS.
      chosen: the protocol of each network, from `protocols`.
      dtype: of the networks' convolutions.
      seed: of the intervals.
      intervals: compute them; they cost a hundred times the score.

    Raises:
      FileNotFoundError: the weights of a network are not there; the sentence says how to get them.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        chosen: Mapping[str, str] = DEFAULTS,
        dtype: Any = jnp.float32,
        seed: int = 0,
        intervals: bool = True,
    ):
        self.metrics, self.chosen, self.seed, self.intervals = list(metrics), chosen, seed, intervals
        self.dtype = jnp.dtype(dtype).name
        self.weights: dict[str, weights.WeightInfo] = {}
        self._extractors: dict[str, Extractor] = {}
        needed = dict.fromkeys(METRICS[name].tap for name in metrics)
        self.taps = [tap for tap in needed if tap is not None]
        for network in dict.fromkeys(network for network, _ in self.taps if network != "motion"):
            params, self.weights[network] = weights.load(network)
            outputs = [output for name, output in self.taps if name == network]
            self._extractors[network] = make_extractor(PROTOCOLS[chosen[network]], params, outputs, dtype)

    def features(self, batches: Iterable[np.ndarray]) -> Features:
        """Features [N,d] of all clips uint8 [B,T,H,W,3]; those of images are of every frame."""
        found: dict[Tap, list[np.ndarray]] = {tap: [] for tap in self.taps}
        for clips in batches:
            for network, extract in self._extractors.items():
                pixels = clips.reshape(-1, *clips.shape[2:]) if network == "inception" else clips
                for output, rows in next(extract([pixels])).items():
                    found[network, output].append(rows)
            if MOTION in found:
                found[MOTION].append(np.asarray(_motion(clips)))
        return {tap: np.concatenate(rows) for tap, rows in found.items()}

    def scores(self, real: Features, fake: Features) -> list[Score]:
        """The scores of the metrics that need no pairs. The features of a Frechet distance may be Statistics."""
        found = []
        for name in self.metrics:
            metric = METRICS[name]
            if metric.tap is None:
                continue
            found += self._scores(name, metric, real[metric.tap], fake[metric.tap])
        return found

    def _scores(self, name: str, metric: Metric, real: Any, fake: Any) -> list[Score]:
        network, output = metric.tap or ("", "")
        details: dict[str, Any] = {"citation": metric.citation, "features": f"{network} {output}"}
        ddof = 1
        if network in self.weights:
            protocol = PROTOCOLS[self.chosen[network]]
            details |= {"protocol": self.chosen[network], **described(protocol), "dtype": self.dtype}
            details |= {"weights": self.weights[network].identity, "weights_digest": self.weights[network].digest}
            details["citation"] = metric.citation or protocol.citation
            ddof = protocol.ddof
        counts = [x.count or 0 if isinstance(x, Statistics) else len(x) for x in (real, fake)]
        make = functools.partial(Score, real=counts[0], fake=counts[1], details=details)
        if name in ("fvd", "fid", "motion"):
            value = frechet_distance(_summary(real), _summary(fake), ddof)
            distance = functools.partial(distance_of_features, ddof=ddof)
            return [make(name, value, self._interval(distance, value, real, fake))]
        if name == "kvd":
            value = polynomial_mmd(real, fake)
            return [make(name, value, self._interval(polynomial_mmd, value, real, fake))]
        if name == "kid":
            size = min(1000, *counts)
            value, std = kid(real, fake, subset_size=size)
            details |= {"subsets": 100, "subset_size": size, "std": std}
            if min(counts) < 4 * size:  # subsets overlap, and their spread says little
                return [make(name, value, self._interval(polynomial_mmd, value, real, fake))]
            return [make(name, value, _normal(value, std * np.sqrt(size / min(counts))))]
        if name == "is":
            splits = min(10, counts[1])
            value, std = inception_score(fake, splits=splits)
            details |= {"splits": splits, "std": std}
            return [make(name, value, _normal(value, std / np.sqrt(splits)), real=0)]
        shares = zip(("precision", "recall"), precision_recall(real, fake), counts[::-1], strict=True)
        return [make(part, p, _normal(p, np.sqrt(p * (1 - p) / n))) for part, p, n in shares]

    def _interval(self, metric: Callable, value: float, real: Any, fake: Any) -> tuple[float, float] | None:
        """From half-samples; None where the samples are not at hand, are too few, or intervals are not wanted."""
        if not self.intervals or isinstance(real, Statistics) or isinstance(fake, Statistics):
            return None
        if min(len(real), len(fake)) < 4:
            return None
        resamples = 100 if real.shape[1] <= 512 else 20
        _, low, high = confidence_interval(metric, real, fake, self.seed, resamples=resamples)
        return low, high


def paired_scores(metrics: Sequence[str], pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[Score]:
    """Means over clips of the metrics that compare each clip with its own original: batches of uint8 [B,T,H,W,3]."""
    names = [name for name in metrics if name in PAIRED]
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for real, fake in pairs:
        for name in names:
            found[name].append(np.asarray(_paired(name, real, fake), np.float64))
    scores = []
    for name, batches in found.items():
        values = np.concatenate(batches)
        error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
        details = {"citation": METRICS[name].citation, "std": float(values.std())}
        scores.append(Score(name, float(values.mean()), _normal(values.mean(), error), len(values), len(values), details))
    return scores


def described(protocol: Protocol) -> dict[str, Any]:
    """What a protocol fixes about the score of given clips."""
    return {name: getattr(protocol, name) for name in ("resize", "scale", "epsilon", "ddof")}


@jax.jit
def _motion(clips: jax.Array) -> jax.Array:
    return motion_features(clips)


@functools.partial(jax.jit, static_argnums=0)
def _paired(name: str, real: jax.Array, fake: jax.Array) -> jax.Array:
    return PAIRED[name](fake, real, data_range=255.0)


def _summary(features: np.ndarray | Statistics) -> Statistics:
    return features if isinstance(features, Statistics) else statistics(features)


def _normal(value: float, error: float) -> tuple[float, float]:
    """A 95 % interval from a standard error."""
    return float(value - 1.96 * error), float(value + 1.96 * error)
