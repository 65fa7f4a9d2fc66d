"""Collections of videos to be evaluated: folders of videos, images or arrays, and `.npy` or `.npz` files.

Nothing is resized or cropped here unless a size is given: each metric prepares the pixels in its own way. What is not
used is not read.
"""

import functools
import itertools
import os
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxvid.data.augment import center_crop, resize_short_side
from jaxvid.data.index import build_index, natural
from jaxvid.data.pipeline import DamagedClip
from jaxvid.data.video import VideoInfo, read_clip
from jaxvid.files import ARRAYS, StoredArray, open_array
from jaxvid.names import show
from jaxvid.pixels import check_range, to_uint8
from jaxvid.progress import counted


class Video(NamedTuple):
    """One video of a collection; an image is a video of one frame."""

    name: str  # unique in the collection
    fingerprint: int  # of its content, whatever it is called
    frames: int
    size: tuple[int, int]  # (height, width) in pixels
    # frame numbers [T], ascending -> uint8 [T,height,width,3]; raises DamagedClip for a damaged file
    read: Callable[[np.ndarray], np.ndarray]


class Collection(NamedTuple):
    """Videos in the natural order of their names, and what was left out, as (name, reason)."""

    path: str
    videos: list[Video]
    skipped: list[tuple[str, str]]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of the videos, the most frequent first."""
        return [size for size, _ in Counter(video.size for video in self.videos).most_common()]

    @property
    def resolution(self) -> str:
        """The size of every video as "16x20", or how many sizes there are."""
        return "{}x{}".format(*self.sizes[0]) if len(self.sizes) == 1 else f"{len(self.sizes)} sizes"

    @property
    def longest(self) -> int:
        """Frames of the longest video; 1 where all are images."""
        return max(video.frames for video in self.videos)


class Clip(NamedTuple):
    """Frames `indices` [T] of a video."""

    video: Video
    indices: np.ndarray


def open_collection(
    path: str | Path, sequences: bool = True, size: int | None = None, mixed: bool = False
) -> Collection:
    """Lists the videos of a folder (videos, images, or `.npy` files) or of an array file (`.npy`, `.npz`).

    Arrays are [N,T,H,W,3] or [N,H,W,3] (in a folder, each file [T,H,W,3] or [H,W,3]); 1 channel is repeated. They hold
    uint8, or floats in [-1, 1], which are rounded to uint8. A folder that holds only numbered images is one video if
    `sequences`; otherwise each image stands for itself. What is left out is warned of.

    With a `size` videos are resized and cropped to [size, size] as for training; `mixed` sizes pass if asked for.

    Raises ValueError for nothing usable, for videos of several sizes, and for arrays of another shape, type or range.
    """
    path = str(path)
    if os.path.isfile(path) and path.endswith(ARRAYS):
        name, array = os.path.basename(path), open_array(path)
        if len(array.shape) not in (4, 5):
            raise ValueError(f"{name} is {list(array.shape)}, expected videos [N,T,H,W,3] or images [N,H,W,3].")
        rows = {f"{name}[{number}]": (number,) for number in range(array.shape[0])}
        collection = Collection(path, _of_array(name, array, rows, size), [])
    elif os.path.isdir(path):
        collection = Collection(path, *_files(path, sequences, size))
    elif os.path.exists(path):
        raise ValueError(f"{path} is neither a folder nor a .npy or .npz file: put videos or images into a folder.")
    else:
        raise ValueError(f"{path} does not exist.")
    skipped = [f"{show(name)}: {reason}" for name, reason in collection.skipped]
    if not collection.videos:
        why = "; ".join(skipped[:3])
        raise ValueError(f"There is no readable video, image or array in {path}{f' ({why})' if why else ''}.")
    sizes = Counter(video.size for video in collection.videos)
    if len(sizes) > 1 and not mixed:
        found = ", ".join(f"{number:,} of {height}x{width}" for (height, width), number in sizes.most_common(4))
        ways = "--size=64, say, resizes and crops all as for training, and FID by --protocol=clean takes any"
        raise ValueError(f"{path} holds several sizes ({found}): {ways}.")
    for sentence in skipped:
        warnings.warn(f"left out: {sentence}", stacklevel=2)
    return collection


def take_clips(
    collection: Collection,
    frames: int,
    stride: int = 1,
    count: int = 0,
    random: bool = True,
    repeat: bool = False,
    seed: int = 0,
) -> list[Clip]:
    """One clip of `frames` frames, every stride-th, of each video that is long enough; ValueError where none is.

    What is taken of a video depends on its content and the seed: not on its name, the other videos or their order.
    Videos that are too short are warned of.

    Args:
      count: how many clips at most, of videos chosen by the seed; 0 for one of each.
      random: begin at a random frame of each video; else with the first.
      repeat: take further clips of the same videos until there are `count`.
    """
    needed = (frames - 1) * stride + 1
    videos = [video for video in collection.videos if video.frames >= needed]
    if not videos:
        wanted = f"the {needed} frames that clips of {frames} at stride {stride} need"
        found = f"the longest has {collection.longest}: give --frames={(collection.longest - 1) // stride + 1} or less"
        raise ValueError(f"No video in {collection.path} has {wanted}; {found}.")
    if short := len(collection.videos) - len(videos):
        left_out = f"left out: {short} of {len(collection.videos)} videos in {collection.path} are too short"
        warnings.warn(left_out, stacklevel=1)

    def draw(video: Video, purpose: int) -> float:
        return np.random.default_rng([seed, video.fingerprint, purpose]).random()

    if 0 < count < len(videos):
        chosen = {video.name for video in sorted(videos, key=lambda video: draw(video, 0))[:count]}
        videos = [video for video in videos if video.name in chosen]
    rounds = -(-count // len(videos)) if repeat else 1
    clips = []
    for purpose, video in itertools.product(range(1, rounds + 1), videos):
        start = int(draw(video, purpose) * (video.frames - needed + 1)) if random else 0
        clips.append(Clip(video, start + stride * np.arange(frames)))
    return clips[: max(count, len(videos))]


def read_clips(*sets: Sequence[Clip], unit: str = "clip", batch: int = 8) -> Iterator[tuple[np.ndarray, ...]]:
    """Batches uint8 [B,T,H,W,3] of one or more equally long lists of clips side by side, and a line of progress.

    Of mixed sizes, the small ones come first, and a batch is of one size. A clip that turns out to be damaged is warned
    of and left out, and so are those beside it.
    """

    def readable() -> Iterator[list[np.ndarray]]:
        for clips in zip(*(sorted(clips, key=lambda clip: clip.video.size) for clips in sets), strict=True):
            try:
                yield [clip.video.read(clip.indices) for clip in clips]
            except DamagedClip as error:
                warnings.warn(f"left out: {error}", stacklevel=2)

    def batches() -> Iterator[list[list[np.ndarray]]]:
        for _, rows in itertools.groupby(readable(), lambda row: row[0].shape):
            yield from iter(functools.partial(_first, rows, batch), [])

    for taken in counted(batches(), len(sets[0]), unit, len):
        yield tuple(map(np.stack, zip(*taken, strict=True)))


def _first(rows: Iterator[list[np.ndarray]], count: int) -> list[list[np.ndarray]]:
    return list(itertools.islice(rows, count))


def _files(root: str, sequences: bool, size: int | None) -> tuple[list[Video], list[tuple[str, str]]]:
    """The videos below a folder, or, if it holds arrays, one video for each of those."""
    arrays = sorted((p for p in Path(root).rglob("*.npy") if p.is_file()), key=lambda p: natural(p.as_posix()))
    index = build_index(root, sequences)
    if arrays and index.videos:
        raise ValueError(f"{root} holds .npy files and videos or images: put them into folders of their own.")
    if arrays:
        whole = {path.relative_to(root).as_posix(): open_array(str(path)) for path in arrays}
        return [video for name, array in whole.items() for video in _of_array(name, array, {name: ()}, size)], []
    videos = []
    for name, info in index.videos.items():
        stored = info.height, info.width
        read = functools.partial(_read_file, info, size=size)
        videos.append(Video(name, _fingerprint(info), len(info.pts), (size, size) if size else stored, read))
    return videos, index.skipped


def _read_file(info: VideoInfo, indices: np.ndarray, size: int | None) -> np.ndarray:
    clip = read_clip(info, indices, short_side=size or min(info.width, info.height))
    return center_crop({"video": clip}, size)["video"] if size else clip


def _fingerprint(info: VideoInfo) -> int:
    """The CRC-32 of the beginning of the file, or of the first image."""
    with open(info.images[0] if info.images else info.path, "rb") as file:
        return zlib.crc32(file.read(2**20))


def _of_array(name: str, array: StoredArray, rows: Mapping[str, tuple[int, ...]], size: int | None) -> list[Video]:
    """The videos [T,H,W,C] or images [H,W,C] that are entries of the array `name`, by their own names."""
    layout = array.shape[len(next(iter(rows.values()), ())) :]
    if rows and (len(layout) not in (3, 4) or layout[-1] not in (1, 3) or not np.prod(layout)):
        raise ValueError(f"{name} is {list(array.shape)}, expected a video [T,H,W,3] or an image [H,W,3].")
    to_uint8(np.empty(0, array.dtype), name)  # an error for another dtype
    count = layout[0] if len(layout) == 4 else 1

    def frame(row: tuple[int, ...], number: int) -> np.ndarray:
        return array[(*row, number)] if len(layout) == 4 else array[row]

    def read(row: tuple[int, ...], indices: np.ndarray) -> np.ndarray:
        frames = np.stack([frame(row, int(number)) for number in indices])
        check_range(float(frames.min()), float(frames.max()), frames.dtype, name, part=True)
        video = np.broadcast_to(to_uint8(frames, name), (*frames.shape[:-1], 3))
        return center_crop({"video": resize_short_side(video, size)}, size)["video"] if size else video

    def fingerprints(numbers: range) -> list[int]:
        """Of the first frame of every video, after a check of these frames."""
        low, high, found = np.inf, -np.inf, []
        for row, number in itertools.product(rows.values(), numbers):
            pixels = frame(row, number)
            low, high = np.minimum(low, pixels.min()), np.maximum(high, pixels.max())  # NaN, of NaN
            if number == 0:
                found.append(zlib.crc32(np.ascontiguousarray(to_uint8(pixels, name)).data))
        if rows:
            check_range(float(low), float(high), array.dtype, name)
        return found

    try:
        prints = fingerprints(range(1))
    except ValueError:  # the first frames may be an exception: all of them tell
        prints = fingerprints(range(count))
    shape = (size, size) if size else (layout[-3], layout[-2])
    videos = zip(rows.items(), prints, strict=True)
    return [Video(own, mark, count, shape, functools.partial(read, row)) for (own, row), mark in videos]
