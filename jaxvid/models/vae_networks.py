"""Builders of VAEs from plain options, by name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxvid.models import vae, vqvae
from jaxvid.names import choice
from jaxvid.nn.condition import ConditionEncoder

Size = tuple[int, int, int]  # frames, height, width


def frame(size: Size, dtype: Any, *, width: int, hidden: int, strides: tuple[int, ...], dim: int) -> vae.VAE:
    """Every frame alone: `dim` latents each, independent and standard normal."""
    encoder = vae.FrameEncoder(dim, width, hidden, strides, dtype)
    return vae.VAE(encoder, vae.FrameDecoder(size[1:], width, hidden, strides, dtype=dtype), vae.StandardPrior())


def temporal(
    size: Size,
    dtype: Any,
    *,
    width: int,
    hidden: int,
    strides: tuple[int, ...],
    heads: int,
    content: int,
    motion: int,
    memory: int,
) -> vae.VAE:
    """`content` latents a clip and `motion` latents a frame, whose prior is recurrent."""
    if hidden % heads:
        raise ValueError(f"model.network.hidden {hidden} must be a multiple of model.network.heads {heads}.")
    encoder = vae.TemporalEncoder(content, motion, heads, width, hidden, strides, dtype)
    decoder = vae.FrameDecoder(size[1:], width, hidden, strides, dtype=dtype)
    return vae.VAE(encoder, decoder, vae.RecurrentPrior(memory))


def layered(
    size: Size,
    dtype: Any,
    *,
    width: int,
    hidden: int,
    strides: tuple[int, ...],
    picture: int,
    heads: int,
    content: int,
    motion: int,
    memory: int,
) -> vae.VAE:
    """`temporal`, where content paints a square `picture` over a ground, and motion says where in a frame it is."""
    if picture % 4:
        raise ValueError(f"model.network.picture is {picture}, expected a multiple of 4.")
    model = temporal(
        size, dtype, width=width, hidden=hidden, strides=strides,
        heads=heads, content=content, motion=motion, memory=memory,
    )  # fmt: skip
    painter = vae.FrameDecoder((picture, picture), width, hidden, (2, 2), channels=1, dtype=dtype)
    return model.clone(decoder=vae.LayeredDecoder(painter, size[1:], dtype=dtype))


def grid(size: Size, dtype: Any, *, width: int, blocks: int, dim: int, downsample: tuple[int, int, int]) -> vae.VAE:
    """A grid of latents that is smaller by `downsample` (frames, height, width), independent and standard normal."""
    if len(downsample) != 3 or any(s % f for s, f in zip(size, downsample, strict=True)):
        raise ValueError(f"model.network.downsample {downsample} does not divide frames, height and width {size}.")
    if width % 8:
        raise ValueError(f"model.network.width is {width}, expected a multiple of 8.")
    encoder = vqvae.Encoder(vqvae.ResidualStack(blocks, dtype=dtype), width, 2 * dim, downsample, dtype)
    decoder = vqvae.Decoder(vqvae.ResidualStack(blocks, dtype=dtype), width, downsample, dtype=dtype)
    return vae.VAE(vae.GridEncoder(encoder), vae.GridDecoder(decoder), vae.StandardPrior())


NETWORKS: dict[str, Callable[..., vae.VAE]] = {"frame": frame, "temporal": temporal, "layered": layered, "grid": grid}


def make_vae(
    options: Mapping[str, Any], size: Size, encoder: ConditionEncoder | None = None, dtype: Any = None
) -> vae.VAE:
    """The VAE that `options` describe.

    Args:
      options: `name`, one of NETWORKS, and the arguments of that function.
      size: frames, height and width of the videos.
      encoder: of the conditions; None where there are none.
      dtype: of computing; parameters and latents stay float32.

    Raises:
      ValueError: sizes do not fit, or a field has no such value. It names the field as one of `model.network`.
    """
    name = choice("model.network.name", options["name"], NETWORKS)
    known = inspect.getfullargspec(NETWORKS[name]).kwonlyargs
    for field in {*options, *known} - {"name"}:
        choice(f"a field of model.network {name}", field, known)
        if field not in options:
            raise ValueError(f"model.network {name} needs {field}: --config configs/vae.py:{name} is its recipe.")
        values = options[field] if isinstance(options[field], tuple) else (options[field],)
        if min(values, default=0) < 1:
            raise ValueError(f"model.network.{field} is {options[field]}, expected at least 1.")
    factor = math.prod(options.get("strides", ()))
    if any(side % factor for side in size[1:]):
        raise ValueError(
            f"data.resolution is {size[1]}, expected a multiple of {factor}, as model.network.strides say."
        )
    return NETWORKS[name](size, dtype, **{field: options[field] for field in known}).clone(condition=encoder)


def latent_shapes(model: vae.VAE, shape: tuple[int, int, int, int]) -> dict[str, tuple[int, ...]]:
    """By name, the shape of the latents of one clip [T,H,W,C], without computing anything."""

    def encode(key: jax.Array, video: jax.Array) -> vae.Gaussians:
        posterior, _ = model.init_with_output(key, video, method="encode")
        return posterior

    key, video = jax.eval_shape(jax.random.key, 0), jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return {name: gaussian.mean.shape[1:] for name, gaussian in jax.eval_shape(encode, key, video).items()}
