"""Makes videos with the newest checkpoint of a run, and writes them as pictures and as an array.

    python -m jaxvid.sample --workdir runs/acgan --num 16 --seed 0 --label square_left
    python -m jaxvid.sample --workdir runs/gan_text --num 16 --text "a red square moves left"
    python -m jaxvid.sample --workdir runs/vqvae --mode reconstruct --video PATH
    python -m jaxvid.sample --workdir runs/vae --mode interpolate --video PATH --video PATH

In Python:

    from jaxvid import run, sample

    trained = run.load("runs/acgan")
    videos = sample.draw(trained, 16, seed=0, label="square_left")  # float32 [16,T,H,W,3] in [-1, 1]
"""

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxvid import conditions as conditions_lib
from jaxvid import config as config_lib
from jaxvid import images, parallel
from jaxvid import run as run_lib
from jaxvid.command import Parser, attempt
from jaxvid.conditions import Arrays
from jaxvid.core import find_method, in_32_bits
from jaxvid.data.paths import read_videos
from jaxvid.files import local_path, replacing
from jaxvid.pixels import to_uint8
from jaxvid.progress import counted
from jaxvid.run import Mode, Output, Run
from jaxvid.shapes import expect
from jaxvid.share import HUB, RUN, place

BATCH_SIZE = 16
PICTURED = 16  # videos in the pictures; the array holds all
CAPTION = 48  # characters of a name in the pictures


def draw(
    run: Run, num: int, seed: int = 0, frames: int | None = None, batch_size: int = BATCH_SIZE, **values: Any
) -> np.ndarray:
    """New videos from a trained run.

    Video i depends on the run, the seed, i and its condition: not on `num`, and on `batch_size` by rounding at most.

    Args:
      run: from `jaxvid.run.load`; `run.remake(run, {"sample.temperature": 0.8})` changes an option of `config.sample`.
      num: N, the number of videos.
      seed: of the noise, in [0, 2^32).
      frames: T; by default that of the training clips. Recurrent models and priors make any.
      batch_size: of the compiled program, which fills up the last batch and cuts it.
      **values: of the conditions label, attributes, text, embedding, first_frames, action or input, as
        `conditions.from_user` takes them.

    Returns:
      float32 [N,T,H,W,3] in [-1, 1].

    Raises:
      ValueError: a number is out of range, a condition is not what the model was trained with, or the model
        generates no videos, or none of so many frames.
    """
    check(num, seed, batch_size, frames)
    run = of_length(run, frames)
    conditions = conditions_lib.from_user(run.config, num, **values)
    return np.concatenate(list(run_lib.samples(run, conditions, num, seed, batch_size)))


def reconstruct(run: Run, video: np.ndarray, batch_size: int = BATCH_SIZE, **values: Any) -> np.ndarray:
    """Reconstructions of videos by a tokenizer or a VAE, or their translations.

    Args:
      run: from `jaxvid.run.load`.
      video: [N,T,H,W,3] of the size of the training clips, uint8 or float in [-1, 1].
      batch_size, values: as of `draw`.

    Returns:
      float32 [N,T,H,W,3] in [-1, 1].

    Raises ValueError: the model makes no reconstructions, or a condition is not what it was trained with.
    """
    conditions = conditions_lib.from_user(run.config, len(video), **values)
    return np.concatenate(list(reconstructions(run, video, conditions, batch_size)))


def check(num: int, seed: int, batch_size: int, frames: int | None) -> None:
    """Raises ValueError for a number that is out of range."""
    for name, value in {"num": num, "batch_size": batch_size, "frames": 1 if frames is None else frames}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1.")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}, expected at least 0 and below 2^32.")


def of_length(run: Run, frames: int | None) -> Run:
    """The run, remade for videos of so many frames. Raises ValueError where it cannot generate them."""
    trained = run.config.data.frames
    if frames in (None, trained):
        return run
    try:
        return run_lib.remake(run, {"data.frames": frames})
    except ValueError as error:
        raise ValueError(f"This model makes videos of {trained} frames, and none of {frames}: {error}") from error


def reconstructions(run: Run, video: np.ndarray, conditions: Arrays, batch_size: int) -> Iterator[np.ndarray]:
    """The videos of `reconstruct` in batches."""
    if run.method.reconstruct is None or run.method.translation:
        instead = ": it is sampled from (--mode sample)" if run.method.sample else ""
        instead = run_lib.TRANSLATES if run.method.translation else instead
        raise ValueError(f"This model makes no reconstructions{instead}.")
    program = run_lib.compiled(run.method.reconstruct)
    for numbers, count in run_lib.batches_of(len(video), batch_size):
        rows = {name: value[numbers % len(video)] for name, value in {"video": video, **conditions}.items()}
        made = program(run.state, rows)
        expect(f"[{','.join(map(str, rows['video'].shape))}]", float, reconstruction=made)
        yield np.asarray(made)[:count]


def new_videos(run: Run, arguments: argparse.Namespace) -> Output:
    """Videos drawn from noise and conditions."""
    run = of_length(run_lib.with_options(run, arguments), arguments.frames)
    values = conditions_lib.from_arguments(arguments, run.config)
    conditions = conditions_lib.from_user(run.config, arguments.num, **values)
    ends = [(0, time.monotonic())]

    def clocked() -> Iterator[np.ndarray]:
        for batch in run_lib.samples(run, conditions, arguments.num, arguments.seed, arguments.batch_size):
            ends.append((ends[-1][0] + len(batch), time.monotonic()))
            yield batch

    videos = collected(clocked(), arguments.num)
    captions = conditions_lib.captions(run.config, values, conditions)
    return Output({"sample": videos}, captions, speed(run, ends))


def speed(run: Run, ends: Sequence[tuple[int, float]]) -> str:
    """How fast videos were drawn, of which there were so many at these times in seconds, none at the first.

    The first batch, for which the program is compiled, counts only where it is the only one.
    """
    first = min(1, len(ends) - 2)
    videos, seconds = (last - begin for begin, last in zip(ends[first], ends[-1], strict=True))
    frames = videos * run.config.data.frames / max(seconds, 1e-6)
    tokens = f", {frames * run.method.tokens_per_frame:,.0f} tokens/s" if run.method.tokens_per_frame else ""
    return f"{frames:,.0f} frames/s{tokens}{'' if first else ', compilation included'}"


def reconstructed(run: Run, arguments: argparse.Namespace) -> Output:
    """Videos of the user, and their reconstructions."""
    video = read_videos(arguments.video[0], run.config.data.frames, run.config.data)
    values = conditions_lib.from_arguments(arguments, run.config)
    conditions = conditions_lib.from_user(run.config, len(video), **values)
    output = collected(reconstructions(run, video, conditions, arguments.batch_size), len(video))
    captions = conditions_lib.captions(run.config, values, conditions)
    return Output({"original": video, "reconstruction": output}, captions)


MODES = {
    "sample": Mode(new_videos, 0, ("num", "seed", "frames", "batch_size")),
    "reconstruct": Mode(reconstructed, 1, ("batch_size",)),
}
DEFAULTS = {"num": 16, "seed": 0, "batch_size": BATCH_SIZE}


def collected(batches: Iterable[np.ndarray], count: int) -> np.ndarray:
    """The `count` videos of all batches as uint8, with a line of progress if it takes long."""
    return np.concatenate([to_uint8(batch) for batch in counted(batches, count, "video", len)])


def write(made: Output, output: Path, step: int) -> list[str]:
    """Writes pictures of the first videos, and all of them as an array with captions; returns the files' names."""
    names, texts = list(made.panels), list(made.captions.values())
    panels = [video[:PICTURED] for video in made.panels.values()]
    stem = output / f"{names[-1]}s".replace(" ", "_")
    title = f"{' | '.join(names)}, step {step}"
    rows, labels = panels, names if len(names) > 1 else []
    if texts and not labels:  # panels have names, so that each video becomes one
        rows = [video[None] for video in panels[0]]
        labels = [", ".join(words)[:CAPTION] for words in zip(*texts, strict=True)][:PICTURED]
    images.write_png(stem.with_suffix(".png"), images.film_strip(rows, labels, title))
    images.write_gif(stem.with_suffix(".gif"), images.grid(panels), images.FPS)
    images.write_mp4(stem.with_suffix(".mp4"), images.grid(panels), images.FPS)
    arrays: dict[str, Any] = {name if name != names[-1] else "video": video for name, video in made.panels.items()}
    arrays |= {name: np.asarray(each) for name, each in made.captions.items()}
    with replacing(stem.with_suffix(".npz")) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
    return [f"{stem.name}{suffix}" for suffix in (".png", ".gif", ".mp4", ".npz")]


def main(words: Sequence[str] | None = None) -> int:
    """Writes videos and says where; returns 0, or 2 with one sentence on stderr."""

    def work() -> None:
        arguments, mode = parse(words)
        parallel.check_devices()
        run = run_lib.load(arguments.workdir)
        made = in_32_bits(mode.make)(run, arguments)
        if not isinstance(made, Output):
            raise ValueError(f"--mode {arguments.mode} returned {type(made).__name__}, expected jaxvid.run.Output.")
        step = int(run.state.step)
        files = write(made, Path(arguments.output), step)
        count, frames, height, width, _ = list(made.panels.values())[-1].shape
        print(f"step {step} of {arguments.workdir}: {count} of {frames}x{height}x{width}")
        print(f"Written to {arguments.output}: {', '.join(files)}")
        if made.note:
            print(made.note)

    return attempt(work)


def parse(words: Sequence[str] | None) -> tuple[argparse.Namespace, Mode]:
    """The command line of a run and its mode; ends the program where it cannot work.

    What a run takes is up to its method: the modes that its module exports, and the fields of `config.sample`.
    """
    first = Parser("jaxvid.sample", None, add_help=False)
    first.add_argument("--workdir", type=place)
    workdir = first.parse_known_args(words)[0].workdir
    config = run_lib.saved_config(workdir) if workdir else ConfigDict()
    modes = {**MODES, **modes_of(config.method)} if workdir else MODES
    parser = make_parser(modes, config)
    arguments = parser.parse_args(words)
    if arguments.mode not in modes:
        parser.error(f"the {config.method} in {workdir} has no --mode {arguments.mode}, only {', '.join(modes)}")
    mode = modes[arguments.mode]
    own = {name for each in modes.values() for name in each.options}
    sampling = set(config.get("sample", {}))
    taken = {*mode.takes, *mode.options, *(sampling if arguments.mode == "sample" else ())}
    for name in sorted({"num", "seed", "frames", "batch_size"} | own | sampling):
        if getattr(arguments, name) is None:
            setattr(arguments, name, DEFAULTS.get(name))
        elif name not in taken:
            parser.error(f"--{name} does not go with --mode {arguments.mode}")
    if len(arguments.video) != mode.videos:
        parser.error(f"--mode {arguments.mode} takes {mode.videos} of --video, not {len(arguments.video)}")
    try:
        check(arguments.num, arguments.seed, arguments.batch_size, arguments.frames)
    except ValueError as error:
        parser.error(f"--{error}".rstrip("."))
    for path in arguments.video:
        if not os.path.exists(path):
            parser.error(f"there is no {path}")
    here = "" if arguments.workdir.startswith(HUB) else arguments.workdir
    arguments.output = arguments.output or os.path.join(here, "generated")
    parser.check_writable("output", arguments.output, folder=True)
    return arguments, mode


def modes_of(method: str) -> Mapping[str, Mode]:
    """The modes that a method's module exports; ValueError where they are none."""
    modes = getattr(find_method(method), "MODES", {})
    if not isinstance(modes, Mapping) or not all(isinstance(mode, Mode) for mode in modes.values()):
        raise ValueError(f'MODES of the method "{method}" is {modes!r:.80}, expected {{name: jaxvid.run.Mode}}.')
    return modes


def make_parser(modes: Mapping[str, Mode], config: ConfigDict) -> Parser:
    """The options of all modes, of all conditions, and of `config.sample`."""
    parser = Parser("jaxvid.sample", __doc__)
    parser.add_argument("--workdir", type=place, metavar="DIR", required=True, help=RUN)
    parser.add_argument("--mode", default="sample", help=f"{', '.join(modes)}; with --workdir all those of the run")
    parser.add_argument("--num", type=int, help="videos (default: 16)")
    parser.add_argument("--seed", type=int, help="of the noise: video i depends on it, on i and on its condition alone")
    parser.add_argument(
        "--frames", type=int, help="of a video (default: as in training; recurrent ones and priors make any)"
    )
    parser.add_argument("--batch_size", type=int, help="made at once (default: 16)")
    video = "video, image, folder or array"
    parser.add_argument("--video", type=local_path, metavar="PATH", action="append", default=[], help=video)
    parser.add_argument(
        "--output",
        type=local_path,
        metavar="DIR",
        help="receives what is written (default: WORKDIR/generated; of the hub: generated)",
    )
    conditions_lib.add_arguments(parser)
    for name, value in config.get("sample", {}).items():
        form: dict[str, Any] = {"type": type(value)}
        if isinstance(value, bool):
            form = {"action": argparse.BooleanOptionalAction, "default": None}
        elif isinstance(value, tuple):
            form = {"type": type(value[0]) if value else str, "nargs": "*"}
        elif value is None:
            form = {"type": config_lib.literal}
        try:
            parser.add_argument(f"--{name}", help=f"config.sample.{name} (default: {value})", **form)
        except argparse.ArgumentError as error:
            raise ValueError(f"config.sample.{name} has the name of another option: rename the field.") from error
    for name, settings in {name: each for mode in modes.values() for name, each in mode.options.items()}.items():
        parser.add_argument(f"--{name}", **settings)
    return parser


if __name__ == "__main__":
    sys.exit(main())
