"""Modes of `jaxvid.sample` for tokenizers, whose module exports `codec` and `tokenizer` (`jaxvid.methods.vqvae`)."""

import argparse
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jaxvid.core import find_method
from jaxvid.data.paths import most_frames, read_videos
from jaxvid.metrics.image import psnr
from jaxvid.pixels import to_uint8
from jaxvid.run import Mode, Output, Run

PIXEL_BITS = 8


def compress(run: Run, arguments: argparse.Namespace) -> Output:
    """Videos, and their reconstruction from a file of tokens, which stays beside the pictures.

    A causal tokenizer takes all frames, or so many as are asked for; another one as many as in training.
    """
    method, (path,), file = find_method(run.config.method), arguments.video, Path(arguments.output) / "tokens.npz"
    made = method.tokenizer(run.config)
    frames = arguments.frames or (made.causal and most_frames(path, run.config.data)) or made.frames
    if frames != made.frames and not made.causal:
        raise ValueError(
            f"--frames is {frames}, and this tokenizer takes {made.frames}: train vqvae:causal for others."
        )
    video = read_videos(path, frames, run.config.data)
    encode, decode = method.codec(run.config, run.state)
    codes, tokens = math.prod(made.digits), np.asarray(encode(video))
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, tokens=tokens.astype(np.min_scalar_type(codes - 1)), frames=frames)
    decoded = np.asarray(decode(tokens))[:, :frames]
    quality = float(psnr(jnp.asarray(decoded), jnp.asarray(video) / 127.5 - 1).mean())
    raw = PIXEL_BITS * video.size
    note = (
        f"{file}: {8 * file.stat().st_size / raw * 8:.4f} bits a value in the file, "
        f"{tokens.size * math.log2(codes) / raw * 8:.4f} if all {codes:,} codes were equally likely, 8 before; "
        f"PSNR {quality:.2f} dB."
    )
    return Output({"original": video, "decompressed video": to_uint8(decoded)}, note=note)


MODES = {"compress": Mode(compress, 1, ("frames",))}
