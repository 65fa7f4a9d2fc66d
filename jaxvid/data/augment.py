"""Crops and resizes of clips, in NumPy: the same for all frames, and for the paired `input` too."""

from collections.abc import Callable, Mapping

import numpy as np


def random_crop(clip: Mapping[str, np.ndarray], size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """`clip` with `video` (and `input`) [T,h,w,C] cropped to a random window [T,size,size,C], as contiguous copies."""
    return _crop(clip, size, lambda margin: int(rng.integers(margin + 1)))


def center_crop(clip: Mapping[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """`clip` with `video` (and `input`) [T,h,w,C] cropped to the center [T,size,size,C], as contiguous copies."""
    return _crop(clip, size, lambda margin: margin // 2)


def resize_short_side(video: np.ndarray, size: int) -> np.ndarray:
    """Video uint8 [T,h,w,3] with its shorter side resized to `size` (Pillow, bicubic, antialiased)."""
    from PIL import Image

    height, width = video.shape[1:3]
    if min(height, width) == size:
        return video
    scale = size / min(height, width)
    shape = (max(size, round(width * scale)), max(size, round(height * scale)))
    frames = [Image.fromarray(frame).resize(shape, Image.Resampling.BICUBIC) for frame in np.ascontiguousarray(video)]
    return np.stack([np.asarray(frame) for frame in frames])


def _crop(clip: Mapping[str, np.ndarray], size: int, place: Callable[[int], int]) -> dict[str, np.ndarray]:
    height, width = clip["video"].shape[1:3]
    if min(height, width) < size:
        raise ValueError(f"frames of {height}x{width} pixels are smaller than the crop of {size}x{size}")
    if "input" in clip and clip["input"].shape[1:3] != (height, width):
        raise ValueError(f"video {clip['video'].shape} and input {clip['input'].shape} differ in height or width")
    top, left = place(height - size), place(width - size)
    window = (slice(None), slice(top, top + size), slice(left, left + size))
    return {**clip, **{key: np.ascontiguousarray(clip[key][window]) for key in ("video", "input") if key in clip}}
