"""Scores of images and videos, equal to those of the programs that published them, without PyTorch or TensorFlow.

Every part is a plain function over arrays in a file of its own; `fid` and `fvd` combine them. This package needs no
other part of jaxvid but four small modules (names, files, shapes, pixels).
"""

from typing import Any

import numpy as np

from jaxvid.metrics.features import make_extractor
from jaxvid.metrics.frechet import frechet_distance, statistics
from jaxvid.metrics.i3d import MIN_FRAMES
from jaxvid.metrics.protocol import FID_PROTOCOLS, FVD_PROTOCOLS, Protocol
from jaxvid.names import choice
from jaxvid.pixels import to_uint8
from jaxvid.shapes import expect

__all__ = ["fid", "fvd"]


def fid(real_images: Any, fake_images: Any, params: Any, protocol: str = "pytorch_fid") -> float:
    """Frechet Inception Distance (Heusel et al. 2017).

    Args:
      real_images, fake_images: [N,H,W,3], N >= 2, uint8 or floats in [-1, 1]; H and W may differ between the two.
      params: of Inception, from `weights.load("inception")`.
      protocol: of `protocol.FID_PROTOCOLS`.

    Raises ValueError for wrong shapes, types or ranges, or an unknown protocol.
    """
    chosen = FID_PROTOCOLS[choice("protocol", protocol, FID_PROTOCOLS)]
    return _frechet(real_images, fake_images, "[N>=2,H,W,3]", params, chosen, "2048")


def fvd(real_videos: Any, fake_videos: Any, params: Any, protocol: str = "original") -> float:
    """Frechet Video Distance (Unterthiner et al. 2018).

    Args:
      real_videos, fake_videos: [N,T,H,W,3], N >= 2, T >= 9 (usually 16), uint8 or floats in [-1, 1].
      params: of I3D, from `weights.load("i3d")`.
      protocol: of `protocol.FVD_PROTOCOLS`; clips are taken as they are, whatever the protocol samples.

    Raises ValueError for wrong shapes, types or ranges, too few frames, or an unknown protocol.
    """
    chosen = FVD_PROTOCOLS[choice("protocol", protocol, FVD_PROTOCOLS)]
    return _frechet(real_videos, fake_videos, f"[N>=2,T>={MIN_FRAMES},H,W,3]", params, chosen, "logits")


def _frechet(real: Any, fake: Any, layout: str, params: Any, protocol: Protocol, tap: str) -> float:
    sets = {"real": np.asarray(real), "fake": np.asarray(fake)}
    expect(layout, **sets)
    pixels = [to_uint8(array, name, strict=True) for name, array in sets.items()]
    extract = make_extractor(protocol, params, [tap])
    of_real, of_fake = (statistics(extract(array)[tap]) for array in pixels)
    return frechet_distance(of_real, of_fake, protocol.ddof)
