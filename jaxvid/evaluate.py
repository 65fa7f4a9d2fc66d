"""Scores generated videos against real ones, or the newest checkpoint of a run against held-out data.

    python -m jaxvid.evaluate --real DIR_OR_STATS --fake DIR_OR_STATS --metrics fvd,motion [--output scores.json]
    python -m jaxvid.evaluate --workdir runs/vqvae --metrics psnr,ssim,fvd
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

import jaxvid
from jaxvid import checkpoint, data, measure, parallel
from jaxvid.collection import Clip, Collection, open_collection, take_clips
from jaxvid.data.pipeline import DamagedClip
from jaxvid.measure import METRICS, Meter, Score
from jaxvid.metrics import frechet
from jaxvid.metrics.frechet import Statistics
from jaxvid.metrics.protocol import PROTOCOLS, to_uint8
from jaxvid.recorder import environment, write_json
from jaxvid.writer import ProgressLine

BATCH = 16  # clips, or images, that are read at a time


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table of scores; returns 0, or 2 with one sentence on stderr."""
    options = parse(arguments)
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    try:
        scores, about = score_run(options) if options.workdir else score_sets(options)
        print(table(scores))
        if options.output:
            records = [record(score, about) for score in scores]
            write_json(Path(options.output), {"scores": records, **about, "environment": environment()})
            print(f"Written to {options.output}.")
    except (ValueError, OSError) as error:
        print(f"jaxvid: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; nothing was written.", file=sys.stderr)
        return 130
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"jaxvid: {message}; --help says what is possible.\n")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the program where it cannot work."""

    def names(text: str) -> list[str]:
        return [name for name in text.split(",") if name]

    parser = _Parser(
        prog="python -m jaxvid.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sets = "folder of videos, images or .npy files; .npy or .npz array [N,T,H,W,3] or [N,H,W,3]; or .npz statistics"
    parser.add_argument("--real", metavar="PATH", help=sets)
    parser.add_argument("--fake", metavar="PATH", help="the same, of what was generated")
    parser.add_argument("--workdir", metavar="DIR", help="the work folder of a run, instead of --real and --fake")
    parser.add_argument("--metrics", type=names, default=[], help=f"some of {','.join(METRICS)}")
    parser.add_argument("--protocol", type=names, default=[], help=f"one for each network, of {','.join(PROTOCOLS)}")
    parser.add_argument("--frames", type=int, default=16, help="of a clip (default: %(default)s)")
    parser.add_argument("--stride", type=int, default=1, help="take every stride-th frame (default: %(default)s)")
    parser.add_argument("--num", type=int, default=0, help="clips at most (default: what the protocol says)")
    parser.add_argument("--seed", type=int, default=0, help="of the clips that are taken (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the networks")
    parser.add_argument("--no_intervals", action="store_true", help="scores alone, which is much faster")
    parser.add_argument("--output", metavar="FILE", help="write the scores and all that decides them as JSON")
    parser.add_argument("--save_real", metavar="FILE", help="write the statistics of --real, for --real next time")
    options = parser.parse_args(arguments)
    if bool(options.workdir) == bool(options.real or options.fake) or bool(options.real) != bool(options.fake):
        parser.error("name --real and --fake, or else --workdir")
    for name, least in (("frames", 1), ("stride", 1), ("num", 0), ("seed", 0)):
        if getattr(options, name) < least:
            parser.error(f"--{name} is {getattr(options, name)}, expected at least {least}")
    return options


def score_sets(options: argparse.Namespace) -> tuple[list[Score], dict[str, Any]]:
    """Scores of one set of videos or images against another, and what is true of all of them.

    Raises:
      ValueError: the sets, or what is asked of them, cannot work; said before anything is computed.
      FileNotFoundError: the weights of a network are not there.
    """
    metrics, chosen = options.metrics or ["fvd"], measure.protocols(options.protocol)
    sides = {name: open_side(getattr(options, name)) for name in ("real", "fake")}
    collections = [side for side in sides.values() if isinstance(side, Collection)]
    frames = 1 if all(side.of_images for side in collections) else options.frames
    measure.check(metrics, frames)
    clips = {name: take(side, name, frames, options, chosen["i3d"]) for name, side in sides.items()}
    pairs = pair(sides, frames, options) if any(METRICS[name].tap is None for name in metrics) else []
    meter = Meter(metrics, chosen, options.dtype, options.seed, not options.no_intervals)
    about: dict[str, Any] = {name: getattr(options, name) for name in ("real", "fake", "stride", "seed")}
    about |= {"frames": frames, "resolution": list(collections[0].size) if collections else []}
    features = {}
    for name, side in sides.items():
        if isinstance(side, Statistics):
            features[name] = meter.of_statistics(side)
            continue
        measure.check_counts(metrics, name, len(clips[name]), frames)
    for name, side in sides.items():
        if isinstance(side, Collection) and meter.taps:
            batches = (np.stack(group) for group in grouped(read(clips[name], f"{name} clip")))
            features[name] = meter.features(batches)
    scores = meter.scores(features["real"], features["fake"]) if meter.taps else []
    if pairs:
        scores += measure.paired_scores(metrics, map(np.stack, grouped(read_pairs(pairs))))
    return scores, about
