"""Crops and resizes of clips, in NumPy: the same for all frames, and for the paired `input` too."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def random_crop(clip: Mapping[str, np.ndarray], size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """`clip` with `video` (and `input`) [T,h,w,C] cropped to a random window [T,size,size,C], as contiguous copies."""
    height, width = _margins(clip, size)
    return _crop(clip, int(rng.integers(height + 1)), int(rng.integers(width + 1)), size)


def center_crop(clip: Mapping[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """`clip` with `video` (and `input`) [T,h,w,C] cropped to the center [T,size,size,C], as contiguous copies."""
    height, width = _margins(clip, size)
    return _crop(clip, height // 2, width // 2, size)


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


def _margins(clip: Mapping[str, np.ndarray], size: int) -> tuple[int, int]:
    height, width = clip["video"].shape[1:3]
    if min(height, width) < size:
        raise ValueError(f"frames of {height}x{width} pixels are smaller than the crop of {size}x{size}")
    if "input" in clip and clip["input"].shape[1:3] != (height, width):
        raise ValueError(f"video {clip['video'].shape} and input {clip['input'].shape} differ in height or width")
    return height - size, width - size


def _crop(clip: Mapping[str, np.ndarray], top: int, left: int, size: int) -> dict[str, np.ndarray]:
    window = (slice(None), slice(top, top + size), slice(left, left + size))
    return {**clip, **{key: np.ascontiguousarray(clip[key][window]) for key in ("video", "input") if key in clip}}
