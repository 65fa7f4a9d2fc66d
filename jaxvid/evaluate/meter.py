"""Clips, or files of statistics, into the features that the metrics need, and features into scores."""

import functools
import os
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid import processes
from jaxvid.evaluate import suite
from jaxvid.evaluate.suite import DRAWN, METRICS, PAIRED, Estimate, Interval, Score, Tap
from jaxvid.files import open_arrays
from jaxvid.metrics import frechet, weights
from jaxvid.metrics.features import make_extractor
from jaxvid.metrics.frechet import Statistics, student
from jaxvid.metrics.motion import motion_features
from jaxvid.metrics.protocol import PROTOCOLS

Features = Mapping[Tap, np.ndarray | Statistics]
# Of the features whose statistics may come from a file.
DIMENSIONS = {("i3d", "logits"): 400, ("inception", "2048"): 2048, suite.MOTION: 60}
LEAST = 8  # clips of each set that an interval needs: see docs/evaluation.md


class Network(NamedTuple):
    """What the features of some metrics come from."""

    # clips uint8 [B,T,H,W,3] -> {output: [B,E,d]}, E is T for a network of images and 1 for one of clips
    extract: Callable[[np.ndarray], dict[str, np.ndarray]]
    facts: dict[str, Any]  # what decides the features, besides the clips


def published(network: str, outputs: Sequence[str], protocol_name: str, dtype: str) -> Network:
    """Outputs of Inception or I3D under a protocol of `metrics.protocol`. Raises FileNotFoundError as `Meter` does."""
    params, info = weights.load(network)
    if "unknown" in info.identity or "wrong" in info.identity:
        warnings.warn(f"{network} runs on {info.identity}: its scores are not those that are published.", stacklevel=2)
    protocol = PROTOCOLS[protocol_name]
    program = make_extractor(protocol, params, outputs, jnp.dtype(dtype))

    def extract(clips: np.ndarray) -> dict[str, np.ndarray]:
        pixels = clips.reshape(-1, *clips.shape[2:]) if network == "inception" else clips
        return {output: rows.reshape(len(clips), -1, rows.shape[-1]) for output, rows in program(pixels).items()}

    facts = {name: getattr(protocol, name) for name in ("resize", "scale", "epsilon", "ddof")}
    identity = {"dtype": dtype, "weights": info.identity, "weights_sha256": info.digest}
    return Network(extract, {"protocol": protocol_name, **facts, **identity})


def of_classifier(identity: str, reader: Callable[[np.ndarray], tuple[jax.Array, jax.Array]]) -> Network:
    """A trained classifier: its features, and the classes that it predicts, int [B,1,1].

    The identity is what it was trained on, in words; the reader makes features [B,D] and logits [B,K] of video uint8
    [B,T,H,W,3].
    """

    def extract(clips: np.ndarray) -> dict[str, np.ndarray]:
        features, logits = jax.device_get(reader(clips))
        return {"features": features[:, None], "classes": logits.argmax(-1)[:, None, None]}

    return Network(extract, {"weights": identity})


def drawing(seed: int) -> Network:
    """The number of one frame of each clip, int [B,1,1], by the seed and the content of the clip."""

    def extract(clips: np.ndarray) -> dict[str, np.ndarray]:
        streams = (np.random.default_rng([seed, zlib.crc32(np.ascontiguousarray(clip).data)]) for clip in clips)
        return {DRAWN[1]: np.array([rng.integers(clips.shape[1]) for rng in streams])[:, None, None]}

    return Network(extract, {})


def with_weights(metrics: Sequence[str]) -> list[str]:
    """Those of the metrics whose published weights are in the user's cache; warns of the others, in a sentence each."""
    found = []
    for name in suite.named(metrics):
        tap = METRICS[name].tap
        if tap and tap[0] in suite.DEFAULTS and not (path := weights.cache_path(tap[0])).exists():
            warnings.warn(f"{name} is left out of the evaluations: {weights.absent(tap[0], path)}", stacklevel=2)
        else:
            found.append(name)
    return found


class Meter:
    """Turns clips into the features that some metrics need, and features into scores.

    Args:
      metrics: from `suite.named`.
      protocols: the protocol's name for each published network, from `suite.protocols`.
      dtype: of the networks' convolutions, "float32" or "bfloat16".
      seed: of the intervals, and of the frame that stands for a clip where a metric takes one.
      intervals: compute them, at the cost of up to a hundred times a score (those of psnr and ssim are free).
      classifier: from `of_classifier`, for the metrics that need one.

    Raises:
      FileNotFoundError: the weights of networks are not there; the message has the commands that get them.
      ValueError: a metric needs a classifier, and there is none.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        protocols: Mapping[str, str] = suite.DEFAULTS,
        dtype: str = "float32",
        seed: int = 0,
        intervals: bool = True,
        classifier: Network | None = None,
    ):
        self.of_pairs = [name for name in metrics if name in PAIRED]
        self.of_sets = [name for name in metrics if name not in PAIRED]
        self._seed, self._intervals = seed, intervals
        self.taps = list(dict.fromkeys(tap for name in metrics if (tap := METRICS[name].tap)))
        self.taps += [DRAWN] if any(METRICS[name].drawn for name in metrics) else []
        self._networks: dict[str, Network] = {DRAWN[0]: drawing(seed)}
        missing = []
        for network in dict.fromkeys(network for network, _ in self.taps if network != DRAWN[0]):
            if network in protocols:
                outputs = [output for name, output in self.taps if name == network]
                try:
                    self._networks[network] = published(network, outputs, protocols[network], dtype)
                except FileNotFoundError as error:
                    missing.append(str(error))
            elif network == suite.MOTION[0]:
                self._networks[network] = Network(lambda clips: {"features": np.asarray(_motion(clips))[:, None]}, {})
            elif classifier:
                self._networks[network] = classifier
            else:
                name = next(name for name in metrics if METRICS[name].tap in (suite.CLASSIFIER, suite.CLASSES))
                raise ValueError(f"{name} needs a trained classifier: jaxvid.evaluate --workdir DIR --classifier DIR.")
        if missing:
            raise FileNotFoundError(" ".join(missing))

    def features(self, batches: Iterable[np.ndarray]) -> Features:
        """Features [N,E,d] of N clips uint8 [B,T,H,W,3]: E is T for those of images, 1 for those of videos.

        Each of several processes passes its own rows of as many batches, and all get the features of all rows. Those of
        the tap CLASSES are the class that the classifier predicts, int [N,1,1]. For a single Frechet distance
        without an interval, their Statistics, so that memory does not grow. Raises ValueError where there is no clip.
        """
        found = map(processes.rows_of_all, map(self._extract, batches))
        if len(self.of_sets) == 1 and self.of_sets[0] in suite.FRECHET and not self._intervals:
            (tap,) = self.taps
            return {tap: frechet.accumulate(part[tap].reshape(-1, part[tap].shape[-1]) for part in found)}
        parts = list(found)
        if not parts:
            raise ValueError("No clip of the set could be read.")
        return {tap: np.concatenate([part[tap] for part in parts]) for tap in self.taps}

    def _extract(self, clips: np.ndarray) -> dict[Tap, np.ndarray]:
        used, some = dict.fromkeys(network for network, _ in self.taps), _not_empty(clips)
        outputs = {network: self._networks[network].extract(some) for network in used}
        return {(network, output): outputs[network][output][: len(clips)] for network, output in self.taps}

    def details(self, tap: Tap) -> dict[str, Any]:
        """What decides the features of a tap, besides the clips."""
        return {"features": suite.title(tap), **self._networks[tap[0]].facts}

    def scores(self, real: Features, fake: Features, **about: Any) -> list[Score]:
        """A score for every metric of sets, two for precision and recall; a Frechet distance takes Statistics as well.

        For "asked" the real features of the tap CLASSES are the classes that were asked for, example by example. What
        else is known `about` the sets becomes part of the details.
        """
        scores = []
        for name in self.of_sets:
            metric = METRICS[name]
            assert metric.tap is not None
            details = self.details(metric.tap) | about
            details["citation"] = metric.citation or PROTOCOLS[details["protocol"]].citation
            sets: list[Any] = [side[metric.tap] for side in (real, fake)]
            if metric.drawn and any(x.shape[1] > 1 for x in sets):
                drawn: list[Any] = [side[DRAWN] for side in (real, fake)]
                sets = [np.take_along_axis(*pair, axis=1) for pair in zip(sets, drawn, strict=True)]
                details["drawn"] = "one frame of each clip drawn by the seed"
            counts = [(x.count or 0) if isinstance(x, Statistics) else x.shape[0] * x.shape[1] for x in sets]
            compute: Callable = metric.estimate or functools.partial(suite.frechet, name, ddof=details.get("ddof", 1))
            estimates = compute(*(x if isinstance(x, Statistics) else x.reshape(-1, x.shape[-1]) for x in sets))
            resampled, real_count = (sets, counts[0]) if metric.real else ((sets[1], sets[1]), None)
            for part, estimate in estimates.items():
                interval = self._interval(estimate, resampled)
                if self._intervals and estimate.of_halves and not interval:
                    details["no_interval"] = f"less than {LEAST} clips of a set, or statistics"
                numbers = real_count, counts[1], suite.noun(metric.tap[0])
                scores.append(Score(part, estimate.value, interval, *numbers, {**details, **estimate.details}))
        return scores

    def _interval(self, estimate: Estimate, sets: Sequence[Any]) -> Interval | None:
        """From halves of clips; None for Statistics, for fewer than LEAST clips, and where intervals are left out."""
        of_halves, value = estimate.of_halves, estimate.value
        if of_halves is None:
            return estimate.interval
        if not self._intervals or any(isinstance(x, Statistics) or len(x) < LEAST for x in sets):
            return None
        dim = sets[0].shape[-1]

        # All frames of a clip are drawn or none: they are no independent examples.
        def of_clips(real: np.ndarray, fake: np.ndarray) -> float:
            return of_halves(real.reshape(-1, dim), fake.reshape(-1, dim))

        real, fake = (x.reshape(len(x), -1) for x in sets)
        resamples = 50 if min(dim, max(x.size // dim for x in sets)) <= 512 else 10  # others take seconds each
        _, low, high = frechet.confidence_interval(of_clips, real, fake, self._seed, resamples=resamples)
        margin = (high - low) / 2
        return min(value, max(value - margin, estimate.bounds[0])), max(value, min(value + margin, estimate.bounds[1]))

    def _compare(self, *pair: np.ndarray) -> dict[str, np.ndarray]:
        some = [_not_empty(side) for side in pair]
        values = {name: np.asarray(_paired(name, *some), np.float64) for name in self.of_pairs}
        return {name: value[: len(pair[0]), None] for name, value in values.items()}

    def paired_scores(self, pairs: Iterable[tuple[np.ndarray, ...]], **about: Any) -> list[Score]:
        """Means over clips of the metrics of pairs: batches uint8 [B,T,H,W,3] of originals, and of what is compared.

        Each of several processes passes its own rows, as to `features`.
        """
        batches = [processes.rows_of_all(self._compare(*pair)) for pair in pairs]
        scores = []
        for name in self.of_pairs:
            values = np.concatenate([batch[name] for batch in batches])
            mean, count = float(values.mean()), len(values)
            margin = student(0.975, count - 1) * float(values.std(ddof=1) / np.sqrt(count)) if count > 1 else None
            interval = None if margin is None else (mean - margin, mean + margin)
            details = {"citation": METRICS[name].citation, "std": float(values.std()), **about}
            scores.append(Score(name, mean, interval, count, count, "clips", details))
        return scores


def _not_empty(clips: np.ndarray) -> np.ndarray:
    """The clips, or one in place of none, as where other processes have all of a last batch."""
    return clips if len(clips) else np.zeros((1, *clips.shape[1:]), clips.dtype)


_motion = jax.jit(motion_features)


@functools.partial(jax.jit, static_argnums=0)
def _paired(name: str, real: jax.Array, fake: jax.Array) -> jax.Array:
    return PAIRED[name](fake, real, data_range=255.0)


class Saved(NamedTuple):
    """Statistics of a set of features from a file, and the metadata beside them: how they were made."""

    path: str
    statistics: Statistics
    metadata: dict[str, Any]


def read_statistics(path: str, metrics: Sequence[str]) -> Saved | None:
    """The statistics for the metrics in an .npz file of `mu` and `sigma`, None if `path` is something else.

    Raises ValueError where they cannot be used, see `frechet_tap` and `metrics.frechet.load`.
    """
    if path.endswith(".npz") and os.path.isfile(path) and {"mu", "sigma"} <= set(open_arrays(path)):
        return Saved(path, *frechet.load(path, DIMENSIONS[frechet_tap(metrics)]))
    return None


def frechet_tap(metrics: Sequence[str]) -> Tap:
    """The features of the one Frechet distance that files of statistics serve; ValueError for other metrics."""
    known = {name: tap for name in suite.FRECHET if (tap := METRICS[name].tap) in DIMENSIONS}
    if len(metrics) != 1 or (tap := known.get(metrics[0])) is None:
        asked = f"--metrics {' or '.join(known)}, not {','.join(metrics)}"
        raise ValueError(f"A file of statistics serves one Frechet distance, {asked}.")
    return tap


def score_statistics(real: Saved, fake: Saved, metric: str, protocols: Mapping[str, str]) -> Score:
    """A Frechet distance of two files. Facts that they do not record are not recorded with the score either.

    Raises ValueError where they record that their statistics were made in different ways.
    """
    tap = frechet_tap([metric])
    protocol = protocols.get(tap[0])
    facts = {"features": suite.title(tap), **({"protocol": protocol} if protocol else {})}
    ddof = PROTOCOLS[protocol].ddof if protocol else 1
    for saved in (real, fake):
        _agree(saved, facts)
        facts |= saved.metadata
    if not (real.metadata and fake.metadata):
        facts = {"features": "of files that do not record how they were made"}
    value = frechet.frechet_distance(real.statistics, fake.statistics, ddof)
    counts = real.statistics.count or 0, fake.statistics.count or 0
    return Score(metric, value, None, *counts, suite.noun(tap[0]), {**facts, "ddof": ddof, "citation": "statistics"})


def comparable(saved: Saved, facts: Mapping[str, Any]) -> Statistics:
    """The statistics, to be compared with features that these facts decide: protocol, frames, ...

    Raises ValueError where the file records that they were made in another way, or they cannot be used.
    """
    _agree(saved, facts)
    saved.statistics.covariance(facts.get("ddof", 1))
    if not saved.metadata:
        warnings.warn(f"{saved.path} does not record how it was made: it is assumed to be comparable.", stacklevel=2)
    return saved.statistics


def save_statistics(path: str, features: Any, meter: Meter, about: Mapping[str, Any]) -> None:
    """Writes the statistics of the real features [N,E,d], and how they were made, for `read_statistics`."""
    kept = ("frames", "stride", "size", "seed")
    facts = meter.details(meter.taps[0]) | {name: about[name] for name in kept if name in about}
    facts = {name: fact for name, fact in facts.items() if name not in frechet.ARRAYS}
    frechet.save(path, suite.summary(features), **facts, resolution=about["resolution"]["real"])


def _agree(saved: Saved, present: Mapping[str, Any]) -> None:
    """Raises ValueError where the file records that its statistics were made in another way."""
    for name in ("features", "protocol", "frames", "stride", "size", "dtype", "weights_sha256"):
        there, here = saved.metadata.get(name), present.get(name)
        if there is not None and here is not None and there != here:
            raise ValueError(f"{saved.path} has statistics with {name} {there}, and {here} is asked for.")
