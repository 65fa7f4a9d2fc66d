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
    shared = {"width": width, "hidden": hidden, "strides": strides, "dtype": dtype}
    decoder = vae.FrameDecoder(size=size[1:], **shared)
    return vae.VAE(encoder=vae.FrameEncoder(dim=dim, **shared), decoder=decoder, prior=vae.StandardPrior())


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
    """`content` latents a clip and `motion` latents a frame, whose prior is recurrent.

    Raises:
      ValueError: `hidden` is no multiple of `heads`.
    """
    if hidden % heads:
        raise ValueError(f"model.network.hidden {hidden} must be a multiple of model.network.heads {heads}.")
    shared = {"width": width, "hidden": hidden, "strides": strides, "dtype": dtype}
    encoder = vae.TemporalEncoder(content=content, motion=motion, heads=heads, **shared)
    decoder = vae.FrameDecoder(size=size[1:], **shared)
    return vae.VAE(encoder=encoder, decoder=decoder, prior=vae.RecurrentPrior(memory=memory))


def layered(
    size: Size,
    dtype: Any,
    *,
    width: int,
    hidden: int,
    strides: tuple[int, ...],
    foreground_size: int,
    heads: int,
    content: int,
    motion: int,
    memory: int,
) -> vae.VAE:
    """`temporal`, whose content renders a square foreground and a background, and whose motion places the former.

    Raises:
      ValueError: `foreground_size` is no multiple of 4, or as `temporal`.
    """
    if foreground_size % 4:
        raise ValueError(f"model.network.foreground_size is {foreground_size}, expected a multiple of 4.")
    codes = {"heads": heads, "content": content, "motion": motion, "memory": memory}
    model = temporal(size, dtype, width=width, hidden=hidden, strides=strides, **codes)
    shared = {"width": width, "hidden": hidden, "strides": (2, 2), "dtype": dtype}
    side = (foreground_size, foreground_size)
    # The name of its parameters decides their initial values.
    renderer = vae.FrameDecoder(size=side, channels=1, **shared, name="painter")
    return model.clone(decoder=vae.LayeredDecoder(renderer=renderer, size=size[1:], dtype=dtype))


def grid(size: Size, dtype: Any, *, width: int, blocks: int, dim: int, downsample: tuple[int, int, int]) -> vae.VAE:
    """A grid of latents that is smaller by `downsample` (frames, height, width), independent and standard normal.

    Raises:
      ValueError: the video does not divide by `downsample`, or `width` is no multiple of 8.
    """
    if len(downsample) != 3 or any(s % f for s, f in zip(size, downsample, strict=True)):
        raise ValueError(f"model.network.downsample {downsample} does not divide frames, height and width {size}.")
    if width % 8:
        raise ValueError(f"model.network.width is {width}, expected a multiple of 8.")
    stacks = [vqvae.ResidualStack(blocks=blocks, dtype=dtype) for _ in range(2)]  # one each: a shared one shares values
    encoder = vqvae.Encoder(stack=stacks[0], width=width, features=2 * dim, downsample=downsample, dtype=dtype)
    decoder = vqvae.Decoder(stack=stacks[1], width=width, upsample=downsample, dtype=dtype)
    return vae.VAE(
        encoder=vae.GridEncoder(network=encoder), decoder=vae.GridDecoder(network=decoder), prior=vae.StandardPrior()
    )


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
    if encoder:
        encoder = encoder.clone(name="condition")  # the name of its parameters decides their initial values
    return NETWORKS[name](size, dtype, **{field: options[field] for field in known}).clone(condition_encoder=encoder)


def latent_shapes(model: vae.VAE, shape: tuple[int, int, int, int]) -> dict[str, tuple[int, ...]]:
    """By name, the shape of the latents of one clip [T,H,W,C], without computing anything."""

    def encode(key: jax.Array, video: jax.Array) -> vae.Gaussians:
        posterior, _ = model.init_with_output(key, video, method="encode")
        return posterior

    key, video = jax.eval_shape(jax.random.key, 0), jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return {name: gaussian.mean.shape[1:] for name, gaussian in jax.eval_shape(encode, key, video).items()}
