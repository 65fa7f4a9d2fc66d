"""The metrics by name: what each needs of a set of clips, and the score it makes of two, with what was measured."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxvid.metrics.frechet import Statistics, distance_of_features, frechet_distance, statistics
from jaxvid.metrics.i3d import MIN_FRAMES
from jaxvid.metrics.image import WINDOW, psnr, ssim
from jaxvid.metrics.inception_score import inception_score
from jaxvid.metrics.kid import kid, polynomial_mmd
from jaxvid.metrics.precision_recall import precision_recall
from jaxvid.metrics.protocol import PROTOCOLS
from jaxvid.names import choice

Tap = tuple[str, str]  # a network, "motion" or "classifier", and its output
Interval = tuple[float, float]
DEFAULTS = {"inception": "pytorch_fid", "i3d": "original"}  # protocols of the published networks
MOTION: Tap = ("motion", "features")
CLASSIFIER: Tap = ("classifier", "features")
CLASSES: Tap = ("classifier", "classes")
DRAWN: Tap = ("drawn", "frame")  # which one stands for its clip


class Estimate(NamedTuple):
    """A value of two sets of features, and what its 95 % interval follows from."""

    value: float
    of_halves: Callable[..., float] | None = None  # (real [n,d], fake [m,d]) -> the value of random halves of the sets
    bounds: Interval = (-np.inf, np.inf)  # what the value can be
    interval: Interval | None = None  # where it is known without halves
    details: Mapping[str, Any] = {}  # what else decides the value


def summary(features: np.ndarray | Statistics) -> Statistics:
    """The statistics of features [..., d]."""
    return features if isinstance(features, Statistics) else statistics(features.reshape(-1, features.shape[-1]))


def frechet(name: str, real: Any, fake: Any, ddof: int) -> dict[str, Estimate]:
    """Of features [N,d] and [M,d], or of their Statistics."""
    value = frechet_distance(summary(real), summary(fake), ddof)
    return {name: Estimate(value, functools.partial(distance_of_features, ddof=ddof), (0, np.inf))}


def _kvd(real: np.ndarray, fake: np.ndarray) -> dict[str, Estimate]:
    return {"kvd": Estimate(polynomial_mmd(real, fake), polynomial_mmd)}


def _kid(real: np.ndarray, fake: np.ndarray) -> dict[str, Estimate]:
    size = min(1000, len(real), len(fake))
    if len(real) == len(fake) == size:  # every subset would be the whole
        return {"kid": Estimate(polynomial_mmd(real, fake), polynomial_mmd, details={"subset_size": size})}
    value, spread = kid(real, fake, subset_size=size)
    return {"kid": Estimate(value, polynomial_mmd, details={"subset_size": size, "std_over_subsets": spread})}


def _is(_: np.ndarray, fake: np.ndarray) -> dict[str, Estimate]:
    splits = min(10, len(fake))
    value, spread = inception_score(fake, splits)

    def of_halves(_: np.ndarray, half: np.ndarray) -> float:
        return inception_score(half, min(splits, len(half)))[0]

    return {"is": Estimate(value, of_halves, (1, np.inf), details={"splits": splits, "std_over_splits": spread})}


def _pr(real: np.ndarray, fake: np.ndarray) -> dict[str, Estimate]:
    def estimate(part: int) -> Estimate:
        return Estimate(values[part], lambda *halves: precision_recall(*halves)[part], (0, 1))

    values = precision_recall(real, fake)
    return {"precision": estimate(0), "recall": estimate(1)}


def _asked(asked: np.ndarray, predicted: np.ndarray) -> dict[str, Estimate]:
    """Of classes int [N,1]. The interval is Wilson's (1927), which is no point where all or none are hits."""
    count, hits = len(asked), int((asked == predicted).sum())
    center, square = hits + 1.96**2 / 2, hits * (1 - hits / count) + 1.96**2 / 4
    low, high = (float(center + sign * 1.96 * np.sqrt(square)) / (count + 1.96**2) for sign in (-1, 1))
    value = hits / count
    return {"asked": Estimate(value, interval=(min(value, max(low, 0.0)), max(value, min(high, 1.0))))}


class Metric(NamedTuple):
    """What a metric needs, and how it is computed."""

    tap: Tap | None  # of the features; None for pairs of clips
    examples: int  # at least so many of each set
    citation: str  # "" for the protocol's
    # (real [N,d], fake [M,d]) -> estimates by name; None for a Frechet distance, and for pairs
    estimate: Callable[[np.ndarray, np.ndarray], dict[str, Estimate]] | None = None
    real: bool = True  # whether the real set plays a part
    drawn: bool = False  # of one frame of each clip: neighbors and pairs within a clip are no independent examples


METRICS = {
    "fvd": Metric(("i3d", "logits"), 2, ""),
    "kvd": Metric(("i3d", "logits"), 2, "KVD (Unterthiner et al. 2018)", _kvd),
    "fid": Metric(("inception", "2048"), 2, ""),
    "kid": Metric(("inception", "2048"), 2, "KID (Binkowski et al. 2018)", _kid, drawn=True),
    "is": Metric(("inception", "logits_unbiased"), 1, "Inception Score (Salimans et al. 2016)", _is, real=False),
    "pr": Metric(("inception", "2048"), 4, "improved precision and recall (Kynkaanniemi et al. 2019)", _pr, drawn=True),
    "motion": Metric(MOTION, 2, "Frechet motion distance (jaxvid.metrics.motion)"),
    "frechet_classifier": Metric(CLASSIFIER, 2, "Frechet distance of a classifier's features"),
    "asked": Metric(CLASSES, 1, "share that a classifier assigns to the asked class", _asked, real=False),
    "psnr": Metric(None, 1, "PSNR of whole clips"),
    "ssim": Metric(None, 1, "SSIM (Wang et al. 2004)"),
}
PAIRED: dict[str, Callable[..., jax.Array]] = {"psnr": psnr, "ssim": ssim}
FRECHET = tuple(name for name, metric in METRICS.items() if metric.tap and not metric.estimate)


class Score(NamedTuple):
    """A number and what it is of."""

    name: str  # such as "fvd" or "precision"
    value: float
    interval: Interval | None  # 95 % confidence
    real: int | None  # examples; 0 where statistics do not record it, None where the set plays no part
    fake: int
    examples: str  # "clips" or "frames"
    details: dict[str, Any]  # what else decides the value


def named(metrics: Sequence[str]) -> list[str]:
    """The metrics' names, in any case, each once. Raises ValueError for an unknown one."""
    return list(dict.fromkeys(choice("a metric", name.lower(), METRICS) for name in metrics))


def protocols(names: Sequence[str]) -> dict[str, str]:
    """The protocol's name for each network: one of the names, in any case, else the default.

    Raises ValueError for an unknown one, and for two of one network.
    """
    found: dict[str, str] = {}
    for name in map(str.lower, names):
        network = PROTOCOLS[choice("a protocol", name, PROTOCOLS)].network
        if found.setdefault(network, name) != name:
            raise ValueError(f"{found[network]} and {name} are both protocols of {network}: give one at a time.")
    return DEFAULTS | found


def check(
    metrics: Sequence[str], frames: int, size: Sequence[int], examples: Mapping[str, int], truth: bool = True
) -> None:
    """Raises ValueError, before anything is computed, for metrics that cannot work.

    Clips have so many frames of size (height, width); `examples` is the number of clips in each set by its name; and
    `truth` tells whether it is known what the metrics of pairs compare with.
    """
    for name in metrics:
        metric = METRICS[name]
        network = metric.tap[0] if metric.tap else ""
        needed = {"i3d": MIN_FRAMES, "motion": 2}.get(network, 1)
        if frames < needed:
            shorter = ": motion and fid do with fewer" if network == "i3d" and frames > 1 else ""
            raise ValueError(f"{name} needs clips of at least {needed} frames, not {frames}{shorter}.")
        if name in PAIRED and not truth:
            raise ValueError(f"{name} compares translations with true ones, which these data lack: leave it out.")
        if name == "ssim" and min(size) < WINDOW:
            raise ValueError(f"ssim needs frames of at least {WINDOW}x{WINDOW} pixels, not {size[0]}x{size[1]}.")
        for side, clips in examples.items():
            count = clips * frames if network == "inception" and not metric.drawn else clips
            if count < metric.examples:
                needed_examples = f"{metric.examples} {'clips' if metric.drawn else noun(network)}"
                raise ValueError(f"{name} needs at least {needed_examples}; the {side} set has {count}.")


def noun(network: str) -> str:
    """What a network's examples are."""
    return "frames" if network == "inception" else "clips"


def title(tap: Tap) -> str:
    """The name of features in scores and in files of statistics."""
    return " ".join(tap) if tap[0] in DEFAULTS else tap[0]
