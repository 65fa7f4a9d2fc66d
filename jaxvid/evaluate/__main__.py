"""Scores generated videos against real ones, or the newest checkpoint of a run against held-out data.

python -m jaxvid.evaluate --real DIR_OR_STATS --fake DIR_OR_STATS --metrics fvd,motion [--output scores.json]
python -m jaxvid.evaluate --workdir runs/vqvae --metrics psnr,ssim,fvd
python -m jaxvid.evaluate --workdir runs/acgan --classifier runs/classifier --references
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import textwrap
import time
import zipfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

import jaxvid
from jaxvid import checkpoint, data, parallel
from jaxvid.command import Parser, attempt, plain_logs
from jaxvid.evaluate import heldout, suite
from jaxvid.evaluate.clips import Clip, Collection, open_collection, read_clips, take_clips
from jaxvid.evaluate.suite import METRICS, Meter, Score
from jaxvid.files import write_json
from jaxvid.methods import classifier, condition
from jaxvid.metrics import frechet
from jaxvid.metrics.protocol import PROTOCOLS, Protocol
from jaxvid.progress import ProgressLine
from jaxvid.recorder import environment

# What a citation leaves out: too long, or true on this machine only.
LOCAL = ("real", "fake", "workdir", "data", "videos", "resolution", "first_frame")
CITED = ("protocol", "weights", "dtype", "subset_size", "splits")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table of scores; returns 0, or 2 with one sentence on stderr."""
    options = parse(arguments)

    def work() -> None:
        scores, about = score_run(options) if options.workdir else score_sets(options)
        print(table(scores))
        if options.output:
            records = [record(score, about) for score in scores]
            write_json(Path(options.output), {"scores": records, **about, "environment": environment()})
            print(f"Written to {options.output}.")

    return attempt(work)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the program where it cannot work."""

    def names(text: str) -> list[str]:
        return [name for name in text.split(",") if name]

    parser = Parser(
        prog="python -m jaxvid.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sets = "folder of videos, images or .npy files; .npy or .npz array [N,T,H,W,3] or [N,H,W,3]; or .npz statistics"
    parser.add_argument("--real", metavar="PATH", help=sets)
    parser.add_argument("--fake", metavar="PATH", help="the same, of what was generated")
    parser.add_argument("--workdir", metavar="DIR", help="the work folder of a run, instead of --real and --fake")
    parser.add_argument("--classifier", metavar="DIR", help="a run of configs/classifier.py that judges the samples")
    parser.add_argument("--references", action="store_true", help="score untrained samples and other real clips too")
    parser.add_argument("--metrics", type=names, default=[], help=f"some of {','.join(METRICS)}")
    parser.add_argument("--protocol", type=names, default=[], help=f"one for each network, of {','.join(PROTOCOLS)}")
    parser.add_argument("--frames", type=int, help="of a clip (default: 16)")
    parser.add_argument("--stride", type=int, help="take every stride-th frame (default: 1)")
    parser.add_argument("--num", type=int, default=0, help="clips at most (default: what the protocol says)")
    parser.add_argument("--seed", type=int, default=0, help="of the clips that are taken (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the networks")
    parser.add_argument("--no_intervals", action="store_true", help="leave out the intervals that take long")
    parser.add_argument("--output", metavar="FILE", help="write the scores and all that decides them as JSON")
    parser.add_argument("--save_real", metavar="FILE", help="write the statistics of --real, for --real next time")
    options = parser.parse_args(arguments)
    if bool(options.workdir) == bool(options.real or options.fake) or bool(options.real) != bool(options.fake):
        parser.error("name --real and --fake, or else --workdir")
    for name in ("frames", "stride", "save_real"):
        if options.workdir and getattr(options, name) is not None:
            parser.error(f"--{name} goes with --real and --fake; a run is evaluated on clips as it was trained on")
    for name in ("classifier", "references"):
        if getattr(options, name) and not options.workdir:
            parser.error(f"--{name} goes with --workdir")
    options.frames = 16 if options.frames is None else options.frames
    options.stride = 1 if options.stride is None else options.stride
    for name, least in (("frames", 1), ("stride", 1), ("num", 0), ("seed", 0)):
        if getattr(options, name) < least:
            parser.error(f"--{name} is {getattr(options, name)}, expected at least {least}")
    for name in ("output", "save_real"):
        if path := getattr(options, name):
            folder = Path(path).absolute().parent
            if Path(path).is_dir() or not os.access(folder, os.W_OK):
                parser.error(f"--{name} {path} cannot be written: name a file in a folder that there is")
    return options


class Saved(NamedTuple):
    """Statistics of a set of features from a file, and what the file says of them."""

    path: str
    statistics: frechet.Statistics
    metadata: dict[str, Any]


def score_sets(options: argparse.Namespace) -> tuple[list[Score], dict[str, Any]]:
    """Scores of one set of videos or images against another, and what is true of all of them.

    Raises:
      ValueError: the sets, or what is asked of them, cannot work; said before anything is computed.
      FileNotFoundError: the weights of a network are not there.
    """
    metrics, chosen = suite.named(options.metrics or ["fvd"]), suite.protocols(options.protocol)
    networks = [tap[0] for name in metrics if (tap := METRICS[name].tap)]
    videos = bool({"i3d", "motion"} & set(networks))
    sides = {name: open_side(getattr(options, name), videos) for name in ("real", "fake")}
    collections = {name: side for name, side in sides.items() if isinstance(side, Collection)}
    saved = {name: side for name, side in sides.items() if isinstance(side, Saved)}
    if len(collections) < 2 or options.save_real:
        one_frechet_distance(metrics)
    if options.save_real and "real" not in collections:
        raise ValueError(f"--save_real saves the statistics of videos or images; {options.real} holds some already.")
    if not collections:
        return [score_of_statistics(saved["real"], saved["fake"], metrics[0], chosen)], {}
    images = all(side.longest == 1 for side in collections.values())
    frames = 1 if images and not videos else options.frames
    sampling = PROTOCOLS[chosen["i3d" if "i3d" in networks else "inception"]]
    clips = {name: take(side, name, frames, options, sampling) for name, side in collections.items()}
    sizes = {name: side.size for name, side in collections.items()}
    suite.check(metrics, frames, min(sizes.values()), {name: len(c) for name, c in clips.items()})
    pairs = pair(collections, frames, options) if set(metrics) & set(suite.PAIRED) else []
    meter = Meter(metrics, chosen, options.dtype, options.seed, not options.no_intervals)
    about: dict[str, Any] = {"frames": frames, "stride": options.stride, "seed": options.seed}
    about["resolution"] = {name: f"{height}x{width}" for name, (height, width) in sizes.items()}
    about["videos"] = {name: len({clip.video.name for clip in taken}) for name, taken in clips.items()}
    about["first_frame"] = {"real": "random", "fake": "random" if sampling.random_fake else "0"} if frames > 1 else {}
    features: dict[str, Any] = {}
    for name, statistics in saved.items():
        features[name] = {meter.taps[0]: comparable(statistics, meter, about)}
        about[f"{name}_statistics"] = statistics.metadata or "made in an unknown way"
    for name, taken in clips.items() if meter.taps else ():
        features[name] = meter.features(batch for (batch,) in progress(name, taken))
    scores = meter.scores(features["real"], features["fake"]) if meter.taps else []
    if pairs:
        scores += suite.paired_scores(metrics, progress("pairs", *pairs))
    if options.save_real:
        save_statistics(options.save_real, features["real"][meter.taps[0]], meter, about)
    return scores, about | {name: getattr(options, name) for name in sides}


def score_run(options: argparse.Namespace) -> tuple[list[Score], dict[str, Any]]:
    """Scores of the newest checkpoint of a run: of its samples, and of its reconstructions if it makes any.

    Raises:
      ValueError: the run, or what is asked of it, cannot work.
      FileNotFoundError: there is no run, or the weights of a network are not there.
    """
    run = checkpoint.load(options.workdir)
    config = run.config
    source = condition.wrap(config, data.make_source(config.data, "eval"))
    judge = load_classifier(options.classifier, config, source.classes) if options.classifier else None
    metrics = metrics_of_run(options.metrics, config, judge is not None)
    clips, size = min(options.num or config.eval.examples, len(source)), [config.data.resolution] * 2
    suite.check(metrics, config.data.frames, size, {"held-out": clips})
    chosen = suite.protocols(options.protocol)
    meter = Meter(metrics, chosen, options.dtype, options.seed, not options.no_intervals, judge)
    mesh = parallel.make_mesh(jax.devices()[:1])

    def batches(first: int = 0) -> contextlib.closing[Generator[dict, None, None]]:
        found = data.eval_batches(source, config.train.batch_size, config.data.resolution, first + clips)
        return contextlib.closing(counted(found, clips, first))

    if options.references and 2 * clips > len(source):
        raise ValueError(f"--references needs twice {clips} held-out clips: give --num={len(source) // 2} or less.")
    print(f"step {int(run.state.step)} of {options.workdir}, {source.summary()}")
    scorer = heldout.Scorer(metrics, run.method, batches, mesh, meter)
    scores = scorer(run.state)
    if options.references:
        with batches() as held_out:
            batch = parallel.put_batch(next(held_out), mesh)
        untrained = parallel.make_init(run.method.init, mesh)(jax.random.key(config.train.seed), batch)
        scores += called(scorer.samples(untrained), "untrained samples")
        with batches(clips) as others:
            scores += called(scorer.real_clips(others), "other real clips")
    about = {"frames": config.data.frames, "stride": config.data.stride, "seed": options.seed}
    about |= {
        "resolution": dict.fromkeys(("real", "fake"), "x".join(map(str, size))),
        "generated": "samples (a tokenizer's are reconstructions)",
    }
    return scores, about | {"workdir": options.workdir, "step": int(run.state.step), "data": source.summary()}


def metrics_of_run(given: Sequence[str], config: ConfigDict, judged: bool) -> list[str]:
    """The metrics given, and those that a classifier adds: "asked" where samples are made from a class or text."""
    reconstructs = config.method in ("vae", "vqvae") and not judged
    metrics = given or [*(["psnr", "ssim"] if reconstructs else []), "motion"]
    conditions = set(config.get("condition", {}).get("on", ()))
    asked = ["asked"] if conditions & {"label", "text"} else []
    return suite.named([*metrics, "frechet_classifier", *asked] if judged else metrics)


def called(scores: Sequence[Score], what: str) -> list[Score]:
    """Scores of something else than a run's samples, under names that say so."""
    return [score._replace(name=f"{score.name} of {what}") for score in scores]


def load_classifier(path: str, config: ConfigDict, classes: Sequence[str]) -> suite.Classifier:
    """The classifier of a run, for samples of another run. Raises ValueError where it was trained on other clips."""
    run = checkpoint.load(path)
    if run.config.method != "classifier":
        raise ValueError(f"--classifier {path} is a run of {run.config.method}: train one with configs/classifier.py.")
    pairs = [(f"data.{name}", run.config.data[name], config.data[name]) for name in ("frames", "resolution", "stride")]
    for name, there, here in [*pairs, ("classes", *map(", ".join, (run.config.condition.classes, classes)))]:
        if there != here:
            there, here = (textwrap.shorten(str(value), 200) for value in (there, here))
            raise ValueError(f"--classifier {path} was trained with {name} {there}, and the run with {here}.")
    identity = f"a classifier of {run.config.data.name} after {int(run.state.step)} steps"
    return suite.Classifier(identity, classifier.reader(run.config, run.state))


def open_side(path: str, videos: bool) -> Saved | Collection:
    """Statistics, where the file holds `mu` and `sigma`, or a collection of videos, or of images."""
    if path.endswith(".npz") and zipfile.is_zipfile(path):
        with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            if {"mu.npy", "sigma.npy"} <= set(archive.namelist()):
                return Saved(path, *frechet.load(path))
    side = open_collection(path, sequences=videos)
    for name, reason in side.skipped:
        print(f"left out: {name}: {reason}", file=sys.stderr)
    return side


def take(side: Collection, name: str, frames: int, options: argparse.Namespace, sampling: Protocol) -> list[Clip]:
    """The clips that a protocol takes of a set."""
    if name == "real":
        count, random, repeat = sampling.real_clips, True, False
    else:
        count, random, repeat = sampling.fake_clips, sampling.random_fake, sampling.repeat_fake
    clips = take_clips(side, frames, options.stride, options.num or count, random, repeat, options.seed)
    if short := sum(video.frames < (frames - 1) * options.stride + 1 for video in side.videos):
        print(f"left out: {short} of {len(side.videos)} videos in {side.path} are too short", file=sys.stderr)
    return clips


def pair(sides: dict[str, Collection], frames: int, options: argparse.Namespace) -> list[list[Clip]]:
    """The first clip of each real and of each fake video, in the order of their names.

    Raises ValueError where one of them would have no partner.
    """
    if len(sides) < 2:
        raise ValueError("psnr and ssim compare videos with their originals: give both sets as videos.")
    (h, w), (height, width) = (side.size for side in sides.values())
    numbers = [len(side.videos) for side in sides.values()]
    if numbers[0] != numbers[1] or (h, w) != (height, width):
        found = f"{numbers[0]} of {h}x{w} and {numbers[1]} of {height}x{width}"
        raise ValueError(f"psnr and ssim compare videos one by one, in the order of their names, and found {found}.")
    sets = [take_clips(side, frames, options.stride, random=False) for side in sides.values()]
    for side, clips in zip(sides.values(), sets, strict=True):
        if side.skipped or len(clips) < len(side.videos):
            raise ValueError(
                f"psnr and ssim compare videos one by one, but some in {side.path} are too short or unreadable: "
                "take these and their partners out of both sets."
            )
    return [clips[: options.num or None] for clips in sets]


def one_frechet_distance(metrics: Sequence[str]) -> None:
    """Raises ValueError unless the metrics are one Frechet distance, as files of statistics need."""
    known = [name for name in suite.FRECHET if METRICS[name].tap in suite.DIMENSIONS]
    if len(metrics) != 1 or metrics[0] not in known:
        raise ValueError(
            f"A file of statistics serves one Frechet distance, --metrics {' or '.join(known)}, "
            f"not {','.join(metrics)}."
        )


def score_of_statistics(real: Saved, fake: Saved, metric: str, chosen: Mapping[str, str]) -> Score:
    """A Frechet distance of two files. What they do not say, the score does not say either."""
    tap = METRICS[metric].tap
    assert tap is not None
    facts = {"features": " ".join(tap) if tap != suite.MOTION else "motion"}
    if tap[0] in chosen:
        facts["protocol"] = chosen[tap[0]]
    for saved in (real, fake):
        _agree(saved, facts)
        facts |= saved.metadata
    if not (real.metadata and fake.metadata):
        facts = {"features": "of files that do not say how they were made"}
    ddof = PROTOCOLS[chosen[tap[0]]].ddof if tap[0] in chosen else 1
    value = frechet.frechet_distance(real.statistics, fake.statistics, ddof)
    counts = [saved.statistics.count or 0 for saved in (real, fake)]
    noun = "frames" if tap[0] == "inception" else "clips"
    return Score(metric, value, None, counts[0], counts[1], noun, {**facts, "ddof": ddof, "citation": "statistics"})


def comparable(saved: Saved, meter: Meter, about: Mapping[str, Any]) -> frechet.Statistics:
    """The statistics, unless their file says that they were made in another way, or they cannot be used."""
    tap = meter.taps[0]
    _agree(saved, meter.details(tap) | dict(about))
    if saved.statistics.mean.size != suite.DIMENSIONS[tap]:
        dimensions = f"{saved.statistics.mean.size} dimensions, expected {suite.DIMENSIONS[tap]}"
        raise ValueError(f"{saved.path} has statistics of {dimensions} for {' '.join(tap)}.")
    saved.statistics.covariance(meter.details(tap).get("ddof", 1))
    if not saved.metadata:
        print(f"{saved.path} does not say how it was made: it is taken to fit.", file=sys.stderr)
    return saved.statistics


def _agree(saved: Saved, present: Mapping[str, Any]) -> None:
    """Raises ValueError where the file says that its statistics were made in another way."""
    for name in ("features", "protocol", "frames", "stride", "dtype", "weights_sha256"):
        there, here = saved.metadata.get(name), present.get(name)
        if there is not None and here is not None and there != here:
            raise ValueError(f"{saved.path} has statistics with {name} {there}, and {here} is asked for.")


def save_statistics(path: str, features: Any, meter: Meter, about: Mapping[str, Any]) -> None:
    """Writes the statistics of the real features [N,E,d], and how they were made, for `open_side`."""
    facts = meter.details(meter.taps[0]) | {name: about[name] for name in ("frames", "stride", "seed")}
    facts = {name: fact for name, fact in facts.items() if name not in frechet.ARRAYS}
    frechet.save(path, suite.summary(features), **facts, resolution=about["resolution"]["real"])
    print(f"Statistics of the real set written to {path}.")


def progress(name: str, *sets: Sequence[Clip]) -> Iterator[tuple[np.ndarray, ...]]:
    """Batches of clips, and a line that says how many are done."""
    line, done, start = ProgressLine(len(sets[0]), unit=name), 0, time.monotonic()
    with contextlib.closing(line):
        line.update(0, {}, 0.0)
        for batch in read_clips(*sets):
            yield batch
            done += len(batch[0])
            line.update(done, {}, done / (time.monotonic() - start))


def counted(batches: data.Batches, clips: int, first: int = 0) -> Generator[dict, None, None]:
    """The batches, those before the `first` clip masked, and a line that says how many clips are done."""
    line, done, start, position = ProgressLine(clips, unit="clip"), 0, time.monotonic(), 0
    with contextlib.closing(line), batches:
        line.update(0, {}, 0.0)
        for batch in batches:
            mask = batch["mask"]
            batch["mask"] = mask * (position + np.arange(len(mask)) >= first)
            position += len(mask)
            yield batch
            done += int(batch["mask"].sum())
            line.update(done, {}, done / (time.monotonic() - start))


def table(scores: Sequence[Score]) -> str:
    """Scores with their intervals and numbers, one a line."""
    rows = [("metric", "value", "95 % interval", "real", "fake", "protocol")]
    for score in scores:
        interval = "{:.5g} to {:.5g}".format(*score.interval) if score.interval else "-"
        counts = [f"{n:,}" if n else "-" for n in (score.real, score.fake)]
        rows.append((score.name, f"{score.value:.5g}", interval, *counts, score.details.get("protocol", "-")))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def record(score: Score, about: Mapping[str, Any]) -> dict[str, Any]:
    """A score as JSON, with a sentence to print beside it in a paper."""
    details = dict(score.details)
    source = details.pop("citation")
    interval = " [{:.5g}, {:.5g}]".format(*score.interval) if score.interval else ""
    numbers = f"{score.fake or 'an unknown number of'} fake {score.examples}"
    if score.name.partition(" ")[0] not in ("is", "asked"):
        numbers = f"{score.real or 'an unknown number of'} real and {numbers}"
    facts = {name: details[name] for name in CITED if name in details} | dict(about)
    shown = [f"{name} {fact}" if name != "weights" else fact for name, fact in facts.items() if name not in LOCAL]
    text = f"{score.name} {score.value:.5g}{interval}: {source}; {', '.join([numbers, *shown])}"
    return {
        "metric": score.name,
        "value": score.value,
        "interval": score.interval,
        "real": score.real,
        "fake": score.fake,
        "examples": score.examples,
        **details,
        "citation": f"{text}; jaxvid {jaxvid.__version__}.",
    }


if __name__ == "__main__":
    plain_logs()
    sys.exit(main())
