"""A folder of videos as a source of clips, without conversion and without a list of classes."""

import hashlib
import json
import math
import os
import threading
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from jaxvid.data.captions import read_captions
from jaxvid.data.index import IMAGE_ENDINGS, VIDEO_ENDINGS, Index, build_index, natural
from jaxvid.data.pipeline import DamagedClip
from jaxvid.data.splits import find_parts, hold_out, like_parts, share
from jaxvid.data.video import VideoInfo, read_clip, resized_size
from jaxvid.names import choice, composed, first_few, nearest, plural, show

KEPT_BYTES = 2**28  # clips of a folder that are not more are decoded once and kept in memory
SLOWEST = 0.995  # of the requested frame rate: 29.97 counts as 30


class Folder:
    """Clips of all videos below a folder.

    Files: all that FFmpeg decodes, with a known ending or without one; images, which are videos of one frame, but for
    animations and TIFF of several pages; and, if a clip has more than one frame, folders of images whose names hold a
    running number or a time, each of which is one video. Hidden files are ignored.

    Classes: the first level of sub-folders; files beside them have the class "none". Text: the class name, or that of
    `captions.csv` (columns file, text) or `captions.jsonl` (keys file, text) at the top of the folder. Names of classes
    are in Unicode's composed form (NFC).

    Splits: folders named as parts, such as `train/` and `val/`, if both exist (see `splits.find_parts`); otherwise a
    hash of the file names holds out a share of each class, or a share of the clips if there is only one file.

    Clips do not overlap. They consist of every stride-th frame or, with `fps`, of the frames nearest to t, t + 1/fps,
    ... by presentation time; a clip that would repeat a frame is left out, and so is a video of a lower rate.

    Where all clips fit in KEPT_BYTES they are kept, and decoded in one pass as far as they follow the same keyframe.

    Attributes:
      classes: their names, in natural order; empty if there are no sub-folders.
      videos, labels, texts: properties, class and text of each video of this split.
      clips: int64 [clips,2], number of the video and first frame.
      skipped: (name, reason) for each file that gives no clip.
      index: properties of each file of the folder.

    Args:
      path: the folder.
      frames, stride: T of a clip, and the step between its frames; the stride is ignored if fps is not 0.
      resolution: length of the short side in pixels; smaller videos are enlarged.
      fps: frames per second of the clips; 0 to use the stride.
      split: "train" or "eval".
      holdout: share of the files that is kept for "eval", in (0, 1); at least one file, and never all.
      index: from `build_index`, if the files have been read already.

    Raises ValueError for an argument out of range, no such folder, no video in it, or none that gives a clip.
    """

    KIND = "folder"
    STREAMS = 1  # videos that a clip is read from

    def __init__(
        self,
        path: str,
        frames: int,
        resolution: int,
        stride: int = 1,
        fps: float = 0.0,
        split: str = "train",
        holdout: float = 0.1,
        index: Index | None = None,
    ):
        root = check_settings(path, frames, resolution, stride, fps, split, holdout)
        self.frames, self.resolution, self.stride, self.fps = int(frames), int(resolution), int(stride), float(fps)
        self.index = index or build_index(root, sequences=frames > 1)
        self.skipped = list(self.index.skipped)
        starts = {}
        for name, info in self.index.videos.items():
            starts[name] = clip_starts(info, self.frames, self.stride, self.fps)
            if not len(starts[name]):
                reasons = [too_short(info, self.frames, self.stride, self.fps)]
                if len(info.images) == 1:  # one of several that might have been frames
                    reasons += filter(None, [self.index.apart.get(self.index.on_disk(name).rpartition("/")[0] or ".")])
                self.skipped.append((name, "; ".join(reasons)))
        usable = [name for name in starts if len(starts[name])]
        if not usable:
            raise ValueError(self._nothing_usable())
        parts = find_parts(self.index.found)
        outside = "it is outside of the folders for training and for evaluation"
        self.skipped += [(name, outside) for name in usable if parts and name.split("/")[0] not in parts]
        usable = [name for name in usable if not parts or name.split("/")[0] in parts]
        folders = {name: [composed(each) for each in name.split("/")[bool(parts) : -1]] for name in usable}
        class_names = {name: [*folders[name], "none"][0] for name in usable}
        self.classes = sorted(set(class_names.values()), key=natural) if set(class_names.values()) != {"none"} else []
        self.skipped = [(self.index.on_disk(name), reason) for name, reason in self.skipped]
        train, held_out = _split(class_names, parts, holdout)
        self._names = chosen = train if split == "train" else held_out
        texts = _texts(root, self.index, class_names if self.classes else dict.fromkeys(usable, ""), split == "train")
        if split == "train":
            _warn_of_parts(root, {folder for name in usable for folder in folders[name]})
        self.videos = [self.index.videos[name] for name in chosen]
        self.labels = [self.classes.index(class_names[name]) if self.classes else 0 for name in chosen]
        self.texts = [texts[name] for name in chosen]
        self._title = f"{self.KIND} {root} ({split})"
        if not chosen:
            raise ValueError(f"{self._title} contains no clip: every usable video is in the other split")
        numbers = np.repeat(np.arange(len(chosen)), [len(starts[name]) for name in chosen])
        self.clips = np.stack([numbers, np.concatenate([starts[name] for name in chosen])], axis=1)
        if train == held_out:
            self.clips = _split_clips(self.clips, split, holdout, self.index.on_disk(chosen[0]))
        areas = np.array([math.prod(resized_size(info, self.resolution)) for info in self.videos])
        fits = self.STREAMS * 3 * self.frames * areas[self.clips[:, 0]].sum() <= KEPT_BYTES
        self._kept = _Kept(_passes(self.videos, self.clips)) if fits else None

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Video uint8 [T,h,w,3], label int32 [] and text str []; DamagedClip, or IndexError past the last clip."""
        number = self.clips[index, 0]
        index %= len(self.clips)  # it may be negative
        video = self._kept.clip(index, self._read) if self._kept else None
        return {
            "video": self._read([index]) if video is None else video,
            "label": np.asarray(self.labels[number], np.int32),
            "text": np.asarray(self.texts[number]),
        }

    def _read(self, clips: Sequence[int]) -> np.ndarray:
        """The frames uint8 [n*T,h,w,3] of clips of one video."""
        return read_clip(self.videos[self.clips[clips[0], 0]], self._indices(clips), self.resolution)

    def _indices(self, clips: Sequence[int]) -> np.ndarray:
        """The numbers int64 [n*T] of the frames of clips of one video."""
        info = self.videos[self.clips[clips[0], 0]]
        starts = self.clips[clips, 1]
        return np.concatenate([clip_indices(info, start, self.frames, self.stride, self.fps) for start in starts])

    @property
    def sha256(self) -> str:
        """See `Source`: of names, sizes, lengths, classes and texts, wherever the folder lies."""
        sizes = [(info.width, info.height, len(info.pts)) for info in self.videos]
        rows = [list(map(composed, self._names)), sizes, self.classes, self.labels, self.texts, self.clips.tolist()]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def counts(self) -> dict[str, int]:
        """Number of clips of each class; of "all", if there are no classes."""
        numbers = Counter(self.labels[number] for number, _ in self.clips)
        return {name: numbers[label] for label, name in enumerate(self.classes or ["all"])}

    def shape(self) -> str:
        """The shape and pace of a clip, in words."""
        pace = f"{self.fps:g} frames per second" if self.fps else f"stride {self.stride}"
        return f"{plural(self.frames, 'frame')} x {self.resolution} pixels at {pace}"

    def summary(self) -> str:
        """See `Source.summary`."""
        classes, skipped = plural(len(self.classes), "class", "classes"), plural(len(self.skipped), "file")
        origin = f"{plural(len(self.clips), 'clip')} of {self.shape()}, from {plural(len(self.videos), 'video')}"
        return f"{self._title}: {origin}, {classes}, {skipped} skipped"

    def _nothing_usable(self) -> str:
        """The reason why no file gives a clip, in one sentence."""
        index = self.index
        if not index.found:
            others = ", ".join(f"{number} {ending}" for ending, number in index.foreign.most_common(5)) or "no files"
            endings = f"videos end in {' '.join(VIDEO_ENDINGS)}, images in {' '.join(IMAGE_ENDINGS)}"
            searched = f"searched {plural(index.folders, 'folder')} and found {others}"
            return f"no video in {index.root}: {searched}; {endings}"
        problems = []
        if index.videos:
            name = max(index.videos, key=lambda name: len(index.videos[name].pts))
            reason = too_short(index.videos[name], self.frames, self.stride, self.fps)
            problems.append(f"the longest is {show(index.on_disk(name))}: {reason}")
        for reason, number in Counter(reason for _, reason in index.skipped).most_common():
            names = [show(index.on_disk(name)) for name, its_reason in index.skipped if its_reason == reason]
            problems.append(f"{number} x {reason}: {', '.join(names[:3])}{', ...' if number > 3 else ''}")
        return f"none of {plural(len(index.found), 'file')} in {index.root} gives a clip: {'; '.join(problems)}"


class _Kept:
    """Clips that have been decoded; safe to share between threads, while each worker process has its own.

    Args:
      passes: int64 [clips], see `_passes`.
    """

    def __init__(self, passes: np.ndarray):
        self._passes = passes
        self._clips: dict[int, dict[int, np.ndarray]] = {}
        self._locks: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)

    def clip(self, index: int, read: Callable[[list[int]], np.ndarray]) -> np.ndarray | None:
        """A copy of a clip, which is read with all others of its pass; None if one of these is damaged."""
        number = int(self._passes[index])
        with self._locks[number]:
            if number not in self._clips:
                clips = np.flatnonzero(self._passes == number).tolist()
                try:
                    self._clips[number] = dict(zip(clips, np.split(read(clips), len(clips)), strict=True))
                except DamagedClip:
                    self._clips[number] = {}
        found = self._clips[number].get(index)
        return None if found is None else found.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Kept, (self._passes,)


def _passes(videos: Sequence[VideoInfo], clips: np.ndarray) -> np.ndarray:
    """For each clip the number int64 [clips] of the pass of the decoder that gives it: one for those of a keyframe."""
    keys = np.stack([clips[:, 0], np.arange(len(clips))])
    ends = np.searchsorted(clips[:, 0], np.arange(len(videos)), "right")
    for info, first, end in zip(videos, [0, *ends[:-1]], ends, strict=True):
        if len(info.images) < 2:  # separate images need no pass
            keys[1, first:end] = np.searchsorted(info.keyframes, info.pts[clips[first:end, 1]], "right")
    return np.unique(keys, axis=1, return_inverse=True)[1].reshape(-1)


def clip_starts(info: VideoInfo, frames: int, stride: int, fps: float) -> np.ndarray:
    """First frames int64 [clips] of all clips of a video; they do not overlap."""
    if not fps or (frames == 1 and info.images):
        return np.arange(0, len(info.pts) - (frames - 1) * stride, frames * stride)
    if info.fps < SLOWEST * fps:
        return np.empty(0, np.int64)
    starts: list[int] = []
    times, start = info.times, 0
    last_time = times[-1] + 0.5 / info.fps
    while start < len(times) and times[start] + (frames - 1) / fps <= last_time:
        indices = clip_indices(info, start, frames, 1, fps)
        if (np.diff(indices) > 0).all():
            starts.append(start)
        start = max(indices[-1] + 1, _nearest(times, times[start] + frames / fps))
    return np.array(starts, np.int64)


def clip_indices(info: VideoInfo, start: int, frames: int, stride: int, fps: float) -> np.ndarray:
    """Numbers int64 [frames] of the frames of the clip that starts at frame `start`."""
    if not fps:
        return start + stride * np.arange(frames)
    times = info.times
    return _nearest(times, times[start] + np.arange(frames) / fps)


def _nearest(times: np.ndarray, wanted: Any) -> Any:
    """Numbers of the frames nearest to the wanted times, which are not before the first."""
    after = np.searchsorted(times, wanted).clip(1, len(times) - 1)
    return after - (wanted - times[after - 1] < times[after] - wanted)


def too_short(info: VideoInfo, frames: int, stride: int, fps: float) -> str:
    """The reason why a video gives no clip."""
    if not fps:
        needed = (frames - 1) * stride + 1
        return f"it has {len(info.pts)} of the {needed} frames that a clip of {frames} at stride {stride} needs"
    if not info.fps:
        return "images have no frame rate: leave fps at 0 and use stride"
    if info.fps < SLOWEST * fps:
        return f"it has {info.fps:.4g} frames per second, fewer than the requested {fps:g}"
    if len(info.pts) / info.fps < frames / fps:
        seconds = f"{len(info.pts) / info.fps:.3g} of the {frames / fps:.3g} seconds"
        return f"it has {seconds} that a clip of {frames} frames at {fps:g} per second needs"
    return f"its frames are too unevenly spaced for {fps:g} per second"


def check_settings(path: str, frames: int, resolution: int, stride: int, fps: float, split: str, holdout: float) -> str:
    """The folder, with ~ expanded. Raises ValueError for settings out of range, or if it does not exist."""
    for name, value in (("frames", frames), ("resolution", resolution), ("stride", stride)):
        if isinstance(value, bool) or value != int(value) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
    if not (math.isfinite(fps) and fps >= 0):
        raise ValueError(f"fps must be 0 (use the stride) or more, not {fps!r}")
    choice("split", split, ("train", "eval"))
    if not 0 < holdout < 1:
        raise ValueError(f"holdout is the share of files kept for evaluation, between 0 and 1, not {holdout!r}")
    if not path:
        raise ValueError("the folder of videos is missing: set path (in a config, data.path)")
    root = os.path.expanduser(path)
    if not os.path.exists(root):
        raise ValueError(f"there is no folder {root}")
    if not os.path.isdir(root):
        raise ValueError(f"{root} is a file, not a folder of videos: set path to the folder that contains it")
    return root


def _split(classes: Mapping[str, str], parts: Mapping[str, str], holdout: float) -> tuple[list[str], list[str]]:
    """The names for training and those for evaluation, of the names with their classes; a single one is for both."""
    if len(classes) == 1 and len({*parts.values()}) < 2:
        return list(classes), list(classes)
    if len({*parts.values()}) == 2:
        held_out = {name for name in classes if parts[name.split("/")[0]] == "eval"}
    else:
        held_out = hold_out(classes, holdout)
    return [name for name in classes if name not in held_out], [name for name in classes if name in held_out]


def _texts(root: str, index: Index, defaults: Mapping[str, str], warn: bool) -> dict[str, str]:
    """The text of each video: its caption, or else its default. Warns of videos and of captions without the other."""
    names = {index.on_disk(name): name for name in index.found}
    read = read_captions(root, names)
    if read is None:
        return dict(defaults)
    captions, absent = {names[name]: text for name, text in read[0].items()}, read[1]
    missing = [name for name in defaults if not captions.get(name, "").strip()]
    if missing and warn:
        instead = "the name of their class" if any(defaults.values()) else "an empty text"
        count = f"{len(missing):,} of {len(defaults):,}, which get {instead}"
        named = first_few([index.on_disk(name) for name in missing])
        warnings.warn(f"videos in {root} without a caption: {count}: {named}", stacklevel=3)
    if absent and warn:
        near = "" if captions else f"; the nearest to the first is {show(nearest(absent[0], names))}"
        warnings.warn(
            f"captions in {root} of videos that are not there: {len(absent):,}: {first_few(absent)}{near}", stacklevel=3
        )
    return {**captions, **{name: defaults[name] for name in missing}}


def _warn_of_parts(root: str, folders: Collection[str]) -> None:
    """Warns of folders that are named as parts of a data set, and are not used as such."""
    if odd := sorted(like_parts(folders), key=natural):
        rule = "put them at its top as train/ and val/, or set path to a folder that holds them so"
        what = "folders that are named as parts of a data set, but divided like all others"
        warnings.warn(f"{root} has {what}: {first_few(odd)}; if they are parts, {rule}", stacklevel=3)


def _split_clips(clips: np.ndarray, split: str, holdout: float, name: str) -> np.ndarray:
    """The clips of a single video: the last ones are kept for evaluation."""
    if len(clips) == 1:
        if split == "train":
            logging.warning("There is only one clip, in %s: it is used for training and for evaluation", show(name))
        return clips
    kept = len(clips) - share(holdout, len(clips))
    return clips[:kept] if split == "train" else clips[kept:]
