"""Modes of `jaxvid.sample` for models with continuous latents, whose module exports `codec` (`jaxvid.methods.vae`)."""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid import conditions, latents
from jaxvid.core import find_method
from jaxvid.data.paths import most_frames, read_videos
from jaxvid.latents import Codec
from jaxvid.models.vae import means
from jaxvid.names import choice
from jaxvid.pixels import to_uint8
from jaxvid.run import Mode, Output, Run


def codec_of(run: Run, arguments: argparse.Namespace) -> Codec:
    """The codec of a run, under the same conditions for all clips; ValueError where the label is open."""
    if "label" in run.config.condition.on and not arguments.label:
        raise ValueError("The model was trained with labels: name the class of the videos (--label).")
    values = conditions.from_arguments(arguments, run.config)
    rows = jax.tree.map(jnp.asarray, conditions.from_user(run.config, 1, **values))
    return find_method(run.config.method).codec(run.config, run.state, rows)


def read_pairs(run: Run, arguments: argparse.Namespace, frames: int) -> tuple[jax.Array, jax.Array]:
    """The first frames of the videos at both paths, as many of each."""
    first, second = (read_videos(path, frames, run.config.data) for path in arguments.video)
    count = min(len(first), len(second))
    return jnp.asarray(first[:count]), jnp.asarray(second[:count])


def interpolate(run: Run, arguments: argparse.Namespace) -> Output:
    """Videos between two others."""
    codec, pair = codec_of(run, arguments), read_pairs(run, arguments, run.config.data.frames)
    first, second = (means(codec.encode(video[:1])) for video in pair)
    weights = np.linspace(0, 1, arguments.num)
    steps = [latents.interpolate(first, second, float(weight)) for weight in weights]
    video = codec.decode(jax.tree.map(lambda *parts: jnp.concatenate(parts), *steps))
    return Output({"interpolation": to_uint8(video)}, {"weight": [f"{weight:.2f}" for weight in weights]})


def fill(run: Run, arguments: argparse.Namespace) -> Output:
    """Videos from one frame to another."""
    codec, (first, last) = codec_of(run, arguments), read_pairs(run, arguments, 1)
    z = latents.fill_in(codec, first[:, 0], last[:, 0], arguments.frames or run.config.data.frames)
    return Output({"infill": to_uint8(codec.decode(z))})


def traverse(run: Run, arguments: argparse.Namespace) -> Output:
    """A video under other values of one dimension of its latents: the most informative one, if none is named."""
    codec = codec_of(run, arguments)
    video = jnp.asarray(read_videos(arguments.video[0], run.config.data.frames, run.config.data)[:1])
    nats = {name: np.asarray(each) for name, each in latents.information(codec, video).items()}
    name = max(nats, key=lambda name: nats[name].max()) if arguments.latent is None else arguments.latent
    choice("--latent", name, nats)
    dimension = int(nats[name].argmax()) if arguments.dimension is None else arguments.dimension
    offsets = np.linspace(-3, 3, arguments.num)
    z = latents.traverse(means(codec.encode(video)), name, dimension, offsets.tolist())
    captions = {"offset": [f"{offset:+.2f}" for offset in offsets]}
    return Output(
        {"traversal": to_uint8(codec.decode(z))}, captions, f"Dimension {dimension} of {name}, moved by -3 to 3."
    )


def swap(run: Run, arguments: argparse.Namespace) -> Output:
    """The content of the first videos with the motion of the second ones."""
    codec, (content, motion) = codec_of(run, arguments), read_pairs(run, arguments, run.config.data.frames)
    z = latents.swap(means(codec.encode(content)), means(codec.encode(motion)))
    return Output({"content": np.asarray(content), "motion": np.asarray(motion), "swap": to_uint8(codec.decode(z))})


def compress(run: Run, arguments: argparse.Namespace) -> Output:
    """Videos, and their reconstruction from a file of latents, which stays beside the pictures.

    A causal model takes all frames, another one as many as in training.
    """
    codec, path, data = codec_of(run, arguments), Path(arguments.output) / "latents.npz", run.config.data
    causal = run.config.model.network.get("causal")
    video = read_videos(arguments.video[0], most_frames(arguments.video[0], data) if causal else data.frames, data)
    path.parent.mkdir(parents=True, exist_ok=True)
    found = latents.compress(codec, jnp.asarray(video), path)
    note = (
        f"{path}: {found.file_bits / found.raw_bits * 8:.4f} bits a value in the file, "
        f"{found.ideal_bits.sum() / found.raw_bits * 8:.4f} under the model's prior, 8 before; "
        f"PSNR {found.psnr.mean():.2f} dB."
    )
    panels = {"original": video, "decompressed video": to_uint8(latents.decompress(codec, path))}
    return Output(panels, note=note)


OPTIONS: dict[str, dict[str, Any]] = {
    "latent": {"help": "to traverse (default: the most informative one)"},
    "dimension": {"type": int, "help": "of the latent (default: the most informative one)"},
}
MODES = {
    "interpolate": Mode(interpolate, 2, ("num",)),
    "fill": Mode(fill, 2, ("frames",)),
    "traverse": Mode(traverse, 1, ("num",), OPTIONS),
    "swap": Mode(swap, 2),
    "compress": Mode(compress, 1),
}
