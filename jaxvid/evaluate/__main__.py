"""Scores generated videos against real ones, or the newest checkpoint of a run against held-out data.

python -m jaxvid.evaluate --real DIR_OR_STATS --fake DIR_OR_STATS --metrics fvd,motion [--output scores.json]
python -m jaxvid.evaluate --workdir runs/vqvae --metrics psnr,ssim,fvd
python -m jaxvid.evaluate --workdir runs/acgan --classifier runs/classifier --references
"""

import argparse
import contextlib
import json
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxvid import conditions, core, data, parallel
from jaxvid import run as run_lib
from jaxvid.command import Parser, attempt, names
from jaxvid.evaluate import citation, heldout, meter, suite
from jaxvid.evaluate.clips import Clip, Collection, open_collection, read_clips, take_clips
from jaxvid.evaluate.suite import METRICS, Score
from jaxvid.files import local_path, write_json
from jaxvid.metrics.protocol import PROTOCOLS
from jaxvid.progress import counted
from jaxvid.report import environment
from jaxvid.run import Run
from jaxvid.share import RUN, located, place


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table of scores; returns 0, or 2 with one sentence on stderr."""
    options = parse(arguments)

    def work() -> None:
        parallel.check_devices()
        scores, about = core.in_32_bits(score_run if options.workdir else score_sets)(options)
        print(citation.tables(scores, about.get("heldout", {})))
        if options.output:
            records = [citation.record(score, about) for score in scores]
            text = json.dumps({"scores": records, **about, "environment": environment()})
            # JSON has no NaN and no infinity: they become null.
            write_json(Path(options.output), json.loads(text, parse_constant=lambda constant: None))
            print(f"Written to {options.output}.")

    return attempt(work)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the program where it cannot work."""
    parser = Parser("jaxvid.evaluate", __doc__)
    sets = "folder of videos, images or .npy files; .npy or .npz array [N,T,H,W,3] or [N,H,W,3]; or .npz statistics"
    parser.add_argument("--real", type=local_path, metavar="PATH", help=sets)
    parser.add_argument("--fake", type=local_path, metavar="PATH", help="the same, of what was generated")
    parser.add_argument("--workdir", type=place, metavar="DIR", help=f"{RUN}; instead of --real and --fake")
    parser.add_argument("--path", type=local_path, metavar="PATH", help="where the data of the run lie now")
    parser.add_argument(
        "--classifier", type=place, metavar="DIR", help="a run of the recipe classifier that judges the samples"
    )
    parser.add_argument("--references", action="store_true", help="score untrained samples and other real clips too")
    of_runs = "of a run psnr and ssim where the truth is known, and motion"
    parser.add_argument(
        "--metrics", type=names, default=[], help=f"some of {', '.join(METRICS)} (default: fvd; {of_runs})"
    )
    parser.add_argument("--protocol", type=names, default=[], help=f"the program to follow: {_protocols()}")
    parser.add_argument("--frames", type=int, help="of a clip (default: 16; of a run: as in training)")
    parser.add_argument("--stride", type=int, help="take every stride-th frame (default: 1)")
    parser.add_argument("--size", type=int, help="resize and crop to SIZE x SIZE pixels as for training (default: not)")
    parser.add_argument("--num", type=int, default=0, help="clips at most (default: as many as the protocol takes)")
    parser.add_argument("--seed", type=int, default=0, help="of the clips that are taken (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the networks")
    parser.add_argument("--no_intervals", action="store_true", help="leave out the intervals that take long")
    parser.add_argument(
        "--output", type=local_path, metavar="FILE", help="write the scores and all that decides them as JSON"
    )
    parser.add_argument(
        "--save_real", type=local_path, metavar="FILE", help="write the statistics of --real, for --real next time"
    )
    options = parser.parse_args(arguments)
    if bool(options.workdir) == bool(options.real or options.fake) or bool(options.real) != bool(options.fake):
        parser.error("name --real and --fake, or else --workdir")
    for name in ("frames", "stride", "size", "save_real") if options.workdir else ("path", "classifier", "references"):
        if getattr(options, name):
            parser.error(f"--{name} goes with {'--real and --fake' if options.workdir else '--workdir'}")
    parser.check_least(options, frames=1, stride=1, size=1, num=0, seed=0)
    options.frames, options.stride = options.frames or 16, options.stride or 1
    for name in ("output", "save_real"):
        if path := getattr(options, name):
            parser.check_writable(name, path)
    return options


def _protocols() -> str:
    """The protocols of each network, and its default, in words."""
    uses = {"i3d": "fvd and kvd", "inception": "fid, kid, is and pr"}
    known = {network: [name for name in PROTOCOLS if PROTOCOLS[name].network == network] for network in uses}
    default = suite.DEFAULTS
    return "; ".join(f"for {uses[n]} one of {', '.join(known[n])} (default: {default[n]})" for n in uses)


def score_sets(options: argparse.Namespace) -> tuple[list[Score], dict[str, Any]]:
    """Scores of one set of videos or images against another, and what is true of all of them.

    Raises ValueError, before anything is computed, where the sets or what is asked of them cannot work, and
    FileNotFoundError where the weights of a network are missing.
    """
    metrics, protocols = suite.named(options.metrics or ["fvd"]), suite.protocols(options.protocol)
    networks = {tap[0] for name in metrics if (tap := METRICS[name].tap)}
    videos = bool({"i3d", "motion"} & networks)
    paths = {"real": options.real, "fake": options.fake}
    saved = {name: found for name, path in paths.items() if (found := meter.read_statistics(path, metrics))}
    # clean-fid resizes each image by itself; other programs take images of one size.
    mixed = networks == {"inception"} and protocols["inception"] == "clean" and not set(metrics) & set(suite.PAIRED)
    collections = {
        name: open_collection(path, videos, options.size, mixed) for name, path in paths.items() if name not in saved
    }
    if options.save_real:
        meter.frechet_tap(metrics)
    if options.save_real and "real" in saved:
        raise ValueError(f"--save_real saves the statistics of videos or images; {options.real} holds some already.")
    if not collections:
        return [meter.score_statistics(saved["real"], saved["fake"], metrics[0], protocols)], {}
    frames = options.frames if videos or any(side.longest > 1 for side in collections.values()) else 1
    sampling = PROTOCOLS[protocols["i3d" if "i3d" in networks else "inception"]]
    rules = {"real": (True, False), "fake": (sampling.random_fake, sampling.repeat_fake)}
    counts = {"real": options.num or sampling.real_clips, "fake": options.num or sampling.fake_clips}
    clips = {
        name: take_clips(side, frames, options.stride, counts[name], *rules[name], options.seed)
        for name, side in collections.items()
    }
    least = min(size for side in collections.values() for size in side.sizes)
    suite.check(metrics, frames, least, {name: len(taken) for name, taken in clips.items()})
    pairs = pair(collections, frames, options) if set(metrics) & set(suite.PAIRED) else []
    measure = meter.Meter(metrics, protocols, options.dtype, options.seed, not options.no_intervals)
    about: dict[str, Any] = {"frames": frames, "stride": options.stride, "seed": options.seed}
    about |= {"size": options.size} if options.size else {}
    about["resolution"] = {name: side.resolution for name, side in collections.items()}
    about["videos"] = {name: len({clip.video.name for clip in taken}) for name, taken in clips.items()}
    about["first_frame"] = {"real": "random", "fake": "random" if sampling.random_fake else "0"} if frames > 1 else {}
    features: dict[str, Any] = {}
    for name, found in saved.items():
        (tap,) = measure.taps
        features[name] = {tap: meter.comparable(found, measure.details(tap) | about)}
        about[f"{name}_statistics"] = found.metadata or "made in an unknown way"
    for name, taken in clips.items() if measure.taps else ():
        features[name] = measure.features(batch for (batch,) in read_clips(taken, unit=name))
    scores = measure.scores(features["real"], features["fake"]) if measure.taps else []
    if pairs:
        scores += measure.paired_scores(read_clips(*pairs, unit="pairs"))
    if options.save_real:
        meter.save_statistics(options.save_real, features["real"][measure.taps[0]], measure, about)
        print(f"Statistics of the real set written to {options.save_real}.")
    return scores, about | paths


def pair(sides: dict[str, Collection], frames: int, options: argparse.Namespace) -> list[list[Clip]]:
    """The first clip of each real and of each fake video, in the order of their names.

    Raises ValueError where one of them would have no partner.
    """
    real, fake = (f"{len(side.videos)} of {side.resolution}" for side in sides.values())
    rule = "psnr and ssim compare videos one by one, in the order of their names"
    if real != fake:
        raise ValueError(f"{rule}, and found {real} and {fake}.")
    sets = [take_clips(side, frames, options.stride, random=False) for side in sides.values()]
    for side, clips in zip(sides.values(), sets, strict=True):
        if side.skipped or len(clips) < len(side.videos):
            found = f"some in {side.path} are too short or unreadable"
            raise ValueError(f"{rule}, but {found}: take these and their partners out of both sets.")
    return [clips[: options.num or None] for clips in sets]


def score_run(options: argparse.Namespace) -> tuple[list[Score], dict[str, Any]]:
    """Scores of the videos that the newest checkpoint of a run makes, and what is true of all of them.

    Under "heldout" these are the means of what its method's `eval_step` measures. Raises as `score_sets`, and
    FileNotFoundError where there is no run.
    """
    run = run_lib.load(options.workdir)
    run = run_lib.remake(run, {"data.path": options.path} if options.path else {})
    config, method, mesh = run.config, run.method, parallel.local_mesh(run.config.train.batch_size)
    if config.data.path and not os.path.exists(os.path.expanduser(config.data.path)):
        raise FileNotFoundError(f"data.path is {config.data.path}, and nothing is there: name where it is with --path.")
    state = jax.device_put(run.state, parallel.replicated(mesh))
    source = conditions.wrap(config, data.make_source(config.data, "eval"))
    run_lib.check_data(located(options.workdir), config, run_lib.account(config.data, {"eval": source}))
    judge = load_classifier(options.classifier, config, source.classes) if options.classifier else None
    truth = heldout.has_truth(method, source)
    metrics = metrics_of_run(options.metrics, run, judge is not None, truth)
    clips, size = min(options.num or config.eval.examples, len(source)), [config.data.resolution] * 2
    suite.check(metrics, config.data.frames, size, {"held-out": clips}, truth)
    if options.references and 2 * clips > len(source):
        raise ValueError(f"--references needs twice {clips} held-out clips: give --num={len(source) // 2} or less.")
    protocols = suite.protocols(options.protocol)
    measure = meter.Meter(metrics, protocols, options.dtype, options.seed, not options.no_intervals, judge)
    if options.references and not measure.of_sets:
        raise ValueError("--references scores videos by a metric of sets, such as motion, and here there is none.")

    @contextlib.contextmanager
    def batches(first: int = 0) -> Iterator[Iterator[dict]]:
        """The held-out clips from the `first` on; those before it are masked as padding is."""
        rows = config.train.batch_size
        with data.eval_batches(source, rows, config.data.resolution, first + clips) as found:
            later = ((index * rows + np.arange(rows) >= first, batch) for index, batch in enumerate(found))
            masked = ({**batch, "mask": batch["mask"] * kept} for kept, batch in later)
            with contextlib.closing(counted(masked, clips, "clip", lambda batch: int(batch["mask"].sum()))) as line:
                yield line

    scorer, step = heldout.Scorer(measure, method, batches, mesh), int(run.state.step)
    print(f"step {step} of {options.workdir}, {source.summary()}")
    with batches() as held_out:
        means = heldout.evaluate(heldout.make_eval(method.eval_step, mesh), state, held_out, mesh).scalars
    scores = scorer(state)
    if options.references:
        with batches() as held_out:
            batch = parallel.put_batch(next(held_out), mesh)
        untrained = parallel.make_init(method.init, mesh)(jax.random.key(config.train.seed), batch)
        with batches(clips) as others:
            scores += scorer.references(untrained, others)
    about = {"frames": config.data.frames, "stride": config.data.stride, "seed": options.seed, "step": step}
    about["resolution"] = dict.fromkeys(("real", "fake"), "x".join(map(str, size)))
    return scores, {"heldout": means, **about, "workdir": options.workdir, "data": source.summary()}


def metrics_of_run(requested: Sequence[str], run: Run, judged: bool, truth: bool = True) -> list[str]:
    """The metrics requested, or those of what the method makes, and those of a classifier, if one judges.

    Those of pairs are left out where the data hold no `truth` to compare with.
    """
    reconstructs = run.method.reconstruct is not None
    of_pairs = ["psnr", "ssim"] if reconstructs and truth and not judged else []
    moving = run.config.data.frames > 1 and (reconstructs or run.method.sample)
    metrics = requested or [*of_pairs, *(["motion"] if moving else [])]
    asked = ["asked"] if {"label", "text"} & set(run.config.get("condition", {}).get("on", ())) else []
    return suite.named([*metrics, "frechet_classifier", *asked] if judged else metrics)


def load_classifier(path: str, config: ConfigDict, classes: Sequence[str]) -> meter.Network:
    """The classifier of a run, for samples of another run. Raises ValueError where it was trained on other clips."""
    run = run_lib.load(path)
    reader = getattr(core.find_method(run.config.method), "reader", None)
    if reader is None:
        raise ValueError(f"--classifier {path} is a run of {run.config.method}: train one of the recipe classifier.")
    pairs = [(f"data.{name}", run.config.data[name], config.data[name]) for name in ("frames", "resolution", "stride")]
    for name, there, here in [*pairs, ("classes", *map(", ".join, (run.config.condition.classes, classes)))]:
        if there != here:
            there, here = (textwrap.shorten(str(value), 200) for value in (there, here))
            raise ValueError(f"--classifier {path} was trained with {name} {there}, and the run with {here}.")
    identity = f"a classifier of {run.config.data.name} after {int(run.state.step)} steps"
    return meter.of_classifier(identity, reader(run.config, run.state))


if __name__ == "__main__":
    sys.exit(main())
