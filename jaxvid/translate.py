"""Translates videos and images of any size and length with the newest checkpoint of a run.

    python -m jaxvid.translate --workdir runs/cyclegan --input PATH --to B --output DIR

PATH is a video, an image, or a folder of either, in which numbered images are one video (unless the run was trained
on images). Every frame becomes one frame. Images come back under their own names; anything else, animations too, as
NAME.mp4, upright, each frame with its own timestamp, and with its audio. In Python:

    from jaxvid import run, translate

    trained = run.load("runs/cyclegan")
    videos = translate.translate_video(trained, videos, to="B")  # float32 [N,T,H,W,3] in [-1, 1]
"""

import argparse
import functools
import os
import sys
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxvid import parallel
from jaxvid import run as run_lib
from jaxvid.command import Parser, attempt
from jaxvid.core import TrainState, in_32_bits, normalize
from jaxvid.data.index import build_index
from jaxvid.data.paths import probe_path
from jaxvid.data.pipeline import DamagedClip
from jaxvid.data.video import VideoInfo, read_frames, resized_size
from jaxvid.files import local_path
from jaxvid.names import choice, left_out, plural
from jaxvid.pixels import to_uint8
from jaxvid.progress import counted
from jaxvid.rewrite import Write, writing_images, writing_video
from jaxvid.run import Run
from jaxvid.shapes import expect, expect_equal
from jaxvid.share import RUN, place

CHUNK = 16  # frames translated at once: most videos are longer, and share one compiled program
PIXELS = CHUNK * 256 * 256  # of a chunk: of larger frames, fewer

Translate = Callable[[np.ndarray], np.ndarray]
"""From a video [T,H,W,3], uint8 or float in [-1, 1], to its translation, float32."""


class Summary(NamedTuple):
    """What `translate_files` did."""

    files: int  # that were written
    frames: int
    skipped: list[tuple[str, str]]  # what could not be translated, and why


class Job(NamedTuple):
    """How each of several videos is translated."""

    translate: Translate
    radius: int
    chunk: int | None  # None: as `frames_at_once` says
    size: str | int  # "trained", "original", or pixels of the short side
    trained: int  # the short side that the model was trained with

    def short_side(self, info: VideoInfo) -> int:
        """Pixels of the short side that a video is translated in."""
        if self.size == "original":
            return min(info.width, info.height)
        return self.trained if self.size == "trained" else int(self.size)


@in_32_bits
def translate_video(
    run: Run, video: np.ndarray, to: str | None = None, origin: str | None = None, chunk: int | None = None
) -> np.ndarray:
    """The translation of videos in memory.

    Args:
      run: from `jaxvid.run.load`.
      video: [T,H,W,3] or [N,T,H,W,3] of any size and length, uint8 or float in [-1, 1].
      to: the domain to translate to; may be left out where there is only one.
      origin: the domain that the videos come from, to be checked.
      chunk: frames translated at once, besides those around them that they depend on; by default 16, and fewer of more
        than 256x256 pixels. The result depends on it by rounding at most.

    Returns:
      float32 of the same shape in [-1, 1].

    Raises ValueError: the model does not translate, or not to or from this domain, or the video is not as above.
    """
    translate, radius = translator(run, to, origin)
    video = np.asarray(video)
    expect("[T>=1,H>=1,W>=1,3]" if video.ndim == 4 else "[N>=1,T>=1,H>=1,W>=1,3]", video=video)
    if video.dtype != np.uint8:
        expect("[...]", float, video=video)
    height, width = video.shape[-3:-1]
    chunk = chunk or frames_at_once(height, width, radius)
    clips = [video] if video.ndim == 4 else video
    made = np.stack([np.stack(list(translated(translate, clip, radius, chunk))) for clip in clips])
    return made.reshape(video.shape)


def translator(run: Run, to: str | None = None, origin: str | None = None) -> tuple[Translate, int]:
    """A run's translation to a domain as a function, and how many frames away a frame of it depends on.

    Args: as of `translate_video`, whose ValueErrors it raises.
    """
    translation = run.method.translation
    if translation is None:
        raise ValueError(f"This model, {run.config.method}, translates no videos: expected the run of a translator.")
    if to is None:
        if len(translation.targets) > 1:
            raise ValueError(f"This model translates to {', '.join(translation.targets)}: name one of them (--to).")
        to = translation.targets[0]
    number = translation.targets.index(choice("to", to, translation.targets))
    needed = translation.origins[number]
    if origin:
        choice("from", origin, dict.fromkeys(name for name in translation.targets + translation.origins if name))
    if origin and needed and origin != needed:
        alone = f"this model translates to {to} from {needed} alone"
        raise ValueError(f'from is "{origin}", and {alone}: pass videos of {needed}, or name another target (--to).')
    program, target = _program(translation.apply), np.array([number], np.int32)

    def translate(video: np.ndarray) -> np.ndarray:
        made = program(run.state, video[None], target)
        expect_equal("[B,T,H,W,3]", video=video[None], translation=made)
        expect("[B,T,H,W,3]", float, translation=made)
        return np.asarray(made[0], np.float32)

    return translate, translation.radius


@functools.lru_cache(maxsize=4)
def _program(apply: Callable) -> Callable:
    """A `Translation.apply`, compiled, that takes uint8 as well."""

    def step(state: TrainState, video: jax.Array, target: jax.Array) -> jax.Array:
        return apply(state, normalize(video), target)

    return run_lib.compiled(step)


def frames_at_once(height: int, width: int, radius: int) -> int:
    """A chunk that fits in memory, and not so small that most of the work is for frames around it."""
    return max(1, radius, min(CHUNK, PIXELS // (height * width)))


def translated(translate: Translate, frames: Iterable[np.ndarray], radius: int, chunk: int) -> Iterator[np.ndarray]:
    """The translations [h,w,3] of a video's frames [h,w,3] in order, equal to those of the whole video at once.

    Windows of `chunk` + 2 `radius` frames (or the whole video, if it is shorter) move on by `chunk` frames, the last
    one to the end. Of each, those frames are kept whose neighbors up to `radius` away it holds, or the video lacks.
    """
    length = chunk + 2 * radius
    window: deque[np.ndarray] = deque(maxlen=length)
    count = done = 0  # frames that were read, and yielded
    for frame in frames:
        if count >= length and (count - length) % chunk == 0:
            yield from translate(np.stack(window))[done - count : length - radius]
            done = count - radius
        window.append(frame)
        count += 1
    if window:
        yield from translate(np.stack(window))[done - count :]


@in_32_bits
def translate_files(
    run: Run,
    path: str,
    output: str,
    to: str | None = None,
    origin: str | None = None,
    size: str | int = "trained",
    chunk: int | None = None,
    say: Callable[[str], None] = print,
) -> Summary:
    """Translates videos and images on the disk, frame by frame.

    Args:
      run, to, origin, chunk: as of `translate_video`.
      path: a video, an image, or a folder of either, as the documentation of this module says.
      output: the folder of the results, under the same names and sub-folders.
      size: "trained": the short side is resized to what the model was trained with; "original"; or its pixels.
      say: takes sentences about the sizes, before the work begins.

    Raises ValueError: as `translate_video`, nothing can be translated, or the results would overwrite what is read.
    """
    translate, radius = translator(run, to, origin)
    job = Job(translate, radius, chunk, size, run.config.data.resolution)
    videos, skipped = find(path, sequences=run.config.data.frames > 1)
    root = path if os.path.isdir(path) else os.path.dirname(path)
    targets = places(videos, root, output)
    check_apart(path, videos, targets, output)
    for note in _notes(job, videos, targets):
        say(note)
    total, done = sum(len(info.pts) for info in videos.values()), Counter[str]()

    def work() -> Iterator[int]:
        for name, info in videos.items():
            try:
                for _ in _translate_one(job, info, targets[name]):
                    done[name] += 1
                    yield 1
            except DamagedClip as damage:
                skipped.append((name, damage.reason))
                del done[name]

    for _ in counted(work(), total, "frame", int) if videos else ():
        pass
    if not done:
        why = f": {left_out(skipped)}" if skipped else ": it holds no video and no image"
        raise ValueError(f"Nothing in {path} can be translated{why}.")
    return Summary(sum(len(targets[name]) for name in done), done.total(), skipped)


def find(path: str, sequences: bool) -> tuple[Mapping[str, VideoInfo], list[tuple[str, str]]]:
    """The videos and images at a path by name, and (name, reason) of files that cannot be read.

    Raises DamagedClip if the path is one such file.
    """
    if not os.path.isdir(path):
        return {os.path.basename(path): probe_path(path)}, []
    index = build_index(path, sequences)
    return index.videos, list(index.skipped)


def is_images(info: VideoInfo) -> bool:
    """Whether every frame is an image of its own, which an animation is not."""
    return len(info.images) == len(info.pts)


def places(videos: Mapping[str, VideoInfo], root: str, output: str) -> dict[str, list[str]]:
    """The files that receive each of the videos, which lie below `root`: one, or as many as there are images."""
    stems = Counter(os.path.splitext(name)[0] for name, info in videos.items() if not is_images(info))
    found = {}
    for name, info in videos.items():
        stem = os.path.splitext(name)[0]
        names = [f"{stem if stems[stem] == 1 else name}.mp4"]  # a.mov and a.mkv become a.mov.mp4 and a.mkv.mp4
        if is_images(info):
            names = [os.path.relpath(image, root or ".") for image in info.images]
        found[name] = [os.path.join(output, each) for each in names]
    return found


def check_apart(path: str, videos: Mapping[str, VideoInfo], targets: Mapping[str, Sequence[str]], output: str) -> None:
    """Raises ValueError where results would overwrite what they are made of or each other, or lie in what is read."""
    if os.path.isdir(path) and Path(os.path.realpath(output)).is_relative_to(os.path.realpath(path)):
        raise ValueError(f"The output {output} lies in {path}, which is read: name a folder outside of it.")
    read = {os.path.realpath(each) for info in videos.values() for each in info.images or [info.path]}
    for each in (each for files in targets.values() for each in files):
        if os.path.realpath(each) in read:
            raise ValueError(f"{each} would be overwritten by its translation: name another folder for the output.")
    written = Counter(each for files in targets.values() for each in files)
    for each in (each for each, count in written.items() if count > 1):  # a.mov beside a.mkv, and a.mov.mp4
        names = " and ".join(name for name, files in targets.items() if each in files)
        raise ValueError(f"{each} would hold the translations of both {names}: rename one of them.")


def _translate_one(job: Job, info: VideoInfo, targets: Sequence[str]) -> Iterator[int]:
    """Translates one video to its files, and yields the timestamp of each frame that was written."""
    side, stamps = job.short_side(info), deque[int]()
    width, height = resized_size(info, side)

    def frames() -> Iterator[np.ndarray]:
        for pts, frame in read_frames(info, side):
            stamps.append(pts)
            yield frame

    writing: AbstractContextManager[Write] = (
        writing_images(targets) if is_images(info) else writing_video(targets[0], info, height, width)
    )
    chunk = job.chunk or frames_at_once(height, width, job.radius)
    with writing as write:
        for frame in translated(job.translate, frames(), job.radius, chunk):
            write(stamps[0], to_uint8(frame))
            yield stamps.popleft()


def _notes(job: Job, videos: Mapping[str, VideoInfo], targets: Mapping[str, Sequence[str]]) -> list[str]:
    """Sentences about the sizes of translations."""
    notes, sides = [], sorted({job.short_side(info) for info in videos.values()})
    if any(side != job.trained for side in sides):
        pixels, ratios = (
            " to ".join(dict.fromkeys((f"{sides[0] / unit:.4g}", f"{sides[-1] / unit:.4g}")))
            for unit in (1, job.trained)
        )
        notes.append(f"The short side is {pixels} pixels, {ratios} times the {job.trained} of the training clips.")
    sizes = {name: resized_size(info, job.short_side(info)) for name, info in videos.items() if not is_images(info)}
    odd = [name for name, (width, height) in sizes.items() if width % 2 or height % 2]
    if odd:
        notes.append(
            f"{plural(len(odd), 'video gets', 'videos get')} an odd height or width, which H.264 cannot hold: the last "
            f"row or column is repeated, as in {targets[odd[0]][0]}."
        )
    return notes


def main(words: Sequence[str] | None = None) -> int:
    """Translates files and says where they are; returns 0, or 2 with one sentence on stderr."""

    def work() -> None:
        options = parse(words)
        parallel.check_devices()
        run = run_lib.load(options.workdir)
        start = time.monotonic()
        made = translate_files(
            run, options.input, options.output, options.to, options.origin, options.size, options.chunk
        )
        seconds = time.monotonic() - start
        if made.skipped:
            warnings.warn(left_out(made.skipped), stacklevel=2)
        counts = f"{plural(made.files, 'file')}, {plural(made.frames, 'frame')}"
        print(f"Translated {counts} in {seconds:.1f} s ({made.frames / seconds:.3g} frames/s) to {options.output}")

    return attempt(work)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the program where it cannot work."""
    parser = Parser("jaxvid.translate", __doc__)
    parser.add_argument("--workdir", type=place, metavar="DIR", required=True, help=f"of a translator, {RUN}")
    parser.add_argument("--input", type=local_path, metavar="PATH", required=True, help="video, image, or folder")
    parser.add_argument("--output", type=local_path, metavar="DIR", required=True, help="receives the translations")
    parser.add_argument("--to", help="the domain to translate to; may be left out where there is only one")
    parser.add_argument("--from", dest="origin", metavar="FROM", help="the domain that the input is of, to be checked")
    parser.add_argument(
        "--size",
        type=_size,
        default="trained",
        help="short side of the translations: trained (as in training, the default), original, or a number of pixels",
    )
    parser.add_argument(
        "--chunk",
        type=int,
        help="frames translated at once: fewer need less memory (default: 16, of large frames fewer)",
    )
    options = parser.parse_args(words)
    parser.check_least(options, chunk=1)
    if not os.path.exists(options.input):
        parser.error(f"there is no {options.input}")
    parser.check_writable("output", options.output, folder=True)
    return options


def _size(text: str) -> str | int:
    if text in ("trained", "original"):
        return text
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is none of trained, original and a number of pixels")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
