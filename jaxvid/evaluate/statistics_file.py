"""Sets that are known by the statistics of their features: read from a file, compared, and written for next time."""

from __future__ import annotations

import contextlib
import sys
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxvid.evaluate import suite
from jaxvid.evaluate.meter import Meter
from jaxvid.evaluate.suite import METRICS, Score, Tap
from jaxvid.metrics import frechet
from jaxvid.metrics.protocol import PROTOCOLS

DIMENSIONS = {("i3d", "logits"): 400, ("inception", "2048"): 2048, suite.MOTION: 60}  # of the features of these


class Saved(NamedTuple):
    """Statistics of a set of features from a file, and the metadata beside them: how they were made."""

    path: str
    statistics: frechet.Statistics
    metadata: dict[str, Any]


def read(path: str) -> Saved | None:
    """The statistics in an .npz file that holds `mu` and `sigma`, None if `path` is something else.

    Raises ValueError where they cannot be used, see `metrics.frechet.load`.
    """
    if path.endswith(".npz") and zipfile.is_zipfile(path):
        with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            if {"mu.npy", "sigma.npy"} <= set(archive.namelist()):
                return Saved(path, *frechet.load(path))
    return None


def tap_of(metrics: Sequence[str]) -> Tap:
    """The features of the one Frechet distance that files of statistics serve; ValueError for other metrics."""
    known = {name: tap for name in suite.FRECHET if (tap := METRICS[name].tap) in DIMENSIONS}
    if len(metrics) != 1 or (tap := known.get(metrics[0])) is None:
        options = " or ".join(known)
        raise ValueError(
            f"A file of statistics serves one Frechet distance, --metrics {options}, not {','.join(metrics)}."
        )
    return tap


def score(real: Saved, fake: Saved, metric: str, protocols: Mapping[str, str]) -> Score:
    """A Frechet distance of two files. Facts that they do not record are not recorded with the score either.

    Raises ValueError where they record that their statistics were made in different ways.
    """
    tap = tap_of([metric])
    facts, ddof = {"features": suite.title(tap)}, 1
    if tap[0] in protocols:
        facts["protocol"] = protocols[tap[0]]
        ddof = PROTOCOLS[protocols[tap[0]]].ddof
    for saved in (real, fake):
        _agree(saved, facts)
        facts |= saved.metadata
    if not (real.metadata and fake.metadata):
        facts = {"features": "of files that do not record how they were made"}
    value = frechet.frechet_distance(real.statistics, fake.statistics, ddof)
    counts = [saved.statistics.count or 0 for saved in (real, fake)]
    details = {**facts, "ddof": ddof, "citation": "statistics"}
    return Score(metric, value, None, counts[0], counts[1], suite.noun(tap[0]), details)


def comparable(saved: Saved, tap: Tap, facts: Mapping[str, Any]) -> frechet.Statistics:
    """The statistics, to be compared with features of this tap that these facts decide: protocol, frames, ...

    Raises ValueError where the file records that they were made in another way, or they cannot be used.
    """
    _agree(saved, facts)
    if saved.statistics.mean.size != DIMENSIONS[tap]:
        dimensions = f"{saved.statistics.mean.size} dimensions, expected {DIMENSIONS[tap]}"
        raise ValueError(f"{saved.path} has statistics of {dimensions} for {' '.join(tap)}.")
    saved.statistics.covariance(facts.get("ddof", 1))
    if not saved.metadata:
        print(f"{saved.path} does not record how it was made: it is assumed to be comparable.", file=sys.stderr)
    return saved.statistics


def save(path: str, features: Any, meter: Meter, about: Mapping[str, Any]) -> None:
    """Writes the statistics of the real features [N,E,d], and how they were made, for `read`."""
    facts = meter.details(meter.taps[0]) | {name: about[name] for name in ("frames", "stride", "seed")}
    facts = {name: fact for name, fact in facts.items() if name not in frechet.ARRAYS}
    frechet.save(path, suite.summary(features), **facts, resolution=about["resolution"]["real"])


def _agree(saved: Saved, present: Mapping[str, Any]) -> None:
    """Raises ValueError where the file records that its statistics were made in another way."""
    for name in ("features", "protocol", "frames", "stride", "dtype", "weights_sha256"):
        there, here = saved.metadata.get(name), present.get(name)
        if there is not None and here is not None and there != here:
            raise ValueError(f"{saved.path} has statistics with {name} {there}, and {here} is asked for.")
