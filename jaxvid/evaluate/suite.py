"""The metrics by name: what each needs of a set of clips, and the score it makes of two, with what was measured."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.metrics import weights
from jaxvid.metrics.features import Extractor, make_extractor
from jaxvid.metrics.frechet import (
    Statistics,
    accumulate,
    confidence_interval,
    distance_of_features,
    frechet_distance,
    statistics,
)
from jaxvid.metrics.i3d import MIN_FRAMES
from jaxvid.metrics.image import WINDOW, psnr, ssim
from jaxvid.metrics.inception_score import inception_score
from jaxvid.metrics.kid import kid, polynomial_mmd
from jaxvid.metrics.motion import motion_features
from jaxvid.metrics.precision_recall import precision_recall
from jaxvid.metrics.protocol import PROTOCOLS
from jaxvid.names import choice

Tap = tuple[str, str]  # a network, "motion" or "classifier", and its output
Interval = tuple[float, float]
DEFAULTS = {"inception": "pytorch_fid", "i3d": "original"}
MOTION: Tap = ("motion", "features")
CLASSIFIER: Tap = ("classifier", "features")
CLASSES: Tap = ("classifier", "classes")


class Metric(NamedTuple):
    """What a metric needs, and what to cite for it."""

    tap: Tap | None  # the features; None for pairs of clips
    examples: int  # at least so many of each set
    citation: str  # "" for the protocol's


METRICS = {
    "fvd": Metric(("i3d", "logits"), 2, ""),
    "kvd": Metric(("i3d", "logits"), 2, "KVD (Unterthiner et al. 2018)"),
    "fid": Metric(("inception", "2048"), 2, ""),
    "kid": Metric(("inception", "2048"), 2, "KID (Binkowski et al. 2018)"),
    "is": Metric(("inception", "logits_unbiased"), 1, "Inception Score (Salimans et al. 2016)"),
    "pr": Metric(("inception", "2048"), 4, "improved precision and recall (Kynkaanniemi et al. 2019)"),
    "motion": Metric(MOTION, 2, "Frechet motion distance (jaxvid.metrics.motion)"),
    "frechet_classifier": Metric(CLASSIFIER, 2, "Frechet distance of a classifier's features"),
    "asked": Metric(CLASSES, 1, "share that a classifier assigns to the asked class"),
    "psnr": Metric(None, 1, "PSNR of whole clips"),
    "ssim": Metric(None, 1, "SSIM (Wang et al. 2004)"),
}
FRECHET = ("fvd", "fid", "motion", "frechet_classifier")
DIMENSIONS = {("i3d", "logits"): 400, ("inception", "2048"): 2048, MOTION: 60}  # of the features of these
PAIRED: dict[str, Callable[..., jax.Array]] = {"psnr": psnr, "ssim": ssim}
Features = Mapping[Tap, np.ndarray | Statistics]


class Classifier(NamedTuple):
    """A trained classifier.

    identity: what it was trained on, in words.
    read: video uint8 [B,T,H,W,3] -> features [B,D], logits [B,K].
    """

    identity: str
    read: Callable[[np.ndarray], tuple[jax.Array, jax.Array]]


class Score(NamedTuple):
    """A number and what it is of."""

    name: str  # such as "fvd" or "precision"
    value: float
    interval: Interval | None  # 95 % confidence
    real: int  # examples; 0 where the set plays no part, or its statistics do not tell
    fake: int
    examples: str  # "clips" or "frames"
    details: dict[str, Any]  # what else decides the value


def named(metrics: Sequence[str]) -> list[str]:
    """The metrics' names, each once. Raises ValueError for an unknown one."""
    return [choice("a metric", name, METRICS) for name in dict.fromkeys(metrics)]


def check(metrics: Sequence[str], frames: int, size: Sequence[int], examples: Mapping[str, int]) -> None:
    """Raises ValueError for what cannot work, before anything is computed.

    Args:
      metrics: from `named`.
      frames: of a clip.
      size: (height, width) of its frames.
      examples: how many clips there are of each set, by the set's name.
    """
    for name in metrics:
        metric = METRICS[name]
        network = metric.tap[0] if metric.tap else ""
        needed = {"i3d": MIN_FRAMES, "motion": 2}.get(network, 1)
        if frames < needed:
            raise ValueError(f"{name} needs clips of at least {needed} frames, not {frames}.")
        if name == "ssim" and min(size) < WINDOW:
            raise ValueError(f"ssim needs frames of at least {WINDOW}x{WINDOW} pixels, not {size[0]}x{size[1]}.")
        for side, clips in examples.items():
            count, noun = (clips * frames, "frames") if network == "inception" else (clips, "clips")
            if count < metric.examples:
                raise ValueError(f"{name} needs at least {metric.examples} {noun}; the {side} set has {count}.")


def protocols(names: Sequence[str]) -> dict[str, str]:
    """The protocol's name for each network: those given, else the defaults.

    Raises:
      ValueError: an unknown one, or two of one network.
    """
    given: dict[str, str] = {}
    for name in names:
        network = PROTOCOLS[choice("a protocol", name, PROTOCOLS)].network
        if given.setdefault(network, name) != name:
            raise ValueError(f"{given[network]} and {name} are both protocols of {network}: give one at a time.")
    return DEFAULTS | given


class Meter:
    """Turns clips into the features that some metrics need, and features into scores.

    Args:
      metrics: names; those that compare pairs are left to `paired_scores`.
      chosen: the protocol's name for each network, from `protocols`.
      dtype: of the networks' convolutions, "float32" or "bfloat16".
      seed: of the intervals.
      intervals: compute them, at the cost of up to a hundred times a score (those of psnr and ssim cost nothing).
      classifier: for the metrics that need one.

    Raises:
      FileNotFoundError: the weights of a network are not there; the sentence says how to get them.
      ValueError: a metric needs a classifier, and none is given.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        chosen: Mapping[str, str] = DEFAULTS,
        dtype: str = "float32",
        seed: int = 0,
        intervals: bool = True,
        classifier: Classifier | None = None,
    ):
        self.metrics = [name for name in metrics if METRICS[name].tap]
        self._chosen, self._dtype, self._seed, self._intervals = chosen, dtype, seed, intervals
        self._weights: dict[str, weights.WeightInfo] = {}
        self._extractors: dict[str, Extractor] = {}
        self.taps = list(dict.fromkeys(tap for name in metrics if (tap := METRICS[name].tap)))
        self._classifier = classifier
        for name in self.metrics:
            if METRICS[name].tap in (CLASSIFIER, CLASSES) and classifier is None:
                raise ValueError(f"{name} needs a trained classifier: jaxvid.evaluate --workdir DIR --classifier DIR.")
        for network in dict.fromkeys(network for network, _ in self.taps if network not in ("motion", "classifier")):
            params, self._weights[network] = weights.load(network)
            identity = self._weights[network].identity
            if "unknown" in identity or "wrong" in identity:
                warnings.warn(
                    f"{network} runs on {identity}: its scores are not those that are published.", stacklevel=2
                )
            outputs = [output for name, output in self.taps if name == network]
            protocol = PROTOCOLS[chosen[network]]
            self._extractors[network] = make_extractor(protocol, params, outputs, jnp.dtype(dtype))

    def features(self, batches: Iterable[np.ndarray]) -> Features:
        """Features [N,E,d] of N clips uint8 [B,T,H,W,3]: E is T for those of images, 1 for those of videos.

        Those of the tap CLASSES are the class that the classifier sees, int [N,1,1].

        Where one Frechet distance without an interval is wanted, their Statistics, so that memory does not grow with N.
        Raises ValueError where there is no clip.
        """
        found = self._features(batches)
        if len(self.metrics) == 1 and self.metrics[0] in FRECHET and not self._intervals:
            (tap,) = self.taps
            return {tap: accumulate(part[tap].reshape(-1, part[tap].shape[-1]) for part in found)}
        parts = list(found)
        if not parts:
            raise ValueError("No clip of the set could be read.")
        return {tap: np.concatenate([part[tap] for part in parts]) for tap in self.taps}

    def _features(self, batches: Iterable[np.ndarray]) -> Iterator[dict[Tap, np.ndarray]]:
        for clips in batches:
            part = {}
            for network, extract in self._extractors.items():
                pixels = clips.reshape(-1, *clips.shape[2:]) if network == "inception" else clips
                for output, rows in next(extract([pixels])).items():
                    part[network, output] = rows.reshape(len(clips), -1, rows.shape[-1])
            if MOTION in self.taps:
                part[MOTION] = np.asarray(_motion(clips))[:, None]
            if self._classifier:
                features, logits = jax.device_get(self._classifier.read(clips))
                part[CLASSIFIER], part[CLASSES] = features[:, None], logits.argmax(-1)[:, None, None]
            yield part

    def details(self, tap: Tap) -> dict[str, Any]:
        """What decides features of given clips."""
        network, output = tap
        if network == "motion":
            return {"features": "motion"}
        if network == "classifier":
            assert self._classifier
            return {"features": "classifier", "weights": self._classifier.identity}
        fixed = PROTOCOLS[self._chosen[network]]._asdict()
        return {
            "features": f"{network} {output}",
            "protocol": self._chosen[network],
            **{name: fixed[name] for name in ("resize", "scale", "epsilon", "ddof")},
            "dtype": self._dtype,
            "weights": self._weights[network].identity,
            "weights_sha256": self._weights[network].digest,
        }

    def scores(self, real: Features, fake: Features) -> list[Score]:
        """A score for every metric, two for precision and recall; a Frechet distance takes Statistics as well.

        For "asked" the real features of the tap CLASSES are the classes that were asked for, example by example.
        """
        return [score for name in self.metrics for score in self._scores(name, real, fake)]

    def _scores(self, name: str, real_features: Features, fake_features: Features) -> list[Score]:
        tap = METRICS[name].tap
        assert tap is not None
        details = self.details(tap)
        details["citation"] = METRICS[name].citation or PROTOCOLS[details["protocol"]].citation
        noun = "frames" if tap[0] == "inception" else "clips"
        sets = real_features[tap], fake_features[tap]
        counts = [(x.count or 0) if isinstance(x, Statistics) else x.shape[0] * x.shape[1] for x in sets]
        score = functools.partial(Score, real=counts[0], fake=counts[1], examples=noun, details=details)
        if name in FRECHET:
            ddof = details.get("ddof", 1)
            value = frechet_distance(summary(sets[0]), summary(sets[1]), ddof)
            interval = self._interval(functools.partial(distance_of_features, ddof=ddof), value, sets, lowest=0)
            return [score(name, value, interval)]
        real, fake = (x.reshape(-1, x.shape[-1]) for x in sets if isinstance(x, np.ndarray))
        if name == "asked":
            return [score(name, float((real == fake).mean()), _wilson(int((real == fake).sum()), len(fake)), real=0)]
        if name == "kvd":
            value = polynomial_mmd(real, fake)
            return [score(name, value, self._interval(polynomial_mmd, value, sets))]
        if name == "kid":
            details["subset_size"] = min(1000, *counts)
            value, details["std_over_subsets"] = kid(real, fake, subset_size=details["subset_size"])
            return [score(name, value, self._interval(polynomial_mmd, value, sets))]
        if name == "is":
            details["splits"] = splits = min(10, counts[1])
            value, details["std_over_splits"] = inception_score(fake, splits)

            def of_fake(_: np.ndarray, half: np.ndarray) -> float:
                return inception_score(half, min(splits, len(half)))[0]

            return [score(name, value, self._interval(of_fake, value, (sets[1], sets[1]), lowest=1), real=0)]
        parts = dict(zip(("precision", "recall"), precision_recall(real, fake), strict=True))
        return [
            score(part, value, self._interval(lambda *x, i=i: precision_recall(*x)[i], value, sets, 0, 1))
            for i, (part, value) in enumerate(parts.items())
        ]

    def _interval(
        self, metric: Callable, value: float, sets: Sequence[Any], lowest: float = -np.inf, highest: float = np.inf
    ) -> Interval | None:
        """From half-samples of clips; None where they are not at hand, are fewer than 8, or it is not wanted."""
        if not self._intervals or any(isinstance(x, Statistics) or len(x) < 8 for x in sets):
            return None
        dim = sets[0].shape[-1]
        resamples = 100 if dim <= 512 else 20  # of 2048 dimensions each takes seconds

        # All frames of a clip are drawn or none: they are no independent examples.
        def of_clips(real: np.ndarray, fake: np.ndarray) -> float:
            return metric(real.reshape(-1, dim), fake.reshape(-1, dim))

        real, fake = (x.reshape(len(x), -1) for x in sets)
        _, low, high = confidence_interval(of_clips, real, fake, self._seed, resamples=resamples)
        margin = (high - low) / 2
        return max(value - margin, lowest), min(value + margin, highest)


def paired_scores(metrics: Sequence[str], pairs: Iterable[tuple[np.ndarray, ...]]) -> list[Score]:
    """Means over clips of the metrics that compare each with its own original: pairs of batches uint8 [B,T,H,W,3]."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in metrics if name in PAIRED}
    for real, fake in pairs:
        for name, batches in found.items():
            batches.append(np.asarray(_paired(name, real, fake), np.float64))
    scores = []
    for name, batches in found.items():
        values = np.concatenate(batches)
        interval = _normal(values.mean(), values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
        details = {"citation": METRICS[name].citation, "std": float(values.std())}
        scores.append(Score(name, float(values.mean()), interval, len(values), len(values), "clips", details))
    return scores


_motion = jax.jit(motion_features)


@functools.partial(jax.jit, static_argnums=0)
def _paired(name: str, real: jax.Array, fake: jax.Array) -> jax.Array:
    return PAIRED[name](fake, real, data_range=255.0)


def summary(features: np.ndarray | Statistics) -> Statistics:
    """The statistics of features [N,E,d]."""
    return features if isinstance(features, Statistics) else statistics(features.reshape(-1, features.shape[-1]))


def _wilson(hits: int, count: int) -> Interval:
    """A 95 % interval of a share (Wilson 1927), which is no point where all or none are hits."""
    center, square = hits + 1.96**2 / 2, hits * (1 - hits / count) + 1.96**2 / 4
    low, high = ((center + sign * 1.96 * np.sqrt(square)) / (count + 1.96**2) for sign in (-1, 1))
    return max(0.0, float(low)), min(1.0, float(high))


def _normal(value: float, error: float) -> Interval:
    """A 95 % interval from a standard error."""
    return float(value - 1.96 * error), float(value + 1.96 * error)
