"""Protocols: everything that published programs do between pixels and score, each under a name.

The differences look small (a resize, an epsilon, N or N - 1) but change scores by more than papers claim to gain.
Defaults: "pytorch_fid", which most published FIDs were computed with, and "original", the program and weights that FVD
was defined by; it is also the only FVD program whose weights can be verified without unpickling a file.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxvid.metrics import i3d, inception
from jaxvid.metrics.resize import Method, resize, resize_and_crop
from jaxvid.shapes import expect


class Protocol(NamedTuple):
    """How one program computes its score.

    The loading of a program (cd-fvd resizes and crops to a resolution, StyleGAN-V reads JPEG frames) is not included,
    and left to the user. The resize of "stylegan_v" happens inside its TorchScript archive: here it is PyTorch's
    bilinear resize, which has not been confirmed with a published number.
    """

    network: Literal["inception", "i3d"]
    resize: Method | Literal["short_side"]  # of frames to 299 or 224 pixels; "short_side" keeps their aspect, and crops
    scale: Literal["unit", "shifted"]  # pixels x in [0, 255] become 2 x / 255 - 1, or (x - 128) / 128
    epsilon: float  # of the network's batch normalizations
    ddof: int  # covariances are divided by N - ddof
    real_clips: int  # one of each video, beginning at a random frame; 0 for all
    fake_clips: int
    random_fake: bool  # generated clips begin at a random frame, too, and not with the first
    repeat_fake: bool  # further clips of the same videos are taken if there are fewer generated videos than that
    citation: str  # of the program


ALL = (0, 0, True, False)
FID = "FID (Heusel et al. 2017)"
FVD = "FVD (Unterthiner et al. 2018)"
FID_PROTOCOLS = {
    "pytorch_fid": Protocol("inception", "bilinear", "unit", 1e-3, 1, *ALL, f"{FID} as in pytorch-fid (Seitzer 2020)"),
    "torch_fidelity": Protocol(
        "inception", "bilinear_tf1", "shifted", 1e-3, 1, *ALL,
        f"{FID} as in the original program and torch-fidelity (Obukhov et al. 2020)",
    ),
    "clean": Protocol(
        "inception", "bicubic_antialias", "shifted", 1e-3, 1, *ALL, f"{FID} as in clean-fid (Parmar et al. 2022)"
    ),
}  # fmt: skip
FVD_PROTOCOLS = {
    "original": Protocol("i3d", "bilinear_tf1", "unit", 1e-3, 1, 2048, 2048, True, False, f"{FVD}, original program"),
    "videogpt": Protocol(
        "i3d", "short_side", "unit", 1e-5, 1, 256, 256, True, False, f"{FVD} as in VideoGPT (Yan et al. 2021)"
    ),
    "cdfvd": Protocol("i3d", "bilinear", "unit", 1e-5, 0, 0, 2048, True, True, f"{FVD} as in cd-fvd (Ge et al. 2024)"),
    "stylegan_v": Protocol(
        "i3d", "bilinear", "unit", 1e-3, 0, 2048, 2048, False, False,
        f"{FVD} as in StyleGAN-V (Skorokhodov et al. 2022)",
    ),
}  # fmt: skip
PROTOCOLS = FID_PROTOCOLS | FVD_PROTOCOLS


def prepare(frames: jax.Array, protocol: Protocol) -> jax.Array:
    """The network's input: frames uint8 [..., H, W, 3] -> float32 [..., S, S, 3], about [-1, 1].

    Raises ValueError for frames of another dtype or shape.
    """
    expect("[...,H,W,3]", "uint8", frames=frames)
    size = {"inception": inception.SIZE, "i3d": i3d.SIZE}[protocol.network]
    if protocol.resize == "short_side":
        pixels = resize_and_crop(frames, size)
    else:
        # The cubic filter overshoots; the others stay in the range.
        pixels = jnp.clip(resize(frames, (size, size), protocol.resize), 0, 255)
    return 2 * pixels / 255 - 1 if protocol.scale == "unit" else (pixels - 128) / 128
