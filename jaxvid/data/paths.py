"""Videos that a user names, in the pace and size of a model's training clips."""

import bisect
import math
import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxvid.data.augment import center_crop, resize_short_side
from jaxvid.data.folder import clip_indices, clip_starts, too_short
from jaxvid.data.index import IMAGE_ENDINGS, build_index
from jaxvid.data.pipeline import DamagedClip
from jaxvid.data.video import VideoInfo, probe, probe_images, read_clip
from jaxvid.files import ARRAYS, load_array
from jaxvid.names import left_out
from jaxvid.pixels import to_uint8


def read_videos(path: str, frames: int, options: Mapping[str, Any]) -> np.ndarray:
    """The first frames of one or several videos.

    Args:
      path: a video, an image, a folder of either (numbered images are one video), or an array `.npy` or `.npz`
        [T,h,w,3] or [n,T,h,w,3], uint8 or float in [-1, 1].
      frames: T of the result.
      options: `config.data`: resolution, stride and fps; the frames of arrays are taken as they are.

    Returns uint8 [n,T,resolution,resolution,3], resized by the short side and cropped to the middle. Videos of a folder
    that are damaged or have not enough frames are left out with a warning, as in training.
    Raises ValueError if there is nothing usable.
    """
    resolution = options["resolution"]
    if path.endswith(ARRAYS):
        array = to_uint8(load_array(path), path, strict=True)
        rows = array if array.ndim == 5 else array[None]
        if rows.ndim != 5 or 0 in rows.shape or rows.shape[-1] != 3 or not 0 < frames <= rows.shape[1]:
            raise ValueError(f"{path} is {list(array.shape)}, expected [T,h,w,3] or [n,T,h,w,3], T at least {frames}.")
        clips = [resize_short_side(row[:frames], resolution) for row in rows]
    elif os.path.isdir(path):
        clips = _read_folder(path, frames, options)
    else:
        clips = [_first_clip(probe_path(path), frames, options)]
    return np.stack([center_crop({"video": clip}, resolution)["video"] for clip in clips])


def probe_path(path: str) -> VideoInfo:
    """Properties of a file, a video or an image. Raises DamagedClip if it is neither."""
    return probe_images(path, [path]) if path.lower().endswith(IMAGE_ENDINGS) else probe(path)


def read_longest(path: str, frames: int, options: Mapping[str, Any], least: int = 1) -> np.ndarray:
    """`read_videos` of as many frames as there are: up to `frames`, and no fewer than `least`."""
    return read_videos(path, max(least, min(frames, most_frames(path, options))), options)


def most_frames(path: str, options: Mapping[str, Any]) -> int:
    """How many frames `read_videos` can read at most; of a folder, from its longest video. Raises ValueError as it.

    1, too, where it can read none and says why.
    """
    if path.endswith(ARRAYS):
        shape = load_array(path).shape
        return shape[-4] if len(shape) in (4, 5) else 1
    if os.path.isdir(path):
        return max((_usable(info, options) for info in build_index(path, sequences=True).videos.values()), default=1)
    return _usable(probe_path(path), options)


def _usable(info: VideoInfo, options: Mapping[str, Any]) -> int:
    """How many frames the longest clip has that begins where the video does."""
    stride, fps = options["stride"], options["fps"]
    most = len(info.pts) if not fps else math.ceil(len(info.pts) / max(info.fps, 1e-6) * fps)
    usable = bisect.bisect_left(
        range(1, most + 1), True, key=lambda frames: not len(clip_starts(info, frames, stride, fps))
    )
    return max(1, usable)


def _read_folder(path: str, frames: int, options: Mapping[str, Any]) -> list[np.ndarray]:
    """The first clip of each video of a folder that has one."""
    index = build_index(path, sequences=True)
    clips, unusable = [], list(index.skipped)
    for name, info in index.videos.items():
        try:
            clips.append(_first_clip(info, frames, options))
        except DamagedClip as damage:
            unusable.append((name, damage.reason))
    if not clips:
        why = f": {left_out(unusable)}" if unusable else ""
        raise ValueError(f"There is no video or image in {path} that can be used{why}.")
    if unusable:
        warnings.warn(left_out(unusable), stacklevel=3)
    return clips


def _first_clip(info: VideoInfo, frames: int, options: Mapping[str, Any]) -> np.ndarray:
    stride, fps = options["stride"], options["fps"]
    if not len(clip_starts(info, frames, stride, fps)):
        raise DamagedClip(info.path, too_short(info, frames, stride, fps))
    return read_clip(info, clip_indices(info, 0, frames, stride, fps), options["resolution"])
