"""Collections of videos to be evaluated: folders of videos, images or arrays, and `.npy` or `.npz` files.

Nothing is resized or cropped here: each metric prepares the pixels in its own way.
"""

import functools
import itertools
import os
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxvid.data.index import build_index, natural
from jaxvid.data.pipeline import DamagedClip
from jaxvid.data.video import VideoInfo, read_clip
from jaxvid.files import ARRAYS, load_array
from jaxvid.names import show
from jaxvid.pixels import to_uint8
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
    """Videos of one size in the natural order of their names, and what was left out, as (name, reason)."""

    path: str
    videos: list[Video]
    skipped: list[tuple[str, str]]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every video."""
        return self.videos[0].size

    @property
    def longest(self) -> int:
        """Frames of the longest video; 1 where all are images."""
        return max(video.frames for video in self.videos)


class Clip(NamedTuple):
    """Frames `indices` [T] of a video."""

    video: Video
    indices: np.ndarray


def open_collection(path: str | Path, sequences: bool = True) -> Collection:
    """Lists the videos of a folder (videos, images, or `.npy` files) or of an array file (`.npy`, `.npz`).

    Arrays are [N,T,H,W,3] or [N,H,W,3] (in a folder, each file [T,H,W,3] or [H,W,3]); 1 channel is repeated. They hold
    uint8, or floats in [-1, 1], which are rounded to uint8. A folder that holds only numbered images is one video if
    `sequences`; otherwise each image stands for itself. What is left out is warned of.

    Raises ValueError for nothing usable, for videos of several sizes, and for arrays of another shape, type or range.
    """
    path = str(path)
    if os.path.isfile(path) and path.endswith(ARRAYS):
        name, array = os.path.basename(path), load_array(path)
        if array.ndim not in (4, 5):
            raise ValueError(f"{name} is {list(array.shape)}, expected videos [N,T,H,W,3] or images [N,H,W,3].")
        rows = enumerate(to_uint8(array, name, strict=True))
        collection = Collection(path, [_video(f"{name}[{number}]", row) for number, row in rows], [])
    elif os.path.isdir(path):
        collection = Collection(path, *_files(path, sequences))
    elif os.path.exists(path):
        raise ValueError(f"{path} is neither a folder nor a .npy or .npz file: put videos or images into a folder.")
    else:
        raise ValueError(f"{path} does not exist.")
    skipped = [f"{show(name)}: {reason}" for name, reason in collection.skipped]
    if not collection.videos:
        why = "; ".join(skipped[:3])
        raise ValueError(f"There is no readable video, image or array in {path}{f' ({why})' if why else ''}.")
    sizes = Counter(video.size for video in collection.videos)
    if len(sizes) > 1:
        found = ", ".join(f"{number:,} of {height}x{width}" for (height, width), number in sizes.most_common(4))
        raise ValueError(f"{path} holds several sizes ({found}): resize them to one before, all in the same way.")
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
        raise ValueError(f"No video in {collection.path} has {wanted}; the longest has {collection.longest}.")
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

    A clip that turns out to be damaged is warned of and left out, and so are those beside it.
    """

    def readable() -> Iterator[list[np.ndarray]]:
        for clips in zip(*sets, strict=True):
            try:
                yield [clip.video.read(clip.indices) for clip in clips]
            except DamagedClip as error:
                warnings.warn(f"left out: {error}", stacklevel=2)

    rows = readable()
    for taken in counted(iter(lambda: list(itertools.islice(rows, batch)), []), len(sets[0]), unit, len):
        yield tuple(map(np.stack, zip(*taken, strict=True)))


def _files(root: str, sequences: bool) -> tuple[list[Video], list[tuple[str, str]]]:
    """The videos below a folder, or, if it holds arrays, one video for each of those."""
    arrays = sorted((p for p in Path(root).rglob("*.npy") if p.is_file()), key=lambda p: natural(p.as_posix()))
    index = build_index(root, sequences)
    if arrays and index.videos:
        raise ValueError(f"{root} holds .npy files and videos or images: put them into folders of their own.")
    if arrays:
        loaded = {path: to_uint8(load_array(str(path)), path.name, strict=True) for path in arrays}
        return [_video(path.relative_to(root).as_posix(), array) for path, array in loaded.items()], []
    videos = []
    for name, info in index.videos.items():
        read = functools.partial(read_clip, info, short_side=min(info.width, info.height))
        videos.append(Video(name, _fingerprint(info), len(info.pts), (info.height, info.width), read))
    return videos, index.skipped


def _fingerprint(info: VideoInfo) -> int:
    """The CRC-32 of the beginning of the file, or of the first image."""
    with open(info.images[0] if info.images else info.path, "rb") as file:
        return zlib.crc32(file.read(2**20))


def _video(name: str, array: np.ndarray) -> Video:
    """A video from uint8 [T,H,W,C] or [H,W,C]."""
    video = array if array.ndim == 4 else array[None]
    if video.ndim != 4 or video.shape[-1] not in (1, 3) or not video.size:
        raise ValueError(f"{name} is {list(array.shape)}, expected a video [T,H,W,3] or an image [H,W,3].")

    def read(indices: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.broadcast_to(video[indices], (len(indices), *video.shape[1:3], 3)))

    return Video(name, zlib.crc32(np.ascontiguousarray(video[0]).data), len(video), video.shape[1:3], read)
