"""Builders of VAEs from plain options, by name. Errors name fields where a recipe has them: in `model.network`."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxvid.models import vae, vqvae
from jaxvid.names import choice
from jaxvid.nn.condition import ConditionEncoder

Size = tuple[int, int, int]  # frames, height, width
Options = Mapping[str, Any]


def frame(size: Size, options: Options, dtype: Any) -> vae.VAE:
    """Every frame alone: `dim` latents each, independent and standard normal."""
    shared = {**pick(options, "width", "hidden", "strides"), "dtype": dtype}
    encoder, decoder = vae.FrameEncoder(dim=options["dim"], **shared), vae.FrameDecoder(size=size[1:], **shared)
    return vae.VAE(encoder=encoder, decoder=decoder, prior=vae.StandardPrior())


def temporal(size: Size, options: Options, dtype: Any) -> vae.VAE:
    """`content` latents a clip and `motion` latents a frame, whose prior is recurrent."""
    if options["hidden"] % options["heads"]:
        raise ValueError(
            f"model.network.hidden {options['hidden']} must be a multiple of model.network.heads {options['heads']}."
        )
    shared = {**pick(options, "width", "hidden", "strides"), "dtype": dtype}
    encoder = vae.TemporalEncoder(**pick(options, "content", "motion", "heads"), **shared)
    decoder = vae.FrameDecoder(size=size[1:], **shared)
    return vae.VAE(encoder=encoder, decoder=decoder, prior=vae.RecurrentPrior(memory=options["memory"]))


def layered(size: Size, options: Options, dtype: Any) -> vae.VAE:
    """`temporal`, whose content renders a square foreground and a background, and whose motion places the former."""
    side = options["foreground_size"]
    if side % 4:
        raise ValueError(f"model.network.foreground_size is {side}, expected a multiple of 4.")
    fields = {**pick(options, "width", "hidden"), "strides": (2, 2), "channels": 1, "dtype": dtype}
    # The name of its parameters decides their initial values.
    renderer = vae.FrameDecoder(size=(side, side), **fields, name="painter")
    decoder = vae.LayeredDecoder(renderer=renderer, size=size[1:], dtype=dtype)
    return temporal(size, options, dtype).clone(decoder=decoder)


def grid(size: Size, options: Options, dtype: Any) -> vae.VAE:
    """A grid of latents that is smaller by `downsample` (frames, height, width), independent and standard normal.

    A causal one has norms of single frames.
    """
    width, factors, causal = options["width"], tuple(options["downsample"]), options["causal"]
    if len(factors) != 3:
        raise ValueError(f"model.network.downsample is {factors}, expected factors of frames, height and width.")
    vqvae.latent_grid(size, factors, causal, "model.network.downsample")
    if width % 8:
        raise ValueError(f"model.network.width is {width}, expected a multiple of 8.")
    fields = {"blocks": options["blocks"], "causal": causal, "norm": "frame" if causal else "group", "dtype": dtype}
    stacks = [vqvae.ResidualStack(**fields) for _ in range(2)]  # not one, shared by both
    shared = {"width": width, "dtype": dtype}
    to_grid = vqvae.Encoder(stack=stacks[0], features=2 * options["dim"], downsample=factors, **shared)
    to_video = vqvae.Decoder(stack=stacks[1], upsample=factors, **shared)
    encoder, decoder = vae.GridEncoder(network=to_grid), vae.GridDecoder(network=to_video)
    return vae.VAE(encoder=encoder, decoder=decoder, prior=vae.StandardPrior())


CODES = ("width", "hidden", "strides", "heads", "content", "motion", "memory")
# By name, a builder and the fields of its options.
NETWORKS: dict[str, tuple[Callable[[Size, Options, Any], vae.VAE], tuple[str, ...]]] = {
    "frame": (frame, ("width", "hidden", "strides", "dim")),
    "temporal": (temporal, CODES),
    "layered": (layered, ("foreground_size", *CODES)),
    "grid": (grid, ("width", "blocks", "dim", "downsample", "causal")),
}
LATER: Options = {"causal": False}  # fields that configs of older runs do not have


def make_vae(size: Size, options: Options, encoder: ConditionEncoder | None = None, dtype: Any = None) -> vae.VAE:
    """The VAE that `options` describe.

    Args:
      size: frames, height and width of the videos.
      options: `name`, one of NETWORKS, and the fields of that network.
      encoder: of the conditions; None where there are none.
      dtype: of computing; parameters and latents stay float32.

    Raises ValueError: sizes do not fit, or a field has no such value.
    """
    name = choice("model.network.name", options["name"], NETWORKS)
    build, known = NETWORKS[name]
    options = {**{field: value for field, value in LATER.items() if field in known}, **options}
    for field in {*options, *known} - {"name"}:
        choice(f"a field of model.network {name}", field, known)
        if field not in options:
            raise ValueError(f"model.network {name} needs {field}: --config vae:{name} is its recipe.")
        values = options[field] if isinstance(options[field], tuple) else (options[field],)
        if not isinstance(options[field], bool) and min(values, default=0) < 1:
            raise ValueError(f"model.network.{field} is {options[field]}, expected at least 1.")
    factor = math.prod(options.get("strides", ()))
    if any(side % factor for side in size[1:]):
        expected = f"a multiple of {factor}, as model.network.strides say"
        raise ValueError(f"data.resolution is {size[1]}, expected {expected}.")
    if encoder:
        encoder = encoder.clone(name="condition")  # the name of its parameters decides their initial values
    return build(size, options, dtype).clone(condition_encoder=encoder)


def pick(options: Options, *names: str) -> dict[str, Any]:
    """Some of the options."""
    return {name: options[name] for name in names}


def latent_shapes(model: vae.VAE, shape: tuple[int, int, int, int]) -> dict[str, tuple[int, ...]]:
    """By name, the shape of the latents of one clip [T,H,W,C], without computing anything."""

    def encode(key: jax.Array, video: jax.Array) -> vae.Gaussians:
        posterior, _ = model.init_with_output(key, video, method="encode")
        return posterior

    key, video = jax.eval_shape(jax.random.key, 0), jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return {name: gaussian.mean.shape[1:] for name, gaussian in jax.eval_shape(encode, key, video).items()}
