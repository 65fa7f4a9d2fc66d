"""Crops and resizes of clips, in NumPy: the same for all frames, and for what shows the same scene."""

from collections.abc import Callable, Mapping

import numpy as np


def random_crop(
    clip: Mapping[str, np.ndarray], size: int, rng: np.random.Generator, paired: bool = True
) -> dict[str, np.ndarray]:
    """`clip` with `video` [T,h,w,C] cropped to a random window [T,size,size,C], as contiguous copies.

    So are `input` and `truth`, where it has them: to the same window, or else (not `paired`) to one of their own; and
    an `image` [1,h,w,C] to its own.
    """
    return _crop(clip, size, lambda margin: int(rng.integers(margin + 1)), paired)


def center_crop(clip: Mapping[str, np.ndarray], size: int, paired: bool = True) -> dict[str, np.ndarray]:
    """As `random_crop`, to the center."""
    return _crop(clip, size, lambda margin: margin // 2, paired)


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


def _crop(
    clip: Mapping[str, np.ndarray], size: int, place: Callable[[int], int], paired: bool
) -> dict[str, np.ndarray]:
    scenes: list[tuple[str, ...]] = [("video", "input", "truth")] if paired else [("video",), ("input", "truth")]
    scenes.append(("image",))
    cropped: dict[str, np.ndarray] = {}
    for first, *others in filter(None, ([key for key in scene if key in clip] for scene in scenes)):
        height, width = clip[first].shape[1:3]
        if min(height, width) < size:
            raise ValueError(f"frames of {height}x{width} pixels are smaller than the crop of {size}x{size}")
        for key in others:
            if clip[key].shape[1:3] != (height, width):
                shapes = f"{first} {clip[first].shape} and {key} {clip[key].shape}"
                raise ValueError(f"{shapes} differ in height or width")
        top, left = place(height - size), place(width - size)
        window = (slice(None), slice(top, top + size), slice(left, left + size))
        cropped |= {key: np.ascontiguousarray(clip[key][window]) for key in (first, *others)}
    return {**clip, **cropped}
