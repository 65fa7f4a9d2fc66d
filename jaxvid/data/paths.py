"""Videos that a user names, in the pace and size of a model's training clips."""

import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxvid.data.augment import center_crop, resize_short_side
from jaxvid.data.folder import clip_indices, clip_starts, too_short
from jaxvid.data.index import IMAGE_ENDINGS, build_index
from jaxvid.data.video import VideoInfo, probe, probe_images, read_clip
from jaxvid.files import ARRAYS, load_array
from jaxvid.pixels import to_uint8


def read_videos(path: str, frames: int, options: Mapping[str, Any]) -> np.ndarray:
    """The first frames of one or several videos.

    Args:
      path: a video, an image, a folder of either (numbered images are one video), or an array `.npy` or `.npz`
        [T,h,w,3] or [n,T,h,w,3], uint8 or float in [-1, 1].
      frames: T of the result.
      options: `config.data`: resolution, stride and fps; the frames of arrays are taken as they are.

    Returns uint8 [n,T,resolution,resolution,3], resized by the short side and cropped to the middle.
    Raises ValueError if there is nothing usable, or not enough frames of it.
    """
    resolution, stride, fps = options["resolution"], options["stride"], options["fps"]
    if path.endswith(ARRAYS):
        array = to_uint8(load_array(path), path, strict=True)
        rows = array if array.ndim == 5 else array[None]
        if rows.ndim != 5 or rows.shape[-1] != 3 or not 0 < frames <= rows.shape[1]:
            raise ValueError(f"{path} is {list(array.shape)}, expected [T,h,w,3] or [n,T,h,w,3], T at least {frames}.")
        clips = [resize_short_side(row[:frames], resolution) for row in rows]
    else:
        clips = []
        for info in _video_infos(path):
            if not len(clip_starts(info, frames, stride, fps)):
                raise ValueError(f"{info.path}: {too_short(info, frames, stride, fps)}.")
            clips.append(read_clip(info, clip_indices(info, 0, frames, stride, fps), resolution))
    return np.stack([center_crop({"video": clip}, resolution)["video"] for clip in clips])


def _video_infos(path: str) -> list[VideoInfo]:
    """The videos of a folder, or the one that a file is; ValueError where there is none."""
    if not os.path.isdir(path):
        return [probe_images(path, [path]) if path.lower().endswith(IMAGE_ENDINGS) else probe(path)]
    index = build_index(path, sequences=True)
    for name, reason in index.skipped:
        warnings.warn(f"left out: {name}: {reason}", stacklevel=2)
    if not index.videos:
        raise ValueError(f"There is no readable video or image in {path}.")
    return list(index.videos.values())
