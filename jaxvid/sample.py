"""Makes videos with the newest checkpoint of a run, and writes them as pictures and as an array.

python -m jaxvid.sample --workdir runs/acgan --num 16 --seed 0 --label square_left
python -m jaxvid.sample --workdir runs/gan_text --num 16 --text "a red square moves left"
python -m jaxvid.sample --workdir runs/vqvae --mode reconstruct --video PATH
python -m jaxvid.sample --workdir runs/vae --mode interpolate --video PATH --video PATH

In Python:

    from jaxvid import checkpoint, sample

    run = checkpoint.load("runs/acgan")
    videos = sample.draw(run, 16, seed=0, label="square_left")  # float32 [16,T,H,W,3] in [-1, 1]
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import ScopeParamShapeError
from ml_collections import ConfigDict

from jaxvid import checkpoint, images, parallel
from jaxvid.checkpoint import Run
from jaxvid.command import Parser, attempt, plain_logs
from jaxvid.core import Batch, TrainState
from jaxvid.data.augment import center_crop, resize_short_side
from jaxvid.data.folder import clip_indices, clip_starts, too_short
from jaxvid.data.index import IMAGE_ENDINGS, build_index
from jaxvid.data.video import VideoInfo, probe, probe_images, read_clip
from jaxvid.files import ARRAYS, load_array, replacing
from jaxvid.methods import METHODS, condition, vae_codec
from jaxvid.metrics.protocol import to_uint8
from jaxvid.models.vae import means
from jaxvid.names import choice
from jaxvid.progress import ProgressLine
from jaxvid.recorder import FPS

BATCH_SIZE = 16
PICTURED = 16  # videos in the pictures; the array holds all
PATIENCE = 3.0  # seconds before there is a line of progress
CAPTION = 48  # characters of a name in the pictures
Arrays = dict[str, np.ndarray]


def draw(
    run: Run, num: int, seed: int = 0, frames: int | None = None, batch_size: int = BATCH_SIZE, **conditions: Any
) -> np.ndarray:
    """New videos from a trained run.

    Video i depends on the run, the seed, i and its condition: not on `num`, and on `batch_size` by rounding at most.

    Args:
      run: from `checkpoint.load`.
      num: N, the number of videos.
      seed: of the noise, in [0, 2^32).
      frames: T; that of the training clips if not given. Recurrent models make any.
      batch_size: of the compiled program, which fills up the last batch and cuts it.
      **conditions: label, text, embedding, first_frames or action, as `methods.condition.from_user` takes them.

    Returns:
      float32 [N,T,H,W,3] in [-1, 1].

    Raises:
      ValueError: a number is out of range, a condition is not what the model was trained with, or the model makes no
        videos of its own, or none of so many frames.
    """
    check(num, seed, batch_size, frames)
    run, given = prepare(run, num, frames, **conditions)
    return np.concatenate(list(samples(run, given, num, seed, batch_size)))


def reconstruct(run: Run, video: np.ndarray, batch_size: int = BATCH_SIZE, **conditions: Any) -> np.ndarray:
    """What a tokenizer or a VAE makes of videos.

    Args:
      run: from `checkpoint.load`.
      video: [N,T,H,W,3] of the size of the training clips, uint8 or float in [-1, 1].
      batch_size, conditions: as of `draw`.

    Returns:
      float32 [N,T,H,W,3] in [-1, 1].

    Raises:
      ValueError: the model makes no reconstructions, or a condition is not what it was trained with.
    """
    given = condition.from_user(run.config, len(video), **conditions)
    return np.concatenate(list(reconstructions(run, video, given, batch_size)))


def check(num: int, seed: int, batch_size: int, frames: int | None) -> None:
    """Raises ValueError for a number that is out of range."""
    for name, value in {"num": num, "batch_size": batch_size, "frames": 1 if frames is None else frames}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1.")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}, expected at least 0 and below 2^32.")


def prepare(run: Run, num: int, frames: int | None, **conditions: Any) -> tuple[Run, Arrays]:
    """The run, made again for videos of so many frames, and the conditions [num, ...] of its videos.

    Raises:
      ValueError: as of `draw`; nothing has been computed or compiled yet.
    """
    trained = run.config.data.frames
    if frames not in (None, trained):
        config = run.config.copy_and_resolve_references()
        config.data.frames = frames
        try:
            run = Run(config, METHODS[config.method](config), run.state)
        except ValueError as error:
            raise ValueError(f"This model makes videos of {trained} frames, and none of {frames}: {error}") from error
    given = condition.from_user(run.config, num, **conditions)
    try:
        one = {name: value[:1] for name, value in given.items()}
        jax.eval_shape(run.method.sample, run.state, one, jax.random.key(0)[None])
    except ScopeParamShapeError as error:
        raise ValueError(f"This model makes videos of exactly {trained} frames, and none of {frames}.") from error
    return run, given


def samples(run: Run, given: Mapping[str, np.ndarray], num: int, seed: int, batch_size: int) -> Iterator[np.ndarray]:
    """The videos of `draw` in batches, from what `prepare` returns."""
    return batched(sampler(run.method.sample), run.state, given, num, seed, batch_size)


def reconstructions(
    run: Run, video: np.ndarray, given: Mapping[str, np.ndarray], batch_size: int
) -> Iterator[np.ndarray]:
    """The videos of `reconstruct` in batches."""
    batch = {"video": video, **given}
    return batched(reconstructor(run.method.eval_step), run.state, batch, len(video), 0, batch_size)


def batched(
    program: Callable, state: TrainState, batch: Mapping[str, np.ndarray], count: int, seed: int, batch_size: int
) -> Iterator[np.ndarray]:
    """`program(state, rows, key, numbers)` of `count` rows of a batch, in batches of one size; the last one is cut."""
    key = jax.random.key(seed)
    for start in range(0, count, batch_size):
        numbers = np.arange(start, start + batch_size, dtype=np.uint32)
        rows = {name: value[numbers % count] for name, value in batch.items()}
        yield np.asarray(program(state, rows, key, numbers))[: count - start]


@functools.lru_cache(maxsize=4)
def sampler(sample: Callable) -> Callable:
    """A method's `sample`, compiled, where video `number` is drawn from `fold_in(key, number)`."""

    def step(state: TrainState, batch: Batch, key: jax.Array, numbers: jax.Array) -> jax.Array:
        return sample(state, batch, jax.vmap(jax.random.fold_in, (None, 0))(key, numbers))

    return jax.jit(step, compiler_options=parallel.compiler_options())


@functools.lru_cache(maxsize=4)
def reconstructor(eval_step: Callable) -> Callable:
    """What a method's `eval_step` reconstructs, compiled; it reads no noise that would depend on the numbers."""

    def step(state: TrainState, batch: Batch, key: jax.Array, numbers: jax.Array) -> jax.Array:
        values = eval_step(state, batch, key)
        if "reconstruction" not in values:
            raise ValueError("This model makes no reconstructions: it is sampled from (--mode sample).")
        return values["reconstruction"]

    return jax.jit(step, compiler_options=parallel.compiler_options())


def read_videos(path: str, frames: int, options: ConfigDict) -> np.ndarray:
    """The first frames of one or several videos, in the pace and size of the training clips.

    Args:
      path: a video, an image, a folder of either (numbered images are one video), or an array `.npy` or `.npz`
        [T,h,w,3] or [n,T,h,w,3], uint8 or float in [-1, 1].
      frames: T of the result.
      options: `config.data`: resolution, stride and fps.

    Returns:
      uint8 [n,T,resolution,resolution,3], cut out of the middle.

    Raises:
      ValueError: there is nothing usable, or not enough frames of it.
    """
    size = options.resolution
    if path.endswith(ARRAYS):
        array = to_uint8(load_array(path), path)
        rows = array if array.ndim == 5 else array[None]
        if rows.ndim != 5 or rows.shape[-1] != 3 or not 0 < frames <= rows.shape[1]:
            raise ValueError(f"{path} is {list(array.shape)}, expected [T,h,w,3] or [n,T,h,w,3], T at least {frames}.")
        clips = [resize_short_side(row[:frames], size) for row in rows]
    else:
        clips = []
        for info in video_infos(path):
            if not len(clip_starts(info, frames, options.stride, options.fps)):
                raise ValueError(f"{info.path}: {too_short(info, frames, options.stride, options.fps)}.")
            clips.append(read_clip(info, clip_indices(info, 0, frames, options.stride, options.fps), size))
    return np.stack([center_crop({"video": clip}, size)["video"] for clip in clips])


def video_infos(path: str) -> list[VideoInfo]:
    """The videos of a folder, or the one that a file is; ValueError where there is none."""
    if not os.path.isdir(path):
        return [probe_images(path, [path]) if path.lower().endswith(IMAGE_ENDINGS) else probe(path)]
    index = build_index(path, sequences=True)
    for name, reason in index.skipped:
        warnings.warn(f"left out: {name}: {reason}", stacklevel=2)
    if not index.videos:
        raise ValueError(f"There is no readable video or image in {path}.")
    return list(index.videos.values())


class Made(NamedTuple):
    """What a mode made.

    panels: by name, uint8 [N,T,H,W,3], drawn beside each other; the last is the model's, and names the files.
    told: by name, what is to be said of each of the N.
    note: a sentence to print.
    """

    panels: Arrays
    told: dict[str, list[str]]
    note: str = ""


def new_videos(run: Run, options: argparse.Namespace) -> Made:
    """Videos drawn from noise and conditions."""
    run, given = prepare(run, options.num, options.frames, **conditions(run, options))
    videos = collected(samples(run, given, options.num, options.seed, options.batch_size), options.num)
    return Made({"sample": videos}, told(run, options, given, options.num))


def reconstructed(run: Run, options: argparse.Namespace) -> Made:
    """Given videos, and what the model makes of them."""
    video = read_videos(options.video[0], run.config.data.frames, run.config.data)
    given = condition.from_user(run.config, len(video), **conditions(run, options))
    made = collected(reconstructions(run, video, given, options.batch_size), len(video))
    return Made({"original": video, "reconstruction": made}, told(run, options, given, len(video)))


def codec_of(run: Run, options: argparse.Namespace) -> vae_codec.Codec:
    """The VAE of the run, told the same of all clips; ValueError where it is none, or is to be told more."""
    if run.config.method != "vae":
        raise ValueError(
            f"--mode {options.mode} needs a run of configs/vae.py, and this is one of {run.config.method}."
        )
    if "label" in run.config.condition.on and not options.label:
        raise ValueError("The model was trained with labels: say which class the videos show (--label).")
    given = condition.from_user(run.config, 1, **conditions(run, options))
    return vae_codec.codec(run.config, run.state, jax.tree.map(jnp.asarray, given))


def read_pairs(run: Run, options: argparse.Namespace, frames: int) -> tuple[jax.Array, jax.Array]:
    """The first frames of the videos at both paths, as many of each."""
    first, second = (read_videos(path, frames, run.config.data) for path in options.video)
    count = min(len(first), len(second))
    return jnp.asarray(first[:count]), jnp.asarray(second[:count])


def interpolated(run: Run, options: argparse.Namespace) -> Made:
    """Videos on the way from one to another."""
    codec, pair = codec_of(run, options), read_pairs(run, options, run.config.data.frames)
    first, second = (means(codec.encode(video[:1])) for video in pair)
    weights = np.linspace(0, 1, options.num)
    steps = [vae_codec.interpolate(first, second, float(weight)) for weight in weights]
    made = codec.decode(jax.tree.map(lambda *parts: jnp.concatenate(parts), *steps))
    return Made({"interpolation": images.to_uint8(made)}, {"weight": [f"{weight:.2f}" for weight in weights]})


def filled_in(run: Run, options: argparse.Namespace) -> Made:
    """Videos from one frame to another."""
    codec, (first, last) = codec_of(run, options), read_pairs(run, options, 1)
    z = vae_codec.fill_in(codec, first[:, 0], last[:, 0], options.frames or run.config.data.frames)
    return Made({"infill": images.to_uint8(codec.decode(z))}, {})


def traversed(run: Run, options: argparse.Namespace) -> Made:
    """A video under other values of one dimension of its latents: of the one that says most of it, if none is named."""
    codec = codec_of(run, options)
    video = jnp.asarray(read_videos(options.video[0], run.config.data.frames, run.config.data)[:1])
    said = {name: np.asarray(nats) for name, nats in vae_codec.information(codec, video).items()}
    name = max(said, key=lambda name: said[name].max()) if options.latent is None else options.latent
    if options.dimension is None:
        choice("--latent", name, said)
    dimension = int(said[name].argmax()) if options.dimension is None else options.dimension
    offsets = np.linspace(-3, 3, options.num)
    made = codec.decode(vae_codec.traverse(means(codec.encode(video)), name, dimension, offsets.tolist()))
    note = f"Dimension {dimension} of {name}, moved by -3 to 3."
    return Made({"traversal": images.to_uint8(made)}, {"offset": [f"{offset:+.2f}" for offset in offsets]}, note)


def swapped(run: Run, options: argparse.Namespace) -> Made:
    """What the first videos look like, moving as the second ones do."""
    codec, (content, motion) = codec_of(run, options), read_pairs(run, options, run.config.data.frames)
    z = vae_codec.swap(means(codec.encode(content)), means(codec.encode(motion)))
    return Made(
        {"content": np.asarray(content), "motion": np.asarray(motion), "swap": images.to_uint8(codec.decode(z))}, {}
    )


def compressed(run: Run, options: argparse.Namespace) -> Made:
    """Given videos, and what is left of them in a file of latents, which stays beside the pictures."""
    codec, path = codec_of(run, options), Path(options.output) / "latents.npz"
    video = read_videos(options.video[0], run.config.data.frames, run.config.data)
    path.parent.mkdir(parents=True, exist_ok=True)
    found = vae_codec.compress(codec, jnp.asarray(video), path)
    note = (
        f"{path}: {found.file_bits / found.raw_bits * 8:.4f} bits a value in the file, "
        f"{found.ideal_bits.sum() / found.raw_bits * 8:.4f} under the model's prior, 8 before; "
        f"PSNR {found.psnr.mean():.2f} dB."
    )
    return Made({"original": video, "decompressed video": images.to_uint8(vae_codec.decompress(codec, path))}, {}, note)


class Mode(NamedTuple):
    """A use of a trained run: its function, how many --video it needs, and the other options that it takes."""

    make: Callable[[Run, argparse.Namespace], Made]
    videos: int = 0
    takes: tuple[str, ...] = ()


CONDITIONS = ("label", "text", "first_frames", "actions")
MODES = {
    "sample": Mode(new_videos, 0, ("num", "seed", "frames", "batch_size", *CONDITIONS)),
    "reconstruct": Mode(reconstructed, 1, ("batch_size", *CONDITIONS)),
    "interpolate": Mode(interpolated, 2, ("num", *CONDITIONS)),
    "fill": Mode(filled_in, 2, ("frames", *CONDITIONS)),
    "traverse": Mode(traversed, 1, ("num", "latent", "dimension", *CONDITIONS)),
    "swap": Mode(swapped, 2, CONDITIONS),
    "compress": Mode(compressed, 1, CONDITIONS),
}
DEFAULTS = {"num": 16, "seed": 0, "batch_size": BATCH_SIZE}


def conditions(run: Run, options: argparse.Namespace) -> dict[str, Any]:
    """What `methods.condition.from_user` is to be given, read from the files that the options name."""
    frames = options.first_frames
    if frames:
        frames = read_videos(frames, run.config.get("condition", {}).get("first_frames", 1), run.config.data)
    action = load_array(options.actions) if options.actions else None
    return {"label": options.label, "text": options.text, "first_frames": frames, "action": action}


def told(run: Run, options: argparse.Namespace, given: Mapping[str, np.ndarray], count: int) -> dict[str, list[str]]:
    """The class and the text of each of `count` videos, where the model was told any."""
    found = {}
    if "label" in given:
        found["label"] = [run.config.condition.classes[label] for label in given["label"]]
    if options.text:
        found["text"] = [options.text[number % len(options.text)] for number in range(count)]
    return found


def collected(batches: Iterable[np.ndarray], count: int) -> np.ndarray:
    """The `count` videos of all batches as uint8, and a line that says how many are done if it takes long."""
    line, start, found, done = ProgressLine(count, unit="video"), time.monotonic(), [], 0
    with contextlib.closing(line):
        for batch in batches:
            found.append(images.to_uint8(batch))
            done += len(batch)
            if (passed := time.monotonic() - start) > PATIENCE:
                line.update(done, {}, done / passed)
    return np.concatenate(found)


def write(made: Made, output: Path, step: int) -> list[str]:
    """Writes pictures of the first videos, and all of them as an array with what was told; returns the files' names."""
    names, said = list(made.panels), list(made.told.values())
    panels = [video[:PICTURED] for video in made.panels.values()]
    stem = output / f"{names[-1]}s".replace(" ", "_")
    title = f"{' | '.join(names)}, step {step}"
    rows, labels = panels, names if len(names) > 1 else []
    if said and not labels:  # panels have names, so that each video becomes one
        rows = [video[None] for video in panels[0]]
        labels = [", ".join(words)[:CAPTION] for words in zip(*said, strict=True)][:PICTURED]
    images.write_png(stem.with_suffix(".png"), images.film_strip(rows, labels, title))
    images.write_gif(stem.with_suffix(".gif"), images.grid(panels), FPS)
    images.write_mp4(stem.with_suffix(".mp4"), images.grid(panels), FPS)
    arrays: dict[str, Any] = {name if name != names[-1] else "video": video for name, video in made.panels.items()}
    arrays |= {name: np.asarray(texts) for name, texts in made.told.items()}
    with replacing(stem.with_suffix(".npz")) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
    return [f"{stem.name}{suffix}" for suffix in (".png", ".gif", ".mp4", ".npz")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes videos and says where; returns 0, or 2 with one sentence on stderr."""
    options = parse(arguments)

    def work() -> None:
        run = checkpoint.load(options.workdir)
        made = MODES[options.mode].make(run, options)
        step = int(run.state.step)
        files = write(made, Path(options.output), step)
        count, frames, height, width, _ = list(made.panels.values())[-1].shape
        print(f"step {step} of {options.workdir}: {count} of {frames}x{height}x{width}")
        print(f"Written to {options.output}: {', '.join(files)}")
        if made.note:
            print(made.note)

    return attempt(work)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the program where it cannot work."""

    def names(text: str) -> list[str]:
        return [name for name in text.split(",") if name]

    parser = Parser(
        prog="python -m jaxvid.sample", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", metavar="DIR", required=True, help="the work folder of a run")
    parser.add_argument(
        "--mode",
        choices=MODES,
        default="sample",
        help="new videos (default), or what a tokenizer or a VAE does with given ones",
    )
    parser.add_argument("--num", type=int, help="videos (default: 16)")
    parser.add_argument("--seed", type=int, help="of the noise: video i depends on it, on i and on its condition alone")
    parser.add_argument("--frames", type=int, help="of a video (default: as in training; recurrent models make any)")
    parser.add_argument("--label", type=names, action="extend", help="classes, in turn (default: all)")
    parser.add_argument("--text", action="append", help="what is to be seen; may be repeated, taken in turn")
    parser.add_argument("--first_frames", metavar="PATH", help="video, image, folder of them, or .npy [T,H,W,3]")
    parser.add_argument("--actions", metavar="FILE", help=".npy [T,A] or [n,T,A]")
    parser.add_argument(
        "--video", metavar="PATH", action="append", help="as --first_frames; two where a mode joins two"
    )
    parser.add_argument("--latent", help="to traverse (default: the one that says most of the video)")
    parser.add_argument("--dimension", type=int, help="of it (default: the one that says most of the video)")
    parser.add_argument("--batch_size", type=int, help="made at once (default: 16)")
    parser.add_argument("--output", metavar="DIR", help="receives what is written (default: WORKDIR/generated)")
    options = parser.parse_args(arguments)
    mode = MODES[options.mode]
    for name in {name: None for each in MODES.values() for name in each.takes}:
        if getattr(options, name) is None:
            setattr(options, name, DEFAULTS.get(name))
        elif name not in mode.takes:
            parser.error(f"--{name} does not go with --mode {options.mode}")
    options.video = options.video or []
    if len(options.video) != mode.videos:
        parser.error(f"--mode {options.mode} takes {mode.videos} of --video, not {len(options.video)}")
    try:
        check(options.num, options.seed, options.batch_size, options.frames)
    except ValueError as error:
        parser.error(f"--{error}".rstrip("."))
    for path in (options.first_frames, options.actions, *options.video):
        if path and not os.path.exists(path):
            parser.error(f"there is no {path}")
    options.output = options.output or os.path.join(options.workdir, "generated")
    output = Path(options.output).absolute()
    nearest = next(folder for folder in (output, *output.parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        parser.error(f"--output {options.output} cannot be written: name another folder")
    return options


if __name__ == "__main__":
    plain_logs()
    sys.exit(main())
