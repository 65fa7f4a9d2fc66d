"""Scores of images and videos, equal to those of the programs that published them, without PyTorch or TensorFlow.

Every part is a plain function over arrays in a file of its own; `fid` and `fvd` put them together. This package imports
no other part of jaxvid.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxvid.metrics.features import make_extractor
from jaxvid.metrics.frechet import frechet_distance, statistics
from jaxvid.metrics.i3d import MIN_FRAMES
from jaxvid.metrics.protocol import FID_PROTOCOLS, FVD_PROTOCOLS, Protocol, named
from jaxvid.pixels import to_uint8

__all__ = ["fid", "fvd"]


def fid(real_images: Any, fake_images: Any, params: Any, protocol: str = "pytorch_fid") -> float:
    """Frechet Inception Distance (Heusel et al. 2017).

    Args:
      real_images, fake_images: [N,H,W,3], N >= 2, uint8 or floats in [-1, 1]; H and W may differ between the two.
      params: of Inception, from `weights.load("inception")`.
      protocol: of `protocol.FID_PROTOCOLS`.

    Raises:
      ValueError: wrong shapes, types or ranges, or an unknown protocol.
    """
    return _frechet(real_images, fake_images, 4, params, named(protocol, FID_PROTOCOLS), "2048")


def fvd(real_videos: Any, fake_videos: Any, params: Any, protocol: str = "original") -> float:
    """Frechet Video Distance (Unterthiner et al. 2018).

    Args:
      real_videos, fake_videos: [N,T,H,W,3], N >= 2, T >= 9, uint8 or floats in [-1, 1]; 16 frames are usual.
      params: of I3D, from `weights.load("i3d")`.
      protocol: of `protocol.FVD_PROTOCOLS`; clips are taken as they are given, whatever the protocol samples.

    Raises:
      ValueError: wrong shapes, types or ranges, too few frames, or an unknown protocol.
    """
    return _frechet(real_videos, fake_videos, 5, params, named(protocol, FVD_PROTOCOLS), "logits")


def _frechet(real_set: Any, fake_set: Any, ndim: int, params: Any, protocol: Protocol, tap: str) -> float:
    pixels = []
    for name, array in (("real", real_set), ("fake", fake_set)):
        array = np.asarray(array)
        if array.ndim != ndim or array.shape[-1] != 3 or len(array) < 2:
            expected = "[N,T,H,W,3]" if ndim == 5 else "[N,H,W,3]"
            raise ValueError(f"The {name} set is {list(array.shape)}, expected {expected} with at least 2 of them.")
        if ndim == 5 and array.shape[1] < MIN_FRAMES:
            raise ValueError(f"The {name} videos have {array.shape[1]} frames, expected at least {MIN_FRAMES}.")
        pixels.append(to_uint8(array, f"the {name} set", strict=True))
    extract = make_extractor(protocol, params, [tap])
    real, fake = (statistics(next(extract([array]))[tap]) for array in pixels)
    return frechet_distance(real, fake, protocol.ddof)
